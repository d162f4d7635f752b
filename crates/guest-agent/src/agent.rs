//! The one loop: it owns the port, the outbox and the clock. Everything that can take time runs
//! on another thread and comes back as an [`Event`].

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use agent_protocol::{FrameDecoder, SealOffer};

use crate::{
    collector::Collector,
    commands::{Commands, Request},
    first_boot::FirstBoot,
    log::note,
    message::{self, EncodeError},
    outbox::Outbox,
    port::{Input, Port},
    seal::{Seal, Taken},
    settings::Settings,
    wake::Waiter,
};

/// Between two tries to open the port.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(10);
/// The driver wakes us when the host end comes or goes. This look at the clock is the second way.
const HANG_UP_PROBE: Duration = Duration::from_secs(1);
const FIRST_BOOT_PROBE: Duration = Duration::from_secs(2);
/// Reads of one pass; then everything else gets its turn.
const READS_PER_PASS: usize = 16;

/// What other threads tell the loop.
#[derive(Debug)]
pub(crate) enum Event {
    /// An encoded answer.
    Answer(Vec<u8>),
    /// A command's thread has ended.
    Released,
    /// An encoded reading.
    Metrics(Vec<u8>),
}

/// The port's state.
#[derive(Debug)]
enum Line {
    Closed { retry_at: Instant, delay: Duration },
    Open { port: Port, connected: bool },
}

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent {
    settings: Settings,
    waiter: Waiter,
    events: Receiver<Event>,
    collector: Collector,
    commands: Commands,
    first_boot: FirstBoot,
    first_boot_at: Instant,
    outbox: Outbox,
    seal: Seal,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
    line: Line,
    /// The last complaint about the port, so that each is made once.
    complaint: Option<String>,
    /// Reading stopped before the port was empty.
    unread: bool,
    sequence: u32,
    keep_alive_at: Instant,
    metrics_at: Instant,
}

impl Agent {
    /// Starts the threads that are always there.
    ///
    /// # Errors
    /// No descriptor or no thread to be had.
    pub(crate) fn new(settings: Settings) -> std::io::Result<Self> {
        let waiter = Waiter::new()?;
        let (sender, events): (Sender<Event>, _) = channel();
        let now = Instant::now();
        let seal = Seal::new(&settings, now);
        Ok(Self {
            collector: Collector::start(sender.clone(), waiter.bell())?,
            commands: Commands::new(settings.max_commands, seal.has_key(), sender, waiter.bell()),
            first_boot: FirstBoot::new(&settings, now),
            first_boot_at: now + FIRST_BOOT_PROBE,
            outbox: Outbox::default(),
            seal,
            decoder: FrameDecoder::default(),
            buffer: vec![0; 16 << 10],
            line: Line::Closed { retry_at: now, delay: MIN_RETRY },
            complaint: None,
            unread: false,
            sequence: 0,
            keep_alive_at: now,
            metrics_at: now,
            waiter,
            events,
            settings,
        })
    }

    /// Works until the process ends.
    ///
    /// # Errors
    /// The kernel refuses to let it sleep: better to be restarted than to spin.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        loop {
            let now = Instant::now();
            self.open(now);
            self.collect(now);
            self.notice_hang_up(now);
            self.tick(now);
            self.receive(now);
            self.send(now);
            self.waiter.wait(self.next(now))?;
        }
    }

    fn open(&mut self, now: Instant) {
        let Line::Closed { retry_at, delay } = self.line else { return };
        if now < retry_at {
            return;
        }
        let opened =
            Port::open(self.settings.device.as_deref()).map_err(|e| e.to_string()).and_then(|port| {
                self.waiter.watch(&port).map_err(|e| format!("watch the port: {e}"))?;
                Ok(port)
            });
        match opened {
            Ok(port) => {
                note(format_args!("the port is open"));
                self.complaint = None;
                self.decoder.reset();
                self.line = Line::Open { port, connected: false };
            }
            Err(e) => {
                if self.complaint.as_ref() != Some(&e) {
                    note(format_args!("{e}; trying again"));
                    self.complaint = Some(e);
                }
                self.line = Line::Closed { retry_at: now + delay, delay: (delay * 2).min(MAX_RETRY) };
            }
        }
    }

    /// Takes what the other threads have finished.
    fn collect(&mut self, now: Instant) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Answer(line) => self.outbox.answer(line),
                Event::Released => self.commands.released(),
                // A reading that nobody is there to take is stale by the time somebody is.
                Event::Metrics(line) if self.is_connected() => self.outbox.metrics(line),
                Event::Metrics(_) => {}
            }
        }
        self.outbox.forget(now);
    }

    fn is_connected(&self) -> bool {
        matches!(self.line, Line::Open { connected: true, .. })
    }

    fn notice_hang_up(&mut self, now: Instant) {
        let Line::Open { port, connected } = &mut self.line else { return };
        let present = match port.hung_up() {
            Ok(hung_up) => !hung_up,
            Err(e) => {
                self.close(now, &e);
                return;
            }
        };
        if present == std::mem::replace(connected, present) {
            return;
        }
        // Half a line of the last host end must not be joined to the next one's.
        self.decoder.reset();
        if present {
            self.outbox.connected();
            let offer = self.seal.ask(now);
            self.greet(offer);
            self.metrics_at = now;
            self.keep_alive_at = now + self.settings.keep_alive_interval;
        } else {
            self.outbox.hung_up(now);
            self.seal.hung_up();
        }
    }

    fn close(&mut self, now: Instant, why: &std::io::Error) {
        note(format_args!("the port is gone: {why}"));
        self.outbox.hung_up(now);
        self.seal.hung_up();
        self.unread = false;
        self.line = Line::Closed { retry_at: now + MIN_RETRY, delay: MIN_RETRY * 2 };
    }

    fn greet(&mut self, seal: Option<SealOffer>) {
        let line = message::handshake(&self.settings, self.first_boot.report(), seal);
        queue(line, |line| self.outbox.handshake(line));
    }

    fn tick(&mut self, now: Instant) {
        if now >= self.first_boot_at {
            self.first_boot_at = now + FIRST_BOOT_PROBE;
            if self.first_boot.look(Path::new("/"), now) && self.is_connected() {
                let offer = self.seal.offer(now);
                self.greet(offer);
            }
        }
        if !self.is_connected() {
            return;
        }
        if now >= self.keep_alive_at {
            self.keep_alive_at = now + self.settings.keep_alive_interval;
            queue(message::keep_alive(self.sequence), |line| self.outbox.keep_alive(line));
            self.sequence = self.sequence.wrapping_add(1);
        }
        if now >= self.metrics_at {
            self.metrics_at = now + self.settings.metrics_interval;
            self.collector.request();
        }
    }

    fn receive(&mut self, now: Instant) {
        self.unread = false;
        for _ in 0..READS_PER_PASS {
            if self.is_connected() && !self.outbox.has_room() {
                // The host sends commands and does not take their answers: it has to wait. One
                // that left can send no more, and only reading tells that the port is gone.
                self.unread = true;
                return;
            }
            let Line::Open { port, .. } = &self.line else { return };
            let count = match port.read(&mut self.buffer) {
                Ok(Input::Bytes(count)) => count,
                Ok(Input::Nothing) => return,
                Err(e) => {
                    self.close(now, &e);
                    return;
                }
            };
            self.decoder.push(&self.buffer[..count]);
            while let Some(frame) = self.decoder.next_frame() {
                match frame {
                    Ok(frame) => self.handle(frame, now),
                    Err(e) => self.commands.complain(&e),
                }
            }
        }
        self.unread = true;
    }

    fn handle(&mut self, frame: Vec<u8>, now: Instant) {
        let request = match self.seal.take(frame, now) {
            Taken::Line(line) => self.commands.take(&line),
            Taken::Opened(offer) => {
                self.greet(Some(offer));
                return;
            }
            Taken::Refused(why, line) => {
                if self.seal.should_ask(why, now) {
                    let offer = self.seal.ask(now);
                    self.greet(offer);
                }
                self.commands.refuse(&line, why)
            }
        };
        match request {
            Request::Nothing => {}
            Request::Answer(line) => self.outbox.answer(line),
            Request::Metrics => {
                // Whoever asks may be a host end whose coming was too quick to be seen.
                let offer = self.seal.offer(now);
                self.greet(offer);
                self.collector.request();
            }
        }
    }

    fn send(&mut self, now: Instant) {
        let hold = self.seal.holds_until().is_some_and(|until| now < until);
        while let Line::Open { port, connected: true } = &self.line {
            let Some(bytes) = self.outbox.pending(hold, |line| self.seal.wrap(line)) else { return };
            match port.write(bytes) {
                Ok(0) => return,
                Ok(count) => self.outbox.took(count, now),
                Err(e) => self.close(now, &e),
            }
        }
    }

    /// How long there is nothing to do unless something happens.
    fn next(&self, now: Instant) -> Duration {
        // Reading that waits for room goes on when the port takes bytes again.
        if self.unread && self.outbox.has_room() {
            return Duration::ZERO;
        }
        let mut at = match self.line {
            Line::Closed { retry_at, .. } => retry_at,
            Line::Open { connected: false, .. } => now + HANG_UP_PROBE,
            Line::Open { connected: true, .. } => self.keep_alive_at.min(self.metrics_at),
        };
        if !self.first_boot.report().finished {
            at = at.min(self.first_boot_at);
        }
        if let Some(until) = self.seal.holds_until().filter(|until| *until > now && self.outbox.has_answers())
        {
            at = at.min(until);
        }
        at.saturating_duration_since(Instant::now())
    }
}

fn queue(line: Result<Vec<u8>, EncodeError>, push: impl FnOnce(Vec<u8>)) {
    match line {
        Ok(line) => push(line),
        Err(e) => note(format_args!("{e}")),
    }
}
