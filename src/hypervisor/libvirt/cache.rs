//! What was read of the domains' XML, so that a scan need not read all of it again.
//!
//! An entry is used until there is a reason to doubt it: an event, a changed state, or its turn
//! in the rotation, which catches what no event told.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use super::events::Dirty;
use crate::{
    domain_xml::XmlFacts,
    vm::{ChannelFacts, DomainAbout, InterfaceFacts, VmId},
};

/// Entries read again per scan although nothing speaks against them.
pub(super) const ROTATION: usize = 16;

/// The part of a domain's facts that only a look at it alone tells: its XML, mostly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct XmlPart {
    pub(super) channel: Option<ChannelFacts>,
    pub(super) interfaces: Vec<InterfaceFacts>,
    /// What is configured and waits for the next start.
    pub(super) waiting: Vec<String>,
    pub(super) about: DomainAbout,
    /// Halted, libvirt does not say for what, and a disk of it fails.
    pub(super) disk_failed: bool,
}

impl From<XmlFacts> for XmlPart {
    fn from(facts: XmlFacts) -> Self {
        let XmlFacts { channel, interfaces, about, .. } = facts;
        Self { channel, interfaces, about, ..Self::default() }
    }
}

#[derive(Debug)]
struct Entry {
    part: XmlPart,
    /// libvirt's state when it was read; `None` if that was not known.
    state: Option<i32>,
    /// When it was read, on the cache's own clock.
    read: u64,
}

#[derive(Debug, Default)]
pub(super) struct XmlCache {
    dirty: Arc<Dirty>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<VmId, Entry>,
    clock: u64,
}

impl XmlCache {
    /// The marks that events set.
    pub(super) fn dirty(&self) -> Arc<Dirty> {
        Arc::clone(&self.dirty)
    }

    /// Doubts everything: after a reconnection nobody knows what was missed.
    pub(super) fn forget_all(&self) {
        self.lock().entries.clear();
    }

    /// To be called before a domain's XML is read: what happens from now on counts as new.
    pub(super) fn about_to_read(&self, id: VmId) {
        self.dirty.clear(id);
    }

    /// Keeps what was read.
    pub(super) fn keep(&self, id: VmId, state: Option<i32>, part: XmlPart) {
        let mut inner = self.lock();
        inner.clock += 1;
        let read = inner.clock;
        inner.entries.insert(id, Entry { part, state, read });
    }

    /// Notes that reading failed, so that it is tried again.
    pub(super) fn failed(&self, id: VmId) {
        self.dirty.mark(id);
    }

    /// What is known of a domain's XML.
    pub(super) fn get(&self, id: VmId) -> Option<XmlPart> {
        self.lock().entries.get(&id).map(|entry| entry.part.clone())
    }

    /// Which of the domains seen (each with libvirt's state) to read, and forgets all others.
    pub(super) fn to_read(&self, seen: &HashMap<VmId, Option<i32>>) -> Vec<VmId> {
        let mut inner = self.lock();
        inner.entries.retain(|id, _| seen.contains_key(id));
        self.dirty.retain(|id| seen.contains_key(&id));
        let mut reads: Vec<VmId> = Vec::new();
        let mut fresh: Vec<(u64, VmId)> = Vec::new();
        for (id, state) in seen {
            match inner.entries.get(id) {
                Some(entry) if entry.state == *state && !self.dirty.contains(*id) => {
                    fresh.push((entry.read, *id));
                }
                _ => reads.push(*id),
            }
        }
        if fresh.len() > ROTATION {
            fresh.select_nth_unstable(ROTATION - 1);
            fresh.truncate(ROTATION);
        }
        reads.extend(fresh.into_iter().map(|(_, id)| id));
        debug_assert_eq!(reads.iter().collect::<HashSet<_>>().len(), reads.len());
        reads
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Option<i32> = Some(1);
    const OFF: Option<i32> = Some(5);

    fn filled(count: usize) -> (XmlCache, HashMap<VmId, Option<i32>>) {
        let cache = XmlCache::default();
        let seen: HashMap<VmId, Option<i32>> = (0..count).map(|_| (VmId::generate(), RUNNING)).collect();
        for id in seen.keys() {
            cache.keep(*id, RUNNING, XmlPart::default());
        }
        (cache, seen)
    }

    #[test]
    fn new_changed_and_dirty_domains_are_read() {
        let (cache, mut seen) = filled(200);
        let new = VmId::generate();
        seen.insert(new, OFF);
        let ids: Vec<VmId> = seen.keys().copied().filter(|id| *id != new).collect();
        seen.insert(ids[0], OFF);
        seen.insert(ids[1], None);
        cache.failed(ids[2]);
        let reads = cache.to_read(&seen);
        for id in [new, ids[0], ids[1], ids[2]] {
            assert!(reads.contains(&id), "{id} should have been read");
        }
        assert_eq!(reads.len(), 4 + ROTATION);
    }

    #[test]
    fn the_rotation_comes_round_to_everybody() {
        let (cache, seen) = filled(100);
        let mut read = HashSet::new();
        for _ in 0..100_usize.div_ceil(ROTATION) {
            let reads = cache.to_read(&seen);
            assert_eq!(reads.len(), ROTATION);
            for id in reads {
                cache.keep(id, RUNNING, XmlPart::default());
                read.insert(id);
            }
        }
        assert_eq!(read.len(), 100);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let (cache, mut seen) = filled(3);
        let gone = *seen.keys().next().unwrap();
        cache.failed(gone);
        seen.remove(&gone);
        assert!(!cache.to_read(&seen).contains(&gone));
        assert_eq!(cache.get(gone), None);
        assert!(!cache.dirty().contains(gone));
    }

    #[test]
    fn an_event_during_a_read_is_not_lost() {
        let (cache, seen) = filled(ROTATION * 4);
        let id = *seen.keys().next().unwrap();
        cache.about_to_read(id);
        cache.dirty().mark(id);
        cache.keep(id, RUNNING, XmlPart::default());
        assert!(cache.to_read(&seen).contains(&id));
    }
}
