//! What a guest sent and received, counted while it goes on.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;
use uuid::Uuid;

use crate::{Kind, Lie};

/// One guest's counts. A line counts as sent when the socket has taken the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whose.
    pub vm: Uuid,
    /// How it behaves.
    pub kind: Kind,
    /// Clients that were served.
    pub connections: u64,
    /// How often its socket went and came.
    pub rebinds: u64,
    /// Whether a client is there now.
    pub connected: bool,
    /// Valid readings sent.
    pub frames_sent: u64,
    /// Readings that were due while nobody was there, beyond those that are kept.
    pub frames_given_up: u64,
    /// Bytes that the socket took.
    pub bytes_sent: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Commands read.
    pub commands_received: u64,
    /// Answers sent.
    pub commands_answered: u64,
    /// Fragments sent before a whole message.
    pub fragments_sent: u64,
    /// Lies sent.
    pub lies: BTreeMap<Lie, u64>,
}

impl Report {
    /// All of them together, without what cannot be added.
    #[must_use]
    pub fn total(reports: &[Self]) -> Totals {
        let mut totals = Totals { guests: reports.len() as u64, ..Totals::default() };
        for report in reports {
            totals.connected += u64::from(report.connected);
            totals.connections += report.connections;
            totals.frames_sent += report.frames_sent;
            totals.frames_given_up += report.frames_given_up;
            totals.bytes_sent += report.bytes_sent;
            totals.bytes_received += report.bytes_received;
            totals.commands_received += report.commands_received;
            totals.commands_answered += report.commands_answered;
            totals.fragments_sent += report.fragments_sent;
            totals.lies_sent += report.lies.values().sum::<u64>();
        }
        totals
    }
}

/// A fleet's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "each is the sum of the field of that name in `Report`")]
pub struct Totals {
    pub guests: u64,
    pub connected: u64,
    pub connections: u64,
    pub frames_sent: u64,
    pub frames_given_up: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub commands_received: u64,
    pub commands_answered: u64,
    pub fragments_sent: u64,
    pub lies_sent: u64,
}

/// Where a guest counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) rebinds: AtomicU64,
    pub(crate) clients: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    pub(crate) frames_given_up: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) commands_received: AtomicU64,
    pub(crate) commands_answered: AtomicU64,
    pub(crate) fragments_sent: AtomicU64,
    lies: Mutex<BTreeMap<Lie, u64>>,
}

pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

impl Counters {
    pub(crate) fn lied(&self, lie: Lie) {
        *self.lies.lock().unwrap_or_else(PoisonError::into_inner).entry(lie).or_default() += 1;
    }

    pub(crate) fn report(&self, vm: Uuid, kind: Kind) -> Report {
        Report {
            vm,
            kind,
            connections: self.connections.load(Relaxed),
            rebinds: self.rebinds.load(Relaxed),
            connected: self.clients.load(Relaxed) > 0,
            frames_sent: self.frames_sent.load(Relaxed),
            frames_given_up: self.frames_given_up.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            commands_received: self.commands_received.load(Relaxed),
            commands_answered: self.commands_answered.load(Relaxed),
            fragments_sent: self.fragments_sent.load(Relaxed),
            lies: self.lies.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
