//! Readings that were given up, by reason: counted, said at a bounded rate, and there to be asked
//! for by whoever alarms people. Guest errors that were given up are only counted: they are said
//! where they are given up, and a guest that reports too many is no loss to be alarmed of.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::{
    agents::Throttle,
    vm::{LossCounts, LossReason},
};

/// How often losses are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Readings lost since the controller started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// How many, by reason, as far as they could be counted.
    pub counts: LossCounts,
    /// When the first of them was lost.
    pub since: Option<DateTime<Utc>>,
    /// When the last was.
    pub last: Option<DateTime<Utc>>,
}

/// Why a guest's error was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorReason {
    /// The guest reports more than are kept.
    Rate,
    /// The database was behind, and newer ones needed the room.
    QueueFull,
    /// The controller stopped before the database took it.
    Stopped,
}

impl ErrorReason {
    fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::QueueFull => "queue_full",
            Self::Stopped => "stopped",
        }
    }
}

/// Counts guest errors that were given up; zero is nothing.
pub(super) fn errors_lost(reason: ErrorReason, errors: u64) {
    if errors > 0 {
        ::metrics::counter!("infinibay_guest_errors_lost_total", "reason" => reason.word()).increment(errors);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Losses {
    counted: Mutex<(Lost, Throttle)>,
}

impl Default for Losses {
    fn default() -> Self {
        Self { counted: Mutex::new((Lost::default(), Throttle::new(LOG_INTERVAL))) }
    }
}

impl Losses {
    fn counted(&self) -> MutexGuard<'_, (Lost, Throttle)> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts; zero is nothing.
    pub(super) fn add(&self, reason: LossReason, readings: u64) {
        if readings == 0 {
            return;
        }
        let now = Utc::now();
        let (total, said) = {
            let (lost, throttle) = &mut *self.counted();
            lost.counts.add(reason, readings);
            lost.since.get_or_insert(now);
            lost.last = Some(now);
            (lost.counts.total(), throttle.pass(Instant::now()))
        };
        ::metrics::counter!("infinibay_readings_lost_total", "reason" => reason.word()).increment(readings);
        if let Some(held_back) = said {
            tracing::error!(readings, reason = reason.word(), total, held_back, "readings are lost");
        }
    }

    pub(super) fn snapshot(&self) -> Lost {
        self.counted().0
    }
}
