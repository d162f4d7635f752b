//! Who tried to sign in and failed, and who therefore has to wait.
//!
//! Three bounds within a quarter of an hour: of one address on one account, of one address in all, and of
//! one account in all. The last is wide, because whoever knows an account's name could else keep its owner
//! out. What is remembered is bounded and lost with the process: an attacker gains one more round.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::vm::UserId;

const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Things remembered at most; whose window is nearest to its end is forgotten first.
const MAX: usize = 16_384;
/// How much of that is forgotten at once where there is no room.
const SHARE: usize = MAX / 16;
const PAIR: u32 = 5;
const ADDRESS: u32 = 30;
const ACCOUNT: u32 = 100;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(IpAddr, String),
    Address(IpAddr),
    Account(String),
    Again(UserId),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    since: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: Mutex<HashMap<Key, Failures>>,
}

impl Attempts {
    /// Counts an attempt before its password is looked at, so that a thousand at once are not a thousand
    /// guesses. A right one is forgotten afterwards with [`Self::succeeded`].
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn begin(&self, address: IpAddr, account: &str, now: Instant) -> Result<(), Duration> {
        self.count(keys(address, account), now)
    }

    /// The same of somebody who names no account.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn begin_nameless(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.count([(Key::Address(network(address)), ADDRESS)], now)
    }

    /// The same of somebody who has signed in and shows his own password once more. Wherever he is, he
    /// stands in nobody else's way.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn begin_again(&self, user: UserId, now: Instant) -> Result<(), Duration> {
        self.count([(Key::Again(user), PAIR)], now)
    }

    /// It was the right one.
    pub(super) fn succeeded_again(&self, user: UserId) {
        self.failures().remove(&Key::Again(user));
    }

    fn count<const N: usize>(&self, keys: [(Key, u32); N], now: Instant) -> Result<(), Duration> {
        let mut failures = self.failures();
        let wait = keys.iter().filter_map(|(key, limit)| {
            let known = failures.get(key)?;
            let left = WINDOW.checked_sub(now.saturating_duration_since(known.since))?;
            (known.count >= *limit && !left.is_zero()).then_some(left)
        });
        if let Some(wait) = wait.max() {
            return Err(wait);
        }
        if failures.len() + keys.len() > MAX {
            make_room(&mut failures, now);
        }
        for (key, _) in keys {
            let known = failures.entry(key).or_insert(Failures { count: 0, since: now });
            if now.saturating_duration_since(known.since) >= WINDOW {
                *known = Failures { count: 0, since: now };
            }
            known.count += 1;
        }
        Ok(())
    }

    /// It was the right password: whoever knows it has not been guessing.
    pub(super) fn succeeded(&self, address: IpAddr, account: &str) {
        let mut failures = self.failures();
        failures.remove(&Key::Pair(network(address), account.to_owned()));
        for key in [Key::Address(network(address)), Key::Account(account.to_owned())] {
            if let Some(known) = failures.get_mut(&key) {
                known.count = known.count.saturating_sub(1);
            }
        }
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Key, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(address: IpAddr, account: &str) -> [(Key, u32); 3] {
    let network = network(address);
    [
        (Key::Pair(network, account.to_owned()), PAIR),
        (Key::Address(network), ADDRESS),
        (Key::Account(account.to_owned()), ACCOUNT),
    ]
}

/// Somebody with one IPv6 network has as many addresses as he likes.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(bits.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Forgets what is over; where that is not enough, the oldest share at once, so that whoever floods us
/// does not have everything looked through at each of his attempts.
fn make_room(failures: &mut HashMap<Key, Failures>, now: Instant) {
    failures.retain(|_, known| now.saturating_duration_since(known.since) < WINDOW);
    if failures.len() <= MAX - SHARE {
        return;
    }
    let mut begun: Vec<Instant> = failures.values().map(|known| known.since).collect();
    let (_, newest, _) = begun.select_nth_unstable(SHARE - 1);
    let mut left = SHARE;
    failures.retain(|_, known| {
        let goes = left > 0 && known.since <= *newest;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn of_one_address_on_one_account() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let here = ip("192.0.2.1");
        for _ in 0..PAIR {
            attempts.begin(here, "ana", start).unwrap();
        }
        assert_eq!(attempts.begin(here, "ana", start), Err(WINDOW));
        // Others are not kept out.
        attempts.begin(here, "ben", start).unwrap();
        attempts.begin(ip("192.0.2.2"), "ana", start).unwrap();
        attempts.begin(here, "ana", start + WINDOW).unwrap();
    }

    #[test]
    fn of_one_address_on_many_accounts_and_of_one_account_from_many() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..ADDRESS {
            attempts.begin(ip("2001:db8::1"), &format!("user{n}"), start).unwrap();
        }
        // The same network.
        assert!(attempts.begin(ip("2001:db8::ffff"), "another", start).is_err());
        attempts.begin(ip("2001:db8:0:1::1"), "another", start).unwrap();
        for n in 0..ACCOUNT {
            attempts.begin(ip(&format!("198.51.100.{n}")), "ana", start).unwrap();
        }
        assert!(attempts.begin(ip("203.0.113.1"), "ana", start).is_err());
    }

    #[test]
    fn who_names_no_account_is_counted_and_in_no_other_way() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let here = ip("192.0.2.1");
        for _ in 0..ADDRESS {
            attempts.begin_nameless(here, start).unwrap();
        }
        assert_eq!(attempts.begin_nameless(here, start), Err(WINDOW));
        assert_eq!(attempts.begin(here, "ana", start), Err(WINDOW));
        // From elsewhere nothing is any different: whoever sets up has no account either.
        attempts.begin_nameless(ip("192.0.2.2"), start).unwrap();
        attempts.begin(ip("192.0.2.2"), "", start).unwrap();
    }

    #[test]
    fn a_right_password_is_no_guess() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for _ in 0..1000 {
            attempts.begin(ip("192.0.2.1"), "ana", start).unwrap();
            attempts.succeeded(ip("192.0.2.1"), "ana");
        }
    }

    #[test]
    fn who_has_signed_in_guesses_for_himself_alone() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for _ in 0..100 {
            let user = UserId::generate();
            for _ in 0..PAIR {
                attempts.begin_again(user, start).unwrap();
            }
            assert_eq!(attempts.begin_again(user, start), Err(WINDOW));
            attempts.succeeded_again(user);
            attempts.begin_again(user, start).unwrap();
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..20_000_u32 {
            let address = IpAddr::V4((0x0a00_0000 + n).into());
            let _ = attempts.begin(address, &format!("user{n}"), start + Duration::from_millis(n.into()));
        }
        assert!(attempts.failures().len() <= MAX);
        // The oldest went, and most of the newest stayed.
        let known = |n: u32| attempts.failures().contains_key(&Key::Account(format!("user{n}")));
        assert!(!known(0) && known(19_999) && known(16_000));
    }
}
