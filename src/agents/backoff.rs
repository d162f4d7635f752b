//! How long to wait before connecting again.

use std::time::Duration;

/// Doubles with each failure in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// From `base` to `max`.
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, failures: 0 }
    }

    /// A connection ended, or could not be made; gives how long to wait. One over which nothing
    /// was heard is a failure as any other: a connection alone proves nothing.
    pub(super) fn failed(&mut self, was_heard: bool, random: u64) -> Duration {
        if was_heard {
            self.failures = 0;
        }
        let wait = delay(self.failures, self.base, self.max, random);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// What failed so far says nothing of what is tried next.
    pub(super) fn forget(&mut self) {
        self.failures = 0;
    }
}

/// Between the doubled base and twice that, by `random`, so that the links of a host that came back
/// do not knock all at once; once that is too long, between half of the longest and all of it. Never
/// less than `base`.
fn delay(failures: u32, base: Duration, max: Duration, random: u64) -> Duration {
    let most = base.saturating_mul(2u32.saturating_pow(failures.min(30) + 1)).min(max.max(base));
    let least = (most / 2).max(base);
    least + part(most - least, random)
}

/// Between nothing and the whole, by `random`.
pub(super) fn part(whole: Duration, random: u64) -> Duration {
    let steps = 1024;
    whole * u32::try_from(random % u64::from(steps + 1)).unwrap_or(steps) / steps
}

/// Good enough to spread waits; not for secrets.
pub(super) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_doubles_up_to_the_bound_until_somebody_was_heard() {
        let mut backoff = Backoff::new(SECOND, 60 * SECOND);
        let mut waits = |heard: &[bool]| -> Vec<u64> {
            heard.iter().map(|&heard| backoff.failed(heard, 1024).as_secs()).collect()
        };
        assert_eq!(waits(&[false; 7]), [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(&[true, false, false, true]), [2, 4, 8, 2]);
        backoff.forget();
        let waits: Vec<u64> = (0..7).map(|_| backoff.failed(false, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30], "the first wait is a whole base");
    }

    #[test]
    fn links_that_fail_together_do_not_come_back_together() {
        let waits: BTreeSet<u128> = (0..1000)
            .map(|_| Backoff::new(30 * SECOND, 60 * SECOND).failed(false, random()).as_millis() / 300)
            .collect();
        // A hundred slots of 300 ms, each hit ten times on average.
        assert!(waits.len() > 80, "{} slots", waits.len());
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(failures: u32, random: u64, base in 1u64..60, max in 1u64..3600) {
            let (base, max) = (Duration::from_secs(base), Duration::from_secs(max));
            let wait = delay(failures, base, max, random);
            prop_assert!(wait >= base && wait <= max.max(base));
        }
    }
}
