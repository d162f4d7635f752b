//! One guest: its socket, and its agent's state, which outlives every client.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use chrono::Utc;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::{
    net::{UnixListener, UnixStream},
    time::Instant,
};

use crate::{
    Frames, GuestPlan, Kind, agents,
    lines::line,
    outbox::{Outbox, What},
    report::{Counters, add},
};

/// Readings that an agent keeps while nobody is there to take them.
const KEPT: u64 = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) plan: GuestPlan,
    pub(crate) counters: Arc<Counters>,
    pub(crate) frames: Frames,
    pub(crate) random: StdRng,
    pub(crate) outbox: Outbox,
    /// Readings put into the outbox so far.
    pub(crate) told: u64,
    /// When the next reading is due.
    next: Instant,
    path: PathBuf,
    listener: UnixListener,
}

impl Guest {
    /// Binds the socket.
    pub(crate) fn bind(plan: GuestPlan, path: PathBuf, counters: Arc<Counters>) -> io::Result<Self> {
        let frames = match plan.kind {
            Kind::Silent | Kind::Storm => Frames::render(plan.seed, 1),
            _ => Frames::render(plan.seed, plan.frames),
        };
        let mut random = StdRng::seed_from_u64(plan.seed);
        let phase = plan.interval.mul_f64(random.random_range(0.0..1.0));
        let listener = UnixListener::bind(&path)?;
        Ok(Self {
            plan,
            counters,
            frames,
            random,
            outbox: Outbox::default(),
            told: 0,
            next: Instant::now() + phase,
            path,
            listener,
        })
    }

    /// Serves one client after the other, for ever.
    pub(crate) async fn run(mut self) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // No file is free for it: some client has to leave first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let here = Here::new(&self.counters);
            self.keep_only_newest();
            // However a client leaves, the next one is served.
            let _ = agents::serve(&mut self, &stream).await;
            self.outbox.rewind();
            drop(here);
        }
    }

    /// The socket goes and comes, as with a VM that is restarted.
    pub(crate) fn rebind(&mut self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        self.listener = UnixListener::bind(&self.path)?;
        add(&self.counters.rebinds, 1);
        Ok(())
    }

    /// When a reading is due; `None`: never again.
    pub(crate) fn next_frame(&self) -> Option<Instant> {
        let more = self.plan.limit.is_none_or(|limit| self.told < limit);
        more.then_some(self.next)
    }

    /// Puts the readings that are due into the outbox; of those due at once, a bounded batch.
    pub(crate) fn tell_due(&mut self, now: Instant) {
        const BATCH: usize = 64 << 10;
        while self.next_frame().is_some_and(|due| due <= now) && self.outbox.waiting() < BATCH {
            self.tell();
            self.was_told(now);
        }
    }

    /// What was due was told; says when the next is due.
    pub(crate) fn was_told(&mut self, now: Instant) {
        self.next = if self.plan.interval.is_zero() { now } else { self.next + self.plan.interval };
    }

    /// Puts the next reading into the outbox.
    pub(crate) fn tell(&mut self) {
        let frame = self.frames.get(self.told);
        self.outbox.push_with(What::Frame, |bytes| frame.write(Utc::now(), bytes));
        self.told += 1;
    }

    /// Of what became due while nobody was there, only the newest is still told. A guest with a
    /// limit tells each of its readings, however late.
    fn keep_only_newest(&mut self) {
        if self.plan.interval.is_zero() || self.plan.limit.is_some() {
            return;
        }
        let late = Instant::now().saturating_duration_since(self.next);
        let due = u64::try_from(late.as_nanos() / self.plan.interval.as_nanos()).unwrap_or(u64::MAX);
        if let Some(too_many @ 1..) = due.checked_sub(KEPT) {
            self.counters.frames_given_up.fetch_add(too_many, Relaxed);
            self.next += self.plan.interval * u32::try_from(too_many).unwrap_or(u32::MAX);
        }
    }

    /// The greeting of an agent of ours.
    pub(crate) fn greeting(&self) -> Vec<u8> {
        line(&json!({
            "type": "handshake", "timestamp": Utc::now().to_rfc3339(), "vm_id": self.plan.vm,
            "version": "0.0.0-fleet", "platform": "linux",
            "capabilities": ["metrics", "safe_commands", "unsafe_commands", "concurrent_commands", "first_boot"],
            "max_concurrent_commands": 4, "first_boot": {"finished": true, "errors": []},
        }))
    }

    /// Reads what is there now; `None`: nothing. An error where the client has left.
    pub(crate) fn read<'a>(&self, stream: &UnixStream, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match stream.try_read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                add(&self.counters.bytes_received, read);
                Ok(Some(&buffer[..read]))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what the client takes now.
    pub(crate) fn write(&mut self, stream: &UnixStream) -> io::Result<bool> {
        self.outbox.write(stream, &self.counters)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A client is here.
struct Here(Arc<Counters>);

impl Here {
    fn new(counters: &Arc<Counters>) -> Self {
        add(&counters.connections, 1);
        add(&counters.clients, 1);
        Self(Arc::clone(counters))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}
