//! From libvirt's callbacks to hints: what the event thread may do, which is to copy an id, mark
//! it, and leave. Nothing here blocks, and nothing grows with the number of events: guests can
//! cause some of them as fast as they like.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, broadcast};

use crate::{
    hypervisor::{HypervisorEvent, Reboots},
    vm::VmId,
};

/// What kind of thing happened to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DomainHint {
    /// libvirt or its user did something: defined, started, stopped, device added or removed.
    Changed,
    /// The guest opened or closed its end of a channel.
    Channel,
    /// The machine booted anew without having been off.
    Rebooted,
}

/// Domains whose cached XML may be out of date. At most one entry per domain.
#[derive(Debug, Default)]
pub(super) struct Dirty(Mutex<HashSet<VmId>>);

impl Dirty {
    /// Marks a domain; false if it was marked already.
    pub(super) fn mark(&self, id: VmId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    /// Unmarks a domain that is about to be read: whatever happens from now on marks it again.
    pub(super) fn clear(&self, id: VmId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Whether it is marked.
    pub(super) fn contains(&self, id: VmId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Forgets every domain that does not exist.
    pub(super) fn retain(&self, exists: impl Fn(VmId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| exists(*id));
    }
}

/// Domains whose last reboot is kept; of more than these, the oldest are forgotten.
const REBOOTS_KEPT: usize = 16_384;

/// When domains booted anew, as told on one connection.
#[derive(Debug, Default)]
pub(super) struct RebootLog {
    told_since: OnceLock<DateTime<Utc>>,
    last: Mutex<HashMap<VmId, DateTime<Utc>>>,
}

impl RebootLog {
    /// From now on every reboot is told.
    pub(super) fn begin(&self) {
        // Once per connection; the first one counts.
        let _ = self.told_since.set(Utc::now());
    }

    fn note(&self, id: VmId, at: DateTime<Utc>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.insert(id, at);
        if last.len() > REBOOTS_KEPT {
            let mut times: Vec<_> = last.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(REBOOTS_KEPT / 2);
            let middle = *middle;
            last.retain(|_, at| *at >= middle);
        }
    }

    /// What is known of one domain.
    pub(super) fn of(&self, id: VmId) -> Reboots {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        Reboots { told_since: self.told_since.get().copied(), last }
    }
}

/// What the callbacks of one connection hold on to.
#[derive(Debug)]
pub(super) struct SessionHooks {
    pub(super) events: broadcast::Sender<HypervisorEvent>,
    pub(super) dirty: Arc<Dirty>,
    pub(super) reboots: RebootLog,
    /// Told when the connection is gone; one permit is kept if nobody waits yet.
    pub(super) lost: Arc<Notify>,
}

impl SessionHooks {
    /// Something happened to a domain.
    pub(super) fn domain(&self, id: VmId, hint: DomainHint) {
        if hint == DomainHint::Rebooted {
            self.reboots.note(id, Utc::now());
        }
        let fresh = self.dirty.mark(id);
        // A guest may open and close its port, or reboot, in a loop: until somebody has looked, one hint is
        // as good as many. What libvirt's users do is rare and always told.
        if fresh || hint == DomainHint::Changed {
            // No receiver is no error: hints are for whoever listens.
            let _ = self.events.send(HypervisorEvent::Domain(id));
        }
    }

    /// libvirt closed the connection.
    pub(super) fn closed(&self, reason: i32) {
        tracing::debug!(reason, "libvirt's connection was closed");
        self.lost.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_toggles_its_port_makes_one_hint_until_somebody_looks() {
        let (events, mut received) = broadcast::channel(64);
        let dirty = Arc::new(Dirty::default());
        let hooks = SessionHooks {
            events,
            dirty: Arc::clone(&dirty),
            reboots: RebootLog::default(),
            lost: Arc::new(Notify::new()),
        };
        let id = VmId::generate();
        for _ in 0..1000 {
            hooks.domain(id, DomainHint::Channel);
        }
        assert!(matches!(received.try_recv(), Ok(HypervisorEvent::Domain(seen)) if seen == id));
        assert!(received.try_recv().is_err(), "the second hint should have been swallowed");
        dirty.clear(id);
        hooks.domain(id, DomainHint::Channel);
        assert!(received.try_recv().is_ok(), "after a look, the next change is told");
        hooks.domain(id, DomainHint::Changed);
        assert!(received.try_recv().is_ok(), "a change by libvirt is always told");
    }

    #[test]
    fn reboots_are_kept_by_domain_and_bounded() {
        let log = RebootLog::default();
        let (id, start) = (VmId::generate(), Utc::now());
        assert_eq!(log.of(id), Reboots::default());
        log.begin();
        log.note(id, start);
        assert_eq!(log.of(id).last, Some(start));
        assert!(log.of(id).told_since.is_some());
        for n in 0..20_000 {
            log.note(VmId::generate(), start + chrono::TimeDelta::seconds(n));
        }
        assert!(log.last.lock().unwrap().len() <= REBOOTS_KEPT);
        assert_eq!(log.of(id).last, None, "the oldest is forgotten");
    }
}
