//! What is remembered of VMs between their frames, for a bounded number of them.
//!
//! VMs come and go for as long as the controller runs, and nothing tells this room for certain
//! when one is gone. So two generations are kept: when the young one is full it becomes the old
//! one, and what was not touched since the change before is forgotten.

use std::{collections::HashMap, mem};

use crate::vm::VmId;

/// VMs of one generation: more than there may be links, so that nothing of a VM that is heard is
/// ever forgotten.
const GENERATION: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub(super) struct Remembered<T> {
    young: HashMap<VmId, T>,
    old: HashMap<VmId, T>,
    generation: usize,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self::new(GENERATION)
    }
}

impl<T> Remembered<T> {
    /// At least the `generation` VMs touched last, and at most twice as many.
    fn new(generation: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation }
    }

    /// What is remembered of this VM. Does not touch it.
    pub(super) fn get(&self, vm: VmId) -> Option<&T> {
        self.young.get(&vm).or_else(|| self.old.get(&vm))
    }

    /// The same to change it, or what `begin` gives.
    pub(super) fn touch(&mut self, vm: VmId, begin: impl FnOnce() -> T) -> &mut T {
        if !self.young.contains_key(&vm) && self.young.len() >= self.generation {
            self.old = mem::take(&mut self.young);
        }
        let old = &mut self.old;
        self.young.entry(vm).or_insert_with(|| old.remove(&vm).unwrap_or_else(begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_touched_last_are_remembered_and_the_number_is_bounded() {
        let vms: Vec<_> = (0..100).map(|_| VmId::generate()).collect();
        let mut seen = Remembered::new(4);
        for (number, vm) in vms.iter().enumerate() {
            // Touched often, it outlives all.
            *seen.touch(vms[0], || 0) += 1;
            *seen.touch(*vm, || 100 * number) += 1;
            assert!(seen.young.len() + seen.old.len() <= 8);
            for recent in &vms[number.saturating_sub(2)..=number] {
                assert!(seen.get(*recent).is_some(), "{number}");
            }
        }
        assert_eq!(seen.get(vms[0]), Some(&101));
        assert_eq!((seen.get(vms[50]), seen.get(vms[99])), (None, Some(&9901)));
        // Forgotten means begun anew.
        assert_eq!(*seen.touch(vms[50], || 7), 7);
    }
}
