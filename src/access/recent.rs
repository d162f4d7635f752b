//! What was looked up a moment ago about rights. A client that sends one request after the other
//! need not have the database asked each time who he is; what has changed since holds within a
//! second all the same.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long something counts as just looked up: the longest that a right which was taken away goes
/// on.
const HOLDS: Duration = Duration::from_secs(1);

/// Things remembered at most.
const MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Recent<K, V> {
    seen: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { seen: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn seen(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was looked up less than a second before `now`.
    #[must_use]
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let seen = self.seen();
        let (at, value) = seen.get(key)?;
        (now.saturating_duration_since(*at) < HOLDS).then(|| value.clone())
    }

    /// It was asked for at `at`; what the answer says may be as old as that.
    pub fn put(&self, key: K, value: V, at: Instant) {
        let mut seen = self.seen();
        if seen.len() >= MAX {
            seen.retain(|_, (since, _)| at.saturating_duration_since(*since) < HOLDS);
            // Whoever is forgotten is looked up again.
            if seen.len() >= MAX {
                seen.clear();
            }
        }
        seen.insert(key, (at, value));
    }

    /// Nobody knows what of it has changed.
    pub fn clear(&self) {
        self.seen().clear();
    }

    /// It has changed.
    pub fn forget(&self, key: &K) {
        self.seen().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_believed_for_longer_than_a_second() {
        let (recent, start) = (Recent::default(), Instant::now());
        recent.put(1, "one", start);
        assert_eq!(recent.get(&1, start + HOLDS / 2), Some("one"));
        assert_eq!(recent.get(&1, start + HOLDS), None);
        assert_eq!(recent.get(&2, start), None);
        recent.forget(&1);
        assert_eq!(recent.get(&1, start), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (recent, start) = (Recent::default(), Instant::now());
        for n in 0..5 * MAX {
            recent.put(n, n, start);
            assert!(recent.seen().len() <= MAX);
        }
        recent.put(7, 7, start + HOLDS);
        assert!(recent.get(&7, start + HOLDS).is_some());
    }
}
