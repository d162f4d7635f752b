//! A VM that is made as a copy of another, and the one that is copied.

use std::time::Duration;

use super::{Look, Step, after, course::Course};
use crate::{
    hypervisor::Copying,
    reconcile::loan::Loan,
    vm::{
        DesiredPower, DomainObservation, LendChange, Milestone, OperationId, ResourceKind, ResourceState,
        VmChange,
    },
};

/// How soon either of the two is looked at again, to see what became of the other one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn is_copy(look: &Look<'_>) -> bool {
    look.bundle.record.spec.cloned_from().is_some()
}

/// Whether it is a copy that is not whole: neither off nor on.
pub(super) fn is_half_made(look: &Look<'_>) -> bool {
    is_copy(look) && !look.passed(Milestone::Defined)
}

/// A copy is made before it is off, too.
pub(super) fn is_to_be_made(look: &Look<'_>) -> bool {
    use DesiredPower::{ColdRunning, ForcedOff, Paused, Running, Saved, Stopped};
    let intent = &look.bundle.record.intent;
    is_half_made(look)
        && intent.is_open()
        && match intent.power {
            Running | ColdRunning | Stopped | ForcedOff => true,
            Paused | Saved => false,
        }
}

/// The way to a copy's disks.
pub(super) fn copy(look: &Look<'_>) -> Course {
    let generation = look.bundle.record.intent.generation;
    // Looked at again at once: people are to see that it failed.
    let given_up = |code, words: &str| Course {
        wake_at: Some(look.now),
        ..Course::given_up(generation, code, words.to_owned())
    };
    match (look.observed.loan, look.observed.copying) {
        (Loan::LenderGone, _) => {
            given_up("SOURCE_DELETED", "the VM that was to be copied is gone; delete this one")
        }
        (Loan::Withdrawn, _) => given_up(
            "SOURCE_CHANGED",
            "the VM that was to be copied did not stay as it was; delete this one, and clone that one anew \
             when it is off",
        ),
        (Loan::Stands, Copying::Nothing) => Course::step(Step::CopyDisks),
        _ => Course::wait_until(after(look.now, LOOK_AGAIN)),
    }
}

/// The lender's next step.
pub(super) fn lend(look: &Look<'_>, operation: OperationId, loan: LendChange) -> Course {
    match (look.observed.loan, loan.still) {
        (Loan::Over, _) => Course::step(Step::Change(operation)),
        (_, false) => Course::step(Step::Lend(operation)),
        (_, true) => Course::wait_until(after(look.now, LOOK_AGAIN)),
    }
}

/// Why a lender cannot be copied as it is, if it cannot.
pub(super) fn breaks_loan(look: &Look<'_>, change: &VmChange) -> Option<&'static str> {
    let (VmChange::Lend(_), DomainObservation::Present(facts)) = (change, &look.observed.domain) else {
        return None;
    };
    if facts.state.is_active() {
        return Some("the VM does not stay off while it is copied; stop it with `stopVm`, and ask again");
    }
    let saved =
        "what was saved of the VM's memory belongs to its disks as they are; start it and stop it first";
    facts.managed_save.then_some(saved)
}

/// How far a copy is, 0 to 100.
pub(super) fn progress(look: &Look<'_>) -> i32 {
    let later = [
        (Milestone::FirstStarted, 95),
        (Milestone::Defined, 90),
        (Milestone::SeedWritten, 85),
        (Milestone::DiskCreated, 80),
    ];
    if let Some((_, percent)) = later.into_iter().find(|(milestone, _)| look.passed(*milestone)) {
        return percent;
    }
    let disks = look.bundle.record.spec.devices.disks.len() + 1;
    let made =
        look.bundle.resources.iter().filter(|resource| {
            resource.kind == ResourceKind::Volume && resource.state == ResourceState::Created
        });
    let now = match look.observed.copying {
        Copying::UnderWay(Some(percent)) => usize::from(percent),
        Copying::UnderWay(None) | Copying::Stalled | Copying::Nothing => 0,
    };
    i32::try_from((made.count() * 100 + now).min(disks * 100) * 80 / (disks * 100)).unwrap_or(0)
}

/// What a copy waits for before its disks are there.
pub(super) fn stage(look: &Look<'_>) -> Option<&'static str> {
    let disks = !look.passed(Milestone::DiskCreated) && look.memory.failure.is_none();
    match look.observed.loan {
        Loan::Awaited if disks => Some("waiting for the VM that is copied"),
        Loan::Stands if disks && look.observed.copying == Copying::Stalled => {
            Some("copying the disks; nothing was written for 5 min: look at their pools")
        }
        Loan::Stands if disks => Some("copying the disks"),
        _ => None,
    }
}
