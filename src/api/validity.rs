//! Until when it is known that a token is good, for those who go on after their request: a WebSocket, a
//! subscription, a socket of Socket.IO. A token ends by itself at a time on the wall's clock, which may be
//! set while they wait; so they look again at that time, and every so often whatever it says.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::access::Actor;

/// A moment more than what is left: a look that comes a little early would find the token good.
const MARGIN: Duration = Duration::from_millis(1);

/// When a token ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity(Option<DateTime<Utc>>);

impl Validity {
    /// Of the token that somebody came with.
    pub(super) fn of(actor: &Actor) -> Self {
        Self(actor.until)
    }

    /// Whether it has ended. Nobody has to be asked: an end is never put off.
    pub(super) fn is_over(self, now: DateTime<Utc>) -> bool {
        self.0.is_some_and(|until| until <= now)
    }

    /// How long until the token is to be looked at again: at its end, and after `every` at the latest.
    pub(super) fn look_after(self, now: DateTime<Utc>, every: Duration) -> Duration {
        let left = self.0.map(|until| (until - now).to_std().unwrap_or_default());
        left.map_or(every, |left| left.saturating_add(MARGIN).min(every))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const EVERY: Duration = Duration::from_secs(30);

    #[test]
    fn a_token_is_looked_at_when_it_ends_and_every_so_often() {
        let now = Utc::now();
        let after = |left: TimeDelta| Validity(Some(now + left)).look_after(now, EVERY);
        assert_eq!(Validity(None).look_after(now, EVERY), EVERY);
        assert_eq!(after(TimeDelta::days(1)), EVERY);
        assert_eq!(after(TimeDelta::seconds(2)), Duration::from_secs(2) + MARGIN);
        // Of one that is over there is nothing to wait for, and yet nobody looks without a pause.
        assert_eq!(after(TimeDelta::zero()), MARGIN);
        assert_eq!(after(TimeDelta::days(-1)), MARGIN);
        assert_eq!(Validity(Some(DateTime::<Utc>::MAX_UTC)).look_after(now, EVERY), EVERY);
    }

    #[test]
    fn it_ends_at_its_time_and_not_before() {
        let end = Utc::now();
        let validity = Validity(Some(end));
        assert!(!validity.is_over(end - TimeDelta::microseconds(1)));
        assert!(validity.is_over(end) && validity.is_over(end + TimeDelta::days(1)));
        assert!(!Validity(None).is_over(DateTime::<Utc>::MAX_UTC));
    }
}
