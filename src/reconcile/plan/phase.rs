//! One word for where the VM is in its life.

use super::{Look, clone, installing};
use crate::vm::{DesiredPower, DomainFacts, DomainObservation, DomainState, Milestone, VmPhase};

/// libvirt's `VIR_DOMAIN_SHUTOFF_CRASHED`.
const SHUTOFF_CRASHED: i32 = 3;

pub(super) fn derive(look: &Look<'_>) -> VmPhase {
    let intent = &look.bundle.record.intent;
    if intent.deleting {
        return VmPhase::Deleting;
    }
    match &look.observed.domain {
        DomainObservation::Unknown => VmPhase::Unknown,
        DomainObservation::Absent if look.passed(Milestone::Defined) => {
            if look.is_missing() {
                VmPhase::Missing
            } else {
                VmPhase::Unknown
            }
        }
        DomainObservation::Absent if look.gave_up() || !intent.is_open() => {
            if intent.power.is_off() && !clone::is_half_made(look) {
                VmPhase::Stopped
            } else {
                VmPhase::Failed
            }
        }
        DomainObservation::Absent => VmPhase::Provisioning,
        DomainObservation::Present(facts) => of_domain(look, facts),
    }
}

fn of_domain(look: &Look<'_>, facts: &DomainFacts) -> VmPhase {
    let intent = &look.bundle.record.intent;
    let wants = (intent.is_open() && !look.gave_up()).then_some(intent.power);
    match (facts.state, wants) {
        (DomainState::Shutoff | DomainState::Crashed, _) if installing::is_between(look) => {
            VmPhase::Installing
        }
        (DomainState::Unknown, _) => VmPhase::Unknown,
        (DomainState::Paused | DomainState::Suspended, _) => VmPhase::Paused,
        (DomainState::Shutoff | DomainState::Crashed, Some(wanted)) if wanted.is_on() => VmPhase::Starting,
        (DomainState::Crashed, _) => VmPhase::Crashed,
        (DomainState::Shutoff, _) if look.gave_up() && intent.power.is_on() => VmPhase::Failed,
        (DomainState::Shutoff, _) if facts.managed_save => VmPhase::Saved,
        (DomainState::Shutoff, _) if facts.reason == SHUTOFF_CRASHED => VmPhase::Crashed,
        (DomainState::Shutoff, _) => VmPhase::Stopped,
        (_, Some(wanted)) if wanted.is_off() || wanted == DesiredPower::Saved => VmPhase::Stopping,
        (DomainState::ShuttingDown, _) => VmPhase::Stopping,
        (DomainState::Running | DomainState::Blocked, _) => {
            if look.passed(Milestone::Installed) {
                VmPhase::Running
            } else {
                VmPhase::Installing
            }
        }
    }
}
