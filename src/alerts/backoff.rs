//! How long to wait before a message is sent again.

use std::time::Duration;

/// Doubles with each failure from `base` to `max`; between half of that and the whole, by
/// `random`. Longer where the receiver asked for it, but never longer than `max`.
pub(super) fn delay(
    failures: i64,
    (base, max): (Duration, Duration),
    asked: Option<Duration>,
    random: u64,
) -> Duration {
    let doubled = u32::try_from(failures.clamp(1, 32) - 1).unwrap_or(0);
    let whole = base.saturating_mul(2u32.saturating_pow(doubled)).min(max);
    let half = whole / 2;
    let steps = 1024;
    let spread = (whole - half) * u32::try_from(random % u64::from(steps + 1)).unwrap_or(steps) / steps;
    (half + spread).max(asked.unwrap_or_default()).min(max)
}

/// Good enough to spread waits; not for secrets.
pub(super) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

    #[test]
    fn it_doubles_up_to_the_bound() {
        let waits: Vec<u64> = (1..12).map(|n| delay(n, BOUNDS, None, 1024).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(delay(1, BOUNDS, None, 0).as_secs(), 5);
    }

    #[test]
    fn a_receiver_may_ask_for_more_but_not_for_ever() {
        let asked = |seconds| delay(1, BOUNDS, Some(Duration::from_secs(seconds)), 1024).as_secs();
        assert_eq!([asked(1), asked(100), asked(1_000_000)], [10, 100, 3600]);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(failures: i64, random: u64, asked: Option<u32>) {
            let wait = delay(failures, BOUNDS, asked.map(|s| Duration::from_secs(s.into())), random);
            prop_assert!(wait >= BOUNDS.0 / 2 && wait <= BOUNDS.1);
        }
    }
}
