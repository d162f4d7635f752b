//! Bounds on how often: frames of a guest, and lines about a guest in our log.

use std::time::Duration;

use tokio::time::Instant;

/// Lets `burst` through at once and `rate` per second on average.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// Full.
    pub(crate) fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, at: now }
    }

    /// Takes `cost` if it is there. What is refused costs nothing, so that a flood does not also
    /// use up what trickles in.
    pub(crate) fn allow(&mut self, cost: f64, now: Instant) -> bool {
        self.refill(now);
        let there = self.tokens >= cost;
        if there {
            self.tokens -= cost;
        }
        there
    }

    /// What was taken for something that turned out to be free.
    pub(crate) fn give_back(&mut self, cost: f64) {
        self.tokens = (self.tokens + cost).min(self.burst);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }
}

/// Lets one thing through per interval and counts the others: for log lines that a guest or a
/// failing database could otherwise write without end.
#[derive(Debug)]
pub(crate) struct Throttle {
    every: Duration,
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// At most one per `every`.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, last: None, held_back: 0 }
    }

    /// `Some(n)`: say it now, and that `n` were held back before it.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_throttle_tells_what_it_held_back() {
        let start = Instant::now();
        let mut throttle = Throttle::new(Duration::from_secs(10));
        let passed: Vec<Option<u64>> =
            [0, 1, 9, 10, 30].map(|s| throttle.pass(start + Duration::from_secs(s))).to_vec();
        assert_eq!(passed, [Some(0), None, None, Some(2), Some(0)]);
    }

    proptest! {
        #[test]
        fn no_more_than_burst_and_rate_pass(gaps in proptest::collection::vec(0u64..200, 1..300)) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(10.0, 20.0, start);
            let (mut now, mut passed) = (start, 0u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                passed += u32::from(bucket.allow(1.0, now));
            }
            let bound = 20.0 + (now - start).as_secs_f64() * 10.0;
            prop_assert!(f64::from(passed) <= bound + 1e-6);
        }

        #[test]
        fn refusals_do_not_starve_what_comes_after(flood in 0u32..10_000) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(1.0, 1.0, start);
            for _ in 0..flood {
                bucket.allow(1.0, start);
            }
            prop_assert!(bucket.allow(1.0, start + Duration::from_secs(1)));
        }
    }
}
