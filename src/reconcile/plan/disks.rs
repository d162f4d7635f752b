//! What is told of the disks: whether they are there, can be used, and have room to grow.

use super::{Look, conditions::Draft, power::PAUSED_BY_IO_ERROR};
use crate::vm::{Condition, ConditionKind, ConditionStatus, DomainObservation, DomainState};

const PRESENT: ConditionKind = ConditionKind::DisksPresent;
const LOW: ConditionKind = ConditionKind::StorageLow;

/// Told as right only where it was wrong.
pub(super) fn present(look: &Look<'_>) -> Option<Draft> {
    if look.bundle.record.intent.deleting {
        return None;
    }
    let seen = &look.observed.storage;
    if let Some((pool, volume)) = seen.missing.first() {
        let more = match seen.missing.len() {
            1 => String::new(),
            some => format!(" (and {} more are missing)", some - 1),
        };
        let message = format!(
            "The pool {pool:?} does not have the volume {volume:?} of this VM{more}: somebody removed it outside \
             of this controller. Put it back under that name and ask for `resync`, or give it up with \
             `detachVmDisk` or `deleteVm`."
        );
        return Some((PRESENT, ConditionStatus::False, "DiskMissing", message));
    }
    let state = match &look.observed.domain {
        DomainObservation::Present(facts) => Some((facts.state, facts.reason)),
        DomainObservation::Absent => Some((DomainState::Shutoff, 0)),
        DomainObservation::Unknown => None,
    };
    match state {
        Some((DomainState::Paused, PAUSED_BY_IO_ERROR)) => return Some(failed(&seen.low)),
        None | Some((DomainState::Unknown, _)) => {
            if let Some(stands) = stands(look, PRESENT, &["IoError", "PoolFull"]) {
                return Some(stands);
            }
        }
        Some(_) => {}
    }
    if let Some(pool) = seen.silent.first() {
        let message = format!(
            "The pool {pool:?} is not active or does not answer, so that it is not known whether the disks are \
             there. Look at it with `virsh pool-info {pool}`, and start it with `virsh pool-start {pool}`."
        );
        return Some((PRESENT, ConditionStatus::Unknown, "PoolSilent", message));
    }
    if seen.partial
        && let Some(stands) = stands(look, PRESENT, &["DiskMissing", "PoolSilent"])
    {
        return Some(stands);
    }
    before(look, PRESENT)
        .map(|_| (PRESENT, ConditionStatus::True, "Usable", "The disks can be used.".to_owned()))
}

fn failed(low: &[String]) -> Draft {
    let (reason, message) = match low.first() {
        Some(pool) => (
            "PoolFull",
            format!(
                "The hypervisor paused the VM because a disk could not be written: the pool {pool:?} is full. Make \
                 room in it or grow it, then go on with `resumeVm`."
            ),
        ),
        None => (
            "IoError",
            "The hypervisor paused the VM because a disk could not be read or written: its pool is full, or its \
             storage fails. Make room or mend the storage, then go on with `resumeVm`."
                .to_owned(),
        ),
    };
    (PRESENT, ConditionStatus::False, reason, message)
}

/// Whether the pools run full. Without numbers: they would be news with every look.
pub(super) fn room(look: &Look<'_>) -> Option<Draft> {
    if look.bundle.record.intent.deleting {
        return None;
    }
    let seen = &look.observed.storage;
    if let Some(pool) = seen.low.first() {
        let message = format!(
            "The pool {pool:?} is nearly full: less than 5 % or 1 GiB of it is left. See what lies in it with `virsh \
             vol-list {pool} --details`, and make room or grow it: a guest that cannot write is paused."
        );
        return Some((LOW, ConditionStatus::True, "PoolNearlyFull", message));
    }
    if (seen.partial || !seen.silent.is_empty())
        && let Some(stands) = stands(look, LOW, &["PoolNearlyFull"])
    {
        return Some(stands);
    }
    before(look, LOW)
        .map(|_| (LOW, ConditionStatus::False, "Enough", "There is room in the VM's pools.".to_owned()))
}

fn before<'a>(look: &Look<'a>, kind: ConditionKind) -> Option<&'a Condition> {
    look.bundle.status.as_ref()?.conditions.iter().find(|old| old.kind == kind)
}

/// What was said before, if it was for one of these reasons: nothing was seen that would end it.
fn stands(look: &Look<'_>, kind: ConditionKind, reasons: &[&'static str]) -> Option<Draft> {
    let old = before(look, kind)?;
    let reason = reasons.iter().find(|reason| **reason == old.reason)?;
    Some((kind, old.status, reason, old.message.clone()))
}
