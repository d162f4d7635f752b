//! Why accepted readings are given up, and how many were: counted by those who store readings, told
//! by those who alarm people, so that an alert names the cause instead of guessing at it.

use std::ops::Index;

/// Why a reading was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// The memory's bound was reached.
    BufferFull,
    /// The disk's bound was reached, or the disk is full.
    SpoolFull,
    /// What waited on disk could not be read.
    SpoolDamaged,
    /// The database refuses it.
    Refused,
    /// It waited so long that it would be removed at once.
    Expired,
    /// The controller stopped and could put it nowhere.
    Stopped,
}

impl LossReason {
    /// Every reason there is, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::BufferFull, Self::SpoolFull, Self::SpoolDamaged, Self::Refused, Self::Expired, Self::Stopped];

    /// Its name outside: in metrics, logs and the details of alerts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }

    /// For people, after a number of readings: short, so that all of them fit into an alert's line.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::BufferFull => "memory was full",
            Self::SpoolFull => "no room on disk",
            Self::SpoolDamaged => "damaged on disk",
            Self::Refused => "the database refused them",
            Self::Expired => "too old to be kept",
            Self::Stopped => "not stored before a stop",
        }
    }
}

/// Readings given up since the controller started, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LossCounts([u64; LossReason::ALL.len()]);

impl LossCounts {
    /// Counts more of them.
    pub fn add(&mut self, reason: LossReason, readings: u64) {
        let count = &mut self.0[reason as usize];
        *count = count.saturating_add(readings);
    }

    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.into_iter().fold(0, u64::saturating_add)
    }

    /// The reasons that cost any, each with how many.
    pub fn causes(&self) -> impl Iterator<Item = (LossReason, u64)> {
        LossReason::ALL.into_iter().zip(self.0).filter(|(_, readings)| *readings > 0)
    }
}

impl Index<LossReason> for LossCounts {
    type Output = u64;

    fn index(&self, reason: LossReason) -> &u64 {
        &self.0[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_for_itself() {
        let mut counts = LossCounts::default();
        for (reason, readings) in LossReason::ALL.into_iter().zip(1..) {
            counts.add(reason, readings);
            assert_eq!(counts[reason], readings, "{reason:?}");
        }
        assert_eq!(counts.total(), 21);
        assert!(counts.causes().eq(LossReason::ALL.into_iter().zip(1..)));
        counts.add(LossReason::Stopped, u64::MAX);
        assert_eq!(counts.total(), u64::MAX);
    }
}
