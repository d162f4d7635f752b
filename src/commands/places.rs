//! How many commands wait or run per VM: a client that asks faster than a guest answers must not
//! fill the memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::vm::VmId;

/// The places of all VMs. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    limit: usize,
    taken: Arc<Mutex<HashMap<VmId, usize>>>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    vm: VmId,
    places: Places,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<VmId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: all are taken.
    pub(super) fn take(&self, vm: VmId) -> Option<Place> {
        let mut taken = self.taken();
        let count = taken.entry(vm).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { vm, places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.vm) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.vm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_vm_and_given_back() {
        let (a, b) = (VmId::generate(), VmId::generate());
        let places = Places::new(2);
        let first = places.take(a).unwrap();
        let second = places.take(a).unwrap();
        assert!(places.take(a).is_none());
        assert!(places.take(b).is_some(), "another VM has its own");
        drop(first);
        let third = places.take(a);
        assert!(third.is_some());
        drop((second, third));
        assert!(places.taken().is_empty(), "nothing is kept of VMs without commands");
    }
}
