//! How many messages leave, and whose is next.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::{store::DueAlert, vm::VmId};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets so many through in any sixty seconds. Exact, unlike a bucket of tokens, which lets up to
/// twice as many through in its first minute.
#[derive(Debug)]
pub(super) struct PerMinute {
    most: usize,
    passed: VecDeque<Instant>,
}

impl PerMinute {
    pub(super) fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), passed: VecDeque::new() }
    }

    /// Whether one may pass now; if so, it does.
    pub(super) fn pass(&mut self, now: Instant) -> bool {
        while self.passed.front().is_some_and(|at| now.saturating_duration_since(*at) >= MINUTE) {
            self.passed.pop_front();
        }
        let may = self.passed.len() < self.most;
        if may {
            self.passed.push_back(now);
        }
        may
    }
}

/// Whose turn it is: of what is equally bad, whoever was served longest ago, so that a VM with
/// many messages holds up its own and nobody else's.
#[derive(Debug, Default)]
pub(super) struct Turns {
    served: HashMap<Option<VmId>, Instant>,
}

/// Serving is forgotten after this time.
const MEMORY: Duration = Duration::from_secs(3600);

impl Turns {
    /// In the order in which they are to be served.
    pub(super) fn sort(&self, due: &mut [DueAlert]) {
        due.sort_by_key(|alert| {
            let served = self.served.get(&alert.vm).copied();
            (std::cmp::Reverse(alert.severity), served, alert.due_at, alert.id)
        });
    }

    pub(super) fn served(&mut self, vm: Option<VmId>, now: Instant) {
        self.served.retain(|_, at| now.saturating_duration_since(*at) < MEMORY);
        self.served.insert(vm, now);
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use uuid::Uuid;

    use super::*;
    use crate::vm::AlertSeverity;

    #[test]
    fn no_minute_has_more_than_allowed() {
        let start = Instant::now();
        let mut pace = PerMinute::new(3);
        let passed: Vec<u64> =
            (0..200).filter(|second| pace.pass(start + Duration::from_secs(*second))).collect();
        assert_eq!(passed, [0, 1, 2, 60, 61, 62, 120, 121, 122, 180, 181, 182]);
    }

    fn due(vm: Option<VmId>, severity: AlertSeverity, second: i64) -> DueAlert {
        let due_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        DueAlert { id: Uuid::now_v7(), vm, severity, due_at }
    }

    #[test]
    fn the_worst_first_and_then_in_turns() {
        let (loud, calm) = (Some(VmId::generate()), Some(VmId::generate()));
        let mut turns = Turns::default();
        let warning = AlertSeverity::Warning;
        let sorted = |turns: &Turns, due: &[DueAlert]| {
            let mut due = due.to_vec();
            turns.sort(&mut due);
            due.iter().map(|alert| (alert.vm, alert.severity)).collect::<Vec<_>>()
        };
        let waiting = [due(loud, warning, 0), due(calm, warning, 9)];
        assert_eq!(sorted(&turns, &waiting), [(loud, warning), (calm, warning)], "the oldest");
        turns.served(loud, Instant::now());
        assert_eq!(sorted(&turns, &waiting), [(calm, warning), (loud, warning)], "the one not served yet");
        turns.served(calm, Instant::now());
        assert_eq!(sorted(&turns, &waiting), [(loud, warning), (calm, warning)], "served longer ago");
        let host = due(None, AlertSeverity::Critical, 99);
        assert_eq!(sorted(&turns, &[waiting[0], waiting[1], host])[0].0, None, "the worst");
    }
}
