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
    seen: Mutex<Seen<K, V>>,
}

#[derive(Debug)]
struct Seen<K, V> {
    known: HashMap<K, (Instant, V)>,
    /// What was asked for before this may have been answered before the change.
    cleared: Option<Instant>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { seen: Mutex::new(Seen { known: HashMap::new(), cleared: None }) }
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn seen(&self) -> MutexGuard<'_, Seen<K, V>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was looked up less than a second before `now`.
    #[must_use]
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let seen = self.seen();
        let (at, value) = seen.known.get(key)?;
        (now.saturating_duration_since(*at) < HOLDS).then(|| value.clone())
    }

    /// It was asked for at `at`; what the answer says may be as old as that.
    pub fn put(&self, key: K, value: V, at: Instant) {
        let mut seen = self.seen();
        if seen.cleared.is_some_and(|cleared| at <= cleared) {
            return;
        }
        let known = &mut seen.known;
        if known.len() >= MAX {
            known.retain(|_, (since, _)| at.saturating_duration_since(*since) < HOLDS);
            // Whoever is forgotten is looked up again.
            if known.len() >= MAX {
                known.clear();
            }
        }
        known.insert(key, (at, value));
    }

    /// Nobody knows what of it has changed: nothing that was asked for before is believed any more,
    /// also if its answer is still on its way.
    pub fn clear(&self) {
        let mut seen = self.seen();
        seen.known.clear();
        seen.cleared = Some(Instant::now());
    }

    /// It has changed.
    pub fn forget(&self, key: &K) {
        self.seen().known.remove(key);
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
    fn an_answer_from_before_a_change_is_not_remembered() {
        let (recent, asked) = (Recent::default(), Instant::now());
        recent.clear();
        recent.put(1, "old", asked);
        assert_eq!(recent.get(&1, asked), None);
        let later = asked + HOLDS;
        recent.put(1, "new", later);
        assert_eq!(recent.get(&1, later), Some("new"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (recent, start) = (Recent::default(), Instant::now());
        for n in 0..5 * MAX {
            recent.put(n, n, start);
            assert!(recent.seen().known.len() <= MAX);
        }
        recent.put(7, 7, start + HOLDS);
        assert!(recent.get(&7, start + HOLDS).is_some());
    }
}
