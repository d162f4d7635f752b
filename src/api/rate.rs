//! How many requests there may be: of one token, and of an address as long as its token is not known.
//!
//! A token counts as known once it let somebody in. Guesses, and requests without any, are the address's:
//! whoever makes up a thousand tokens has not a thousand allowances, and costs no lookup beyond his own.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{auth::Token, caller, doors::Doors, error::ApiError};
use crate::{agents::TokenBucket, config::HttpConfig};

/// Tokens, and addresses, that are remembered.
const MAX_REMEMBERED: usize = 10_000;
/// Until it is known that somebody may ask again, a bucket has filled up by one.
const WAIT: Duration = Duration::from_secs(1);

/// Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug)]
struct Counts {
    tokens: Buckets<[u8; 32]>,
    addresses: Buckets<IpAddr>,
}

/// One allowance each, and one for all those who are too many to be told apart.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: f64,
    burst: f64,
    each: HashMap<K, (TokenBucket, Instant)>,
    others: TokenBucket,
}

impl Limits {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let (rate, burst) = (f64::from(config.requests_per_second), f64::from(config.request_burst));
        let now = Instant::now();
        let counts =
            Counts { tokens: Buckets::new(rate, burst, now), addresses: Buckets::new(rate, burst, now) };
        Self { counts: Arc::new(Mutex::new(counts)) }
    }

    /// Counts one request, before it is looked up whose token it has.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(super) fn check(&self, token: Option<&Token>, from: Option<IpAddr>) -> Result<(), ApiError> {
        let token = token.map(fingerprint);
        let now = Instant::now();
        let allowed = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            match (token.filter(|token| counts.tokens.each.contains_key(token)), from) {
                (Some(token), _) => counts.tokens.allow(token, now),
                (None, Some(from)) => counts.addresses.allow(network(from), now),
                (None, None) => counts.addresses.others.allow(1.0, now),
            }
        };
        if allowed {
            return Ok(());
        }
        refused("rate");
        let words = "too many requests; wait a second, and ask for more at once";
        Err(ApiError::new("RATE_LIMITED", words).retry_after(WAIT))
    }

    /// Notes that a token let somebody in, or that it did not.
    pub(super) fn note(&self, token: &Token, let_in: bool) {
        let token = fingerprint(token);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let_in {
            counts.tokens.remember(token, Instant::now());
        } else {
            counts.tokens.each.remove(&token);
        }
    }
}

impl<K: Eq + Hash + Copy> Buckets<K> {
    pub(super) fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, each: HashMap::new(), others: TokenBucket::new(rate, burst, now) }
    }

    pub(super) fn allow(&mut self, key: K, now: Instant) -> bool {
        self.remember(key, now);
        match self.each.get_mut(&key) {
            Some((bucket, last)) => {
                *last = now;
                bucket.allow(1.0, now)
            }
            None => self.others.allow(1.0, now),
        }
    }

    /// Where there is room, or room can be made by forgetting those who have their whole allowance again.
    fn remember(&mut self, key: K, now: Instant) {
        if self.each.contains_key(&key) {
            return;
        }
        if self.each.len() >= MAX_REMEMBERED {
            let full = Duration::from_secs_f64(self.burst / self.rate) + WAIT;
            self.each.retain(|_, (_, last)| now.saturating_duration_since(*last) < full);
        }
        if self.each.len() < MAX_REMEMBERED {
            self.each.insert(key, (TokenBucket::new(self.rate, self.burst, now), now));
        }
    }
}

fn fingerprint(token: &Token) -> [u8; 32] {
    Sha256::digest(token.as_str()).into()
}

/// Whose an address is: of IPv6, everybody has a /64 to choose from.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts a request or connection that was not served.
pub(super) fn refused(reason: &'static str) {
    metrics::counter!("infinibay_requests_refused_total", "reason" => reason).increment(1);
}

/// For routes that look up nobody's token: an address has so many requests.
pub(super) async fn of_addresses(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    match doors.limits.check(None, caller::address(request.extensions())) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_http(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(&HttpConfig { requests_per_second: 1, request_burst: 3, ..HttpConfig::default() })
    }

    fn passed(limits: &Limits, token: Option<&Token>, from: &str) -> usize {
        (0..10).filter(|_| limits.check(token, Some(from.parse().unwrap())).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_known_have_their_own_and_all_else_is_the_address() {
        let limits = limits();
        let [one, two, guess] = ["one", "two", "guess"].map(|text| Token::plain(text).unwrap());
        limits.note(&one, true);
        limits.note(&two, true);
        assert_eq!(passed(&limits, Some(&one), "192.0.2.1"), 3);
        assert_eq!(passed(&limits, Some(&one), "192.0.2.2"), 0, "it is the token that counts");
        assert_eq!(passed(&limits, Some(&two), "192.0.2.1"), 3, "another's token");
        assert_eq!(passed(&limits, Some(&guess), "192.0.2.1"), 3);
        assert_eq!(passed(&limits, None, "192.0.2.1"), 0, "guesses and no token are one allowance");
        assert_eq!(passed(&limits, None, "2001:db8::1"), 3);
        assert_eq!(passed(&limits, None, "2001:db8::ffff:2"), 0, "one /64");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passed(&limits, Some(&one), "192.0.2.1"), 1);
        limits.note(&one, false);
        assert_eq!(passed(&limits, Some(&one), "192.0.2.1"), 1, "a token that is good no more");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_remembered_and_the_known_stay() {
        let limits = limits();
        let known = Token::plain("known").unwrap();
        limits.note(&known, true);
        for number in 0..u32::try_from(MAX_REMEMBERED).unwrap() + 500 {
            let _ = limits.check(None, Some(IpAddr::V4(number.into())));
        }
        let remembered = limits.counts.lock().unwrap().addresses.each.len();
        assert_eq!(remembered, MAX_REMEMBERED);
        assert_eq!(passed(&limits, Some(&known), "255.0.0.1"), 3);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(passed(&limits, None, "255.0.0.2"), 3, "room was made");
    }
}
