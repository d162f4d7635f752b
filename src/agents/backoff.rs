//! How long to wait before connecting again.

use std::time::Duration;

/// Doubles with each failure from `base` to `max`; between half of that and the whole, by
/// `random`, so that the links of a host that came back do not knock all at once.
pub(super) fn delay(failures: u32, base: Duration, max: Duration, random: u64) -> Duration {
    let whole = base.saturating_mul(2u32.saturating_pow(failures.min(31))).min(max.max(base));
    let half = whole / 2;
    let steps = 1024;
    half + (whole - half) * u32::try_from(random % u64::from(steps + 1)).unwrap_or(steps) / steps
}

/// Good enough to spread waits; not for secrets.
pub(super) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_up_to_the_bound() {
        let at = |failures| delay(failures, Duration::from_secs(1), Duration::from_secs(60), 1024);
        let seconds: Vec<u64> = (0..8).map(|failures| at(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(failures: u32, random: u64, base in 1u64..60, max in 1u64..3600) {
            let (base, max) = (Duration::from_secs(base), Duration::from_secs(max));
            let wait = delay(failures, base, max, random);
            prop_assert!(wait >= base / 2 && wait <= max.max(base));
        }
    }
}
