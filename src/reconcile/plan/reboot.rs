//! A polite reboot: ask, wait until the guest is seen to boot anew, and reset it when the grace is
//! over.
//!
//! What proves a reboot, best first:
//! 1. libvirt tells that the machine was reset (QEMU), after the guest was asked.
//! 2. Where libvirt may have missed that, because its connection is younger than the request or its
//!    driver does not tell reboots at all: the agent greets anew on a connection that stood already
//!    when the guest was asked.
//!
//! Where neither can come, because no agent greets, the request counts as followed once libvirt has
//! taken it. A controller that starts after a crash does not know what was asked, and asks again.

use super::{Look, OFF_GRACE, Step, after, course::Course};
use crate::vm::{DomainState, OpenLink, Operation};

pub(super) fn next(look: &Look<'_>, operation: &Operation, state: DomainState) -> Course {
    let asked = look.memory.reboot_asked.filter(|(by, _)| *by == operation.id).map(|(_, at)| at);
    let hears = matches!(state, DomainState::Running | DomainState::Blocked);
    let Some(asked) = asked else {
        // One that cannot even be asked is not waited for any longer.
        let deadline = after(look.memory.times.change(operation.created_at), look.rules.reboot_grace);
        let failed = look.memory.failure.is_some();
        return match (hears, failed && look.now >= deadline) {
            (_, true) => Course::step(Step::Change(operation.id)),
            (true, false) => Course::step(Step::RequestReboot(operation.id)),
            (false, false) => Course::default(),
        };
    };
    let reboots = look.observed.reboots;
    let told = reboots.told_since.is_some_and(|since| since <= asked);
    let greets = look.observed.link.open().filter(|link| link.since <= asked && link.version.is_some());
    let greeted_anew = |link: &OpenLink| link.greeted_at.is_some_and(|at| at > asked);
    let proven = reboots.last.is_some_and(|at| at >= asked) || (!told && greets.is_some_and(greeted_anew));
    if proven || (!told && greets.is_none()) {
        return Course::step(Step::Settle(operation.id));
    }
    let deadline = after(asked, look.rules.reboot_grace);
    if look.now >= deadline {
        return Course::step(Step::Change(operation.id));
    }
    Course::wait_until(deadline)
}

/// A guest that is off may be between its end and its beginning.
pub(super) fn is_it_back(look: &Look<'_>) -> Course {
    let since = look.memory.off_since.unwrap_or(look.now);
    Course::wait_until(after(since, OFF_GRACE))
}
