//! How many consoles are followed at once: each follower looks at a file several times a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::error::ApiError;
use crate::vm::UserId;

/// Of everybody.
const MAX: u32 = 128;
/// Of one user.
const MAX_OF_ONE: u32 = 16;

/// Who reads. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Readers(Arc<Mutex<HashMap<UserId, u32>>>);

/// One who reads, until it is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    all: Readers,
    user: UserId,
}

impl Readers {
    /// # Errors
    /// `TOO_MANY_OPERATIONS`.
    pub(super) fn enter(&self, user: UserId) -> Result<Reader, ApiError> {
        let mut counts = self.counts();
        let of_all: u32 = counts.values().sum();
        let of_one = counts.get(&user).copied().unwrap_or_default();
        if of_one >= MAX_OF_ONE {
            let words = format!("you follow {MAX_OF_ONE} consoles already; end one first");
            return Err(ApiError::new("TOO_MANY_OPERATIONS", words));
        }
        if of_all >= MAX {
            let words = "too many consoles are followed; try again, or read `vmConsoleLog`";
            return Err(ApiError::new("TOO_MANY_OPERATIONS", words));
        }
        counts.insert(user, of_one + 1);
        Ok(Reader { all: self.clone(), user })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<UserId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        match counts.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places_and_each_is_given_back() {
        let readers = Readers::default();
        let ana = UserId::generate();
        let mut hers: Vec<_> = (0..MAX_OF_ONE).map(|_| readers.enter(ana).unwrap()).collect();
        assert!(readers.enter(ana).is_err());
        hers.pop();
        hers.push(readers.enter(ana).unwrap());
        let others: Vec<_> = (MAX_OF_ONE..MAX).map(|_| readers.enter(UserId::generate()).unwrap()).collect();
        assert!(readers.enter(UserId::generate()).is_err());
        drop((hers, others));
        assert!(readers.counts().is_empty());
    }
}
