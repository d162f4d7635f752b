//! Moments that people are told by the clock on the wall, and that must not move when somebody sets
//! it: a guest that was heard a second ago was heard a second ago.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

/// What the clock may seem to differ by without having been set.
const CLOCK_SET: TimeDelta = TimeDelta::seconds(2);

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    instant: Instant,
    noted: DateTime<Utc>,
}

impl Moment {
    /// The present, of which the clock on the wall says this.
    pub(super) fn now(noted: DateTime<Utc>) -> Self {
        Self { instant: Instant::now(), noted }
    }

    /// What the clock on the wall says of it as it goes now.
    pub(super) fn told(self) -> DateTime<Utc> {
        self.told_at(Instant::now(), Utc::now())
    }

    fn told_at(self, instant: Instant, now: DateTime<Utc>) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(instant.saturating_duration_since(self.instant)).ok();
        let moved = passed.and_then(|passed| now.checked_sub_signed(passed));
        // What was noted stands as long as it can: two clocks are never read at the same time.
        moved.filter(|moved| (*moved - self.noted).abs() > CLOCK_SET).unwrap_or(self.noted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_moves_with_a_clock_that_is_set_and_with_no_other() {
        let noted = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let moment = Moment::now(noted);
        let (later, minute) = (moment.instant + Duration::from_secs(60), TimeDelta::minutes(1));
        let hour = TimeDelta::hours(1);
        for (now, told) in [
            (noted + minute, noted),
            (noted + minute + TimeDelta::milliseconds(1900), noted),
            (noted + minute + hour, noted + hour),
            (noted + minute - hour, noted - hour),
            (DateTime::<Utc>::MIN_UTC, noted),
        ] {
            assert_eq!(moment.told_at(later, now), told, "{now}");
        }
    }
}
