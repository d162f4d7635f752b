//! Rates out of counters: what a guest has received and sent since its start, and when it said
//! so, against what it said before. Pure.

use agent_protocol::SystemReading;
use chrono::{DateTime, TimeDelta, Utc};

use crate::vm::NetworkRates;

/// A mean over a longer time says nothing of either end of it.
const MAX_GAP: TimeDelta = TimeDelta::minutes(10);

/// What a valid reading told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    /// The guest's clock: what lies between two readings is told by one clock, whatever it shows
    /// and however long they were on their way.
    at: DateTime<Utc>,
    received: u64,
    sent: u64,
}

impl Counters {
    /// `None` where the guest does not tell.
    pub(super) fn of(system: &SystemReading, at: DateTime<Utc>) -> Option<Self> {
        let (received, sent) = system.network_received.zip(system.network_sent)?;
        Some(Self { at, received, sent })
    }

    /// What went over the network since then; `None` where that cannot be told: counters that
    /// began anew, a clock that was set back, too long a time.
    pub(super) fn rates_since(&self, before: &Self) -> Option<NetworkRates> {
        let passed = self.at.signed_duration_since(before.at);
        if passed <= TimeDelta::zero() || passed > MAX_GAP {
            return None;
        }
        let received = self.received.checked_sub(before.received)?;
        let sent = self.sent.checked_sub(before.sent)?;
        let seconds = passed.as_seconds_f64();
        Some(NetworkRates { received: float(received) / seconds, sent: float(sent) / seconds })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is good to some digits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counters(milliseconds: i64, received: u64, sent: u64) -> Counters {
        let system = json!({"network": {"interfaces": [
            {"name": "lo", "bytes_received": 9, "bytes_sent": 9},
            {"name": "eth0", "bytes_received": received, "bytes_sent": sent},
        ]}});
        let at = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(milliseconds);
        Counters::of(&SystemReading::of(&system), at).expect("told")
    }

    #[test]
    fn rates_are_told_between_two_frames_of_one_life() {
        let before = counters(0, 1000, 50);
        for (after, rates) in [
            (counters(30_000, 4000, 50), Some((100.0, 0.0))),
            (counters(500, 1001, 52), Some((2.0, 4.0))),
            (counters(600_000, 1000, 50), Some((0.0, 0.0))),
            // Too long ago.
            (counters(600_001, 1000, 50), None),
            // Twice the same time, and a clock set back.
            (counters(0, 2000, 50), None),
            (counters(-1, 2000, 50), None),
            // The guest began anew, or an interface is gone.
            (counters(30_000, 999, 60), None),
            (counters(30_000, 2000, 49), None),
        ] {
            let told = after.rates_since(&before).map(|rates| (rates.received, rates.sent));
            assert_eq!(told, rates, "{after:?}");
        }
        let extreme = |at| Counters { at, received: 0, sent: u64::MAX };
        let (first, last) = (extreme(DateTime::<Utc>::MIN_UTC), extreme(DateTime::<Utc>::MAX_UTC));
        assert!(last.rates_since(&first).is_none() && first.rates_since(&last).is_none());
        assert!(Counters::of(&SystemReading::of(&json!({"network": {}})), DateTime::UNIX_EPOCH).is_none());
    }
}
