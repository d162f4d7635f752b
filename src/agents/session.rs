//! One connection, from its opening to its end.
//!
//! A session waits for nobody without an end: not for a guest that does not read (the write has a
//! deadline), not for a receiver that is full (for some seconds nothing is read, then the stash
//! drops), not for a caller (replies are one-shot).

mod intake;

use std::{future::poll_fn, io, time::Duration};

use agent_protocol::{FrameDecoder, HostMessage};
use chrono::Utc;
use tokio::{net::UnixStream, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    LinkError, counting,
    flight::{ANSWER_MARGIN, Flight, Reply},
    hold::Hold,
    outgoing::Outgoing,
    pacing::Pacing,
    rate::{Throttle, TokenBucket},
    seal::{Seal, Sealing},
    sending::Sending,
    shared::{News, Outlets, Pending, Shared},
    stash::Stash,
    wire::encode_command,
};
use crate::vm::{CommandId, GuestCommand, LinkCounters, LinkEnd};

/// Bytes read at once.
const READ_BYTES: usize = 32 << 10;

/// How long reading rests after a read that was over the rate. Together with [`READ_BYTES`] it
/// slows a flood to 320 KiB/s, while what a socket buffers ahead of an answer is through in less
/// than a second.
const REST: Duration = Duration::from_millis(100);

/// Bytes per frame that the byte rate is reckoned with, and its least burst.
const TYPICAL_FRAME_BYTES: f64 = 8192.0;
const LEAST_BYTE_BURST: f64 = 4_194_304.0;

/// What a frame takes in memory that the rate of those passed on is reckoned with, and its least
/// burst.
const TYPICAL_TREE_BYTES: f64 = 131_072.0;
const LEAST_TREE_BURST: f64 = 16_777_216.0;

/// Answers to commands that this link does not know, which are passed on: this many at once, and
/// per second on average.
const STRAY_BURST: f64 = 16.0;
const STRAY_RATE: f64 = 1.0;

/// What bounds a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) frame_bytes: usize,
    pub(super) frames_per_second: u32,
}

/// A command on its way to the guest. Dropped before it was sent, its caller learns that nothing
/// was sent.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: CommandId,
    pub(super) command: GuestCommand,
    pub(super) deadline: Instant,
    /// Told before the first byte is written; withdrawn by a caller that no longer wants it sent.
    pub(super) sending: Sending,
    pub(super) reply: Reply,
    pub(super) pending: Pending,
}

impl Job {
    /// It is not sent.
    pub(super) fn refuse(self, why: LinkError) {
        // A caller that is gone needs no answer.
        let _ = self.reply.send(Err(why));
    }
}

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("closed on request")]
    Stopped,
    #[error("the hypervisor closed the channel")]
    Closed,
    #[error("reading: {0}")]
    Read(#[source] io::Error),
    #[error("writing: {0}")]
    Write(#[source] io::Error),
    #[error("the guest does not read: a line could not be written in time")]
    Stuck,
    #[error("the agent speaks without the seal that is required of it")]
    Unsealed,
}

/// How often a link may tell of itself, over all its connections.
#[derive(Debug)]
pub(super) struct Rates<'a> {
    /// Lines in the log about what the guest sends.
    pub(super) complaints: &'a mut Throttle,
    /// Hints to the loop.
    pub(super) hints: &'a mut TokenBucket,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session<'a> {
    shared: &'a Shared,
    outlets: &'a Outlets,
    rates: Rates<'a>,
    stream: UnixStream,
    decoder: FrameDecoder,
    flight: Flight,
    pacing: Pacing,
    outgoing: Option<Outgoing>,
    /// The newest `keep_alive` that is to be answered; older ones are answered by it.
    keep_alive: Option<u32>,
    stash: Stash,
    hold: Hold,
    /// Lines may be left that were read and not looked at, because frames wait.
    backlog: bool,
    heard: bool,
    counters: LinkCounters,
    frame_rate: TokenBucket,
    byte_rate: TokenBucket,
    /// Of what is passed on, as it stands in memory.
    tree_rate: TokenBucket,
    /// Of answers to commands that this link does not know.
    stray_rate: TokenBucket,
    seal: Seal<'a>,
    _open: counting::OpenConnection,
    resting_until: Option<Instant>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        outlets: &'a Outlets,
        rates: Rates<'a>,
        limits: Limits,
        sealing: Option<&'a Sealing>,
        stream: UnixStream,
    ) -> Self {
        let now = Instant::now();
        let rate = f64::from(limits.frames_per_second);
        let byte_rate = rate * TYPICAL_FRAME_BYTES;
        let tree_rate = rate * TYPICAL_TREE_BYTES;
        Self {
            shared,
            outlets,
            rates,
            stream,
            decoder: FrameDecoder::new(limits.frame_bytes),
            flight: Flight::new(),
            pacing: Pacing::default(),
            outgoing: None,
            keep_alive: None,
            stash: Stash::default(),
            hold: Hold::default(),
            backlog: false,
            heard: false,
            counters: shared.opened(Utc::now()),
            frame_rate: TokenBucket::new(rate, 2.0 * rate, now),
            byte_rate: TokenBucket::new(byte_rate, (2.0 * byte_rate).max(LEAST_BYTE_BURST), now),
            tree_rate: TokenBucket::new(tree_rate, LEAST_TREE_BURST, now),
            stray_rate: TokenBucket::new(STRAY_RATE, STRAY_BURST, now),
            seal: Seal::new(sealing, now),
            _open: counting::OpenConnection::new(),
            resting_until: None,
        }
    }

    /// Whether a valid message came.
    pub(super) fn was_heard(&self) -> bool {
        self.heard
    }

    /// Works until the connection or the link ends. Commands that are unanswered then end as
    /// `Disconnected` when the session is dropped.
    pub(super) async fn run(&mut self, jobs: &mut mpsc::Receiver<Box<Job>>, stop: &CancellationToken) -> End {
        let end = loop {
            if let Err(end) = self.turn(jobs, stop).await {
                break end;
            }
        };
        // A VM that stops closes its channel: whoever said first why is right.
        let otherwise = match end {
            End::Stopped => LinkEnd::ControllerStopping,
            End::Unsealed => LinkEnd::Unsealed,
            End::Closed | End::Read(_) | End::Write(_) | End::Stuck => LinkEnd::ChannelClosed,
        };
        let why = self.shared.told_to_end().unwrap_or(otherwise);
        self.flight.set_end(why);
        self.shared.broke(why);
        end
    }

    async fn turn(
        &mut self,
        jobs: &mut mpsc::Receiver<Box<Job>>,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let now = Instant::now();
        self.flight.expire(now);
        if self.outgoing.as_ref().is_some_and(|line| line.deadline <= now) {
            return Err(End::Stuck);
        }
        if self.seal.is_refused(now) {
            return Err(End::Unsealed);
        }
        self.write_other(now)?;
        let held = self.held_until(now);
        if self.backlog && held.is_none() {
            self.take_lines(self.counters);
            return Ok(());
        }
        let reading = held.is_none() && self.resting_until.is_none_or(|until| until <= now);
        let taking = self.takes_jobs(now);
        let wake = self.next_wake(now).into_iter().chain(held).min();
        tokio::select! {
            () = stop.cancelled() => Err(End::Stopped),
            ready = self.stream.readable(), if reading => {
                ready.map_err(End::Read)?;
                self.read()
            }
            ready = self.stream.writable(), if self.outgoing.is_some() => {
                ready.map_err(End::Write)?;
                self.write()
            }
            Some(job) = jobs.recv(), if taking => self.take(*job),
            lost = poll_fn(|context| self.stash.poll_hand_over(&self.outlets.frames, context)),
                if !self.stash.is_empty() =>
            {
                self.counters.dropped += lost;
                self.hold.had_turn();
                Ok(())
            }
            () = self.shared.wake.notified() => Ok(()),
            () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => Ok(()),
        }
    }

    /// Until when nothing is read, because frames wait for their receiver.
    fn held_until(&mut self, now: Instant) -> Option<Instant> {
        self.hold.until(!self.stash.is_empty(), self.flight.len() > 0, now)
    }

    /// An unheard agent's jobs are taken too: to be refused at once.
    fn takes_jobs(&self, now: Instant) -> bool {
        !self.heard
            || (self.outgoing.is_none()
                && self.seal.is_ready()
                && self.flight.has_room()
                && self.pacing.command_wait(now).is_none())
    }

    /// When something is to be done although nothing came.
    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let other_due =
            self.keep_alive.is_some() || self.shared.is_metrics_request_due() || self.seal.has_line();
        [
            self.resting_until.filter(|&until| until > now),
            self.outgoing.as_ref().map(|line| line.deadline),
            self.flight.next_expiry(),
            self.seal.next_look(),
            self.pacing.command_wait(now),
            self.pacing.other_wait(now).filter(|_| other_due),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn take(&mut self, job: Job) -> Result<(), End> {
        if !self.heard {
            // It was given to an earlier connection.
            job.refuse(LinkError::Ended(LinkEnd::ChannelClosed));
            return Ok(());
        }
        let now = Instant::now();
        if job.deadline <= now {
            job.refuse(LinkError::NoPlace);
            return Ok(());
        }
        let encoded = encode_command(job.id, &job.command, job.deadline - now);
        let Ok(line) = self.seal.wrap(encoded) else {
            // Whoever accepts commands looks at their length.
            tracing::warn!(vm = %self.shared.vm, command = %job.id, "a command is too long to be sealed");
            job.refuse(LinkError::NoPlace);
            return Ok(());
        };
        // Whoever asked may have been told by now that it was not sent: it must not run all the same.
        if job.reply.is_closed() || !job.sending.begin() {
            return Ok(());
        }
        self.flight.launch(job.id, job.reply, job.deadline + ANSWER_MARGIN, job.pending);
        self.outgoing = Some(Outgoing::new(line, true, now));
        self.write()
    }

    /// Begins to write a line that is no command, if one is due and may be written.
    fn write_other(&mut self, now: Instant) -> Result<(), End> {
        if self.outgoing.is_some() || self.pacing.other_wait(now).is_some() {
            return Ok(());
        }
        if let Some(line) = self.seal.next_line(now) {
            self.outgoing = Some(Outgoing::new(line, false, now));
            return self.write();
        }
        let message = if let Some(sequence_number) = self.keep_alive.take() {
            HostMessage::KeepAliveResponse { sequence_number, timestamp: Utc::now() }
        } else if self.shared.is_metrics_request_due() {
            self.shared.metrics_asked();
            HostMessage::Metrics
        } else {
            return Ok(());
        };
        // They are short.
        if let Ok(line) = self.seal.wrap(message.encode()) {
            self.outgoing = Some(Outgoing::new(line, false, now));
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), End> {
        let Some(line) = &mut self.outgoing else { return Ok(()) };
        if line.write(&self.stream).map_err(End::Write)? {
            let now = Instant::now();
            if line.is_command {
                self.pacing.command_written(now);
            } else {
                self.pacing.other_written(now, self.flight.len());
            }
            self.outgoing = None;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; READ_BYTES];
        let read = match self.stream.try_read(&mut buffer) {
            Ok(0) => return Err(End::Closed),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(End::Read(error)),
        };
        let before = self.counters;
        self.counters.bytes += read as u64;
        self.decoder.push(&buffer[..read]);
        self.take_lines(before);
        Ok(())
    }

    /// Takes in the lines that were read, until frames wait for their receiver. `before` is what
    /// was counted before them.
    fn take_lines(&mut self, before: LinkCounters) {
        let (now, at) = (Instant::now(), Utc::now());
        let mut news = News::default();
        self.backlog = false;
        self.hold.had_read();
        while let Some(line) = self.decoder.next_frame() {
            self.line(line, now, at, &mut news);
            if self.held_until(now).is_some() {
                self.backlog = true;
                break;
            }
        }
        self.heard |= news.heard;
        news.seal = self.seal.told();
        self.complain(before, now);
        counting::add(&before, &self.counters);
        if self.shared.learn(news, self.counters, at) && self.rates.hints.allow(1.0, now) {
            self.outlets.hint(self.shared.vm);
        }
    }

    /// Says in the log what is wrong with this guest, rarely.
    fn complain(&mut self, before: LinkCounters, now: Instant) {
        let faults = |c: &LinkCounters| {
            let refused = c.malformed + c.oversized + c.wrong_shape + c.unknown_type + c.unsolicited;
            let seals = c.bad_seal + c.replayed + c.stale + c.unsealed;
            refused + seals + c.too_large + c.dropped
        };
        if faults(&self.counters) > faults(&before) && self.rates.complaints.pass(now).is_some() {
            let LinkCounters {
                malformed,
                oversized,
                wrong_shape,
                unknown_type,
                unsolicited,
                bad_seal,
                replayed,
                stale,
                unsealed,
                too_large,
                dropped,
                ..
            } = self.counters;
            tracing::warn!(
                vm = %self.shared.vm, malformed, oversized, wrong_shape, unknown_type, unsolicited, bad_seal,
                replayed, stale, unsealed, too_large, dropped,
                "the guest sends what cannot be used"
            );
        }
    }
}
