//! Places for those who stay: WebSockets, and connections of Socket.IO however they come.
//!
//! There are so many in all. Whoever has not introduced himself shares a quarter of them with all
//! of his address, so that nobody without a token keeps the others out; and one user has three
//! quarters at most of those for GraphQL, so that nobody with one does.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{error::ApiError, rate};
use crate::vm::UserId;

/// Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    strangers: Counts<Option<IpAddr>>,
    users: Counts<UserId>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    stranger: Mutex<Option<Counted<Option<IpAddr>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(all: u32) -> Self {
        let all = usize::try_from(all).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            strangers: Counts::new((all / 4).max(1)),
            users: Counts::new((all * 3).div_ceil(4)),
            all: Arc::new(Semaphore::new(all)),
        }
    }

    /// A place for a stranger from there; all whose address is not known are one.
    ///
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`.
    pub(super) fn enter(&self, from: Option<IpAddr>) -> Result<Place, ApiError> {
        let stranger = self.strangers.enter(from.map(rate::network)).ok_or_else(|| {
            full("too many connections of your address have not introduced themselves; try again")
        })?;
        let permit = self.all.clone().try_acquire_owned();
        let permit = permit.map_err(|_| full("too many connections are open; try again"))?;
        Ok(Place { places: self.clone(), stranger: Mutex::new(Some(stranger)), _permit: permit })
    }
}

impl Place {
    /// Whoever holds it has shown a token: he is no stranger any more.
    pub(super) fn introduced(&self) {
        drop(self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The same, of a user who may not have all places.
    ///
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`.
    pub(super) fn taken_by(&self, user: UserId) -> Result<Counted<UserId>, ApiError> {
        let taken =
            self.places.users.enter(user).ok_or_else(|| {
                full("you have as many connections open as one user may have; close one first")
            })?;
        self.introduced();
        Ok(taken)
    }
}

fn full(words: &'static str) -> ApiError {
    rate::refused("places");
    ApiError::new("TOO_MANY_CONNECTIONS", words)
}

/// How many each has, up to so many.
#[derive(Debug)]
struct Counts<K> {
    most: usize,
    of: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self { most: self.most, of: self.of.clone() }
    }
}

/// One more of somebody's, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted<K: Eq + Hash> {
    counts: Counts<K>,
    whose: K,
}

impl<K: Eq + Hash + Copy> Counts<K> {
    fn new(most: usize) -> Self {
        Self { most, of: Arc::default() }
    }

    fn enter(&self, whose: K) -> Option<Counted<K>> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let has = of.get(&whose).copied().unwrap_or_default();
        (has < self.most).then(|| {
            of.insert(whose, has + 1);
            Counted { counts: self.clone(), whose }
        })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut of = self.counts.of.lock().unwrap_or_else(PoisonError::into_inner);
        match of.get_mut(&self.whose) {
            Some(has) if *has > 1 => *has -= 1,
            _ => drop(of.remove(&self.whose)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(places: &Places, from: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.enter(Some(from.parse().unwrap())).ok()).collect()
    }

    #[test]
    fn strangers_of_one_address_leave_places_to_others() {
        let places = Places::new(16);
        let strangers = entered(&places, "192.0.2.1");
        assert_eq!(strangers.len(), 4);
        let other = places.enter(Some("192.0.2.2".parse().unwrap())).unwrap();
        strangers[0].introduced();
        strangers[0].introduced();
        let one_more = entered(&places, "192.0.2.1");
        assert_eq!(one_more.len(), 1, "who is known is no stranger");
        drop((strangers, one_more, other));
        assert_eq!(places.all.available_permits(), 16);
        assert!(places.strangers.of.lock().unwrap().is_empty());
    }

    #[test]
    fn one_user_has_not_all_of_them() {
        let places = Places::new(8);
        let ana = UserId::generate();
        let mut hers = Vec::new();
        loop {
            let place = places.enter(None).unwrap();
            match place.taken_by(ana) {
                Ok(taken) => hers.push((place, taken)),
                Err(refused) => break assert_eq!(refused.code(), "TOO_MANY_CONNECTIONS"),
            }
        }
        assert_eq!(hers.len(), 6);
        let place = places.enter(None).unwrap();
        place.taken_by(UserId::generate()).unwrap();
        drop(hers.pop());
        place.taken_by(ana).unwrap();
    }

    #[test]
    fn few_places_are_enough_for_one() {
        let places = Places::new(1);
        let place = places.enter(None).unwrap();
        place.taken_by(UserId::generate()).unwrap();
        assert!(places.enter(None).is_err());
    }
}
