//! The way to the power that was asked for.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Look, Step, after, course::Course};
use crate::vm::{DesiredPower, DomainFacts, DomainObservation, DomainState};

/// A guest that did not react is asked again after this: early in its boot it cannot hear.
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// How soon a domain is looked at again that libvirt halted for something it does itself.
const FLEETING_RECHECK: Duration = Duration::from_secs(5);

/// libvirt's `VIR_DOMAIN_PAUSED_IOERROR`.
pub(super) const PAUSED_BY_IO_ERROR: i32 = 5;

/// More of libvirt's `virDomainPausedReason`.
mod paused {
    pub(super) const MIGRATION: i32 = 2;
    pub(super) const SAVE: i32 = 3;
    pub(super) const DUMP: i32 = 4;
    pub(super) const SNAPSHOT: i32 = 9;
    pub(super) const STARTING_UP: i32 = 11;
}

pub(super) fn next(look: &Look<'_>, facts: &DomainFacts) -> Course {
    use DesiredPower::{ColdRunning, ForcedOff, Paused, Running, Saved, Stopped};
    let intent = &look.bundle.record.intent;
    let reached = || Course::satisfied(intent.generation);
    match (intent.power, facts.state) {
        (_, DomainState::Unknown) => Course::default(),
        (Running | ColdRunning, DomainState::Running | DomainState::Blocked) => reached(),
        // Halted for what libvirt itself is doing, which goes on or ends the domain.
        (Running | ColdRunning | Paused | Saved, DomainState::Paused) if is_fleeting(facts) => {
            Course::wait_until(after(look.now, FLEETING_RECHECK))
        }
        (Running | ColdRunning, DomainState::Paused | DomainState::Suspended) => Course::step(Step::Resume),
        // On its way down: it has to arrive before anything else can be done.
        (Running | ColdRunning | Paused | Saved, DomainState::ShuttingDown) => Course::default(),
        (ColdRunning, DomainState::Shutoff) if facts.managed_save => Course::step(Step::DiscardSaved),
        (Running | ColdRunning, DomainState::Shutoff | DomainState::Crashed) => Course::step(Step::Start),
        (Paused, DomainState::Paused | DomainState::Suspended) => reached(),
        (Paused, DomainState::Running | DomainState::Blocked) => Course::step(Step::Suspend),
        (Saved, DomainState::Shutoff) if facts.managed_save => reached(),
        (Paused | Saved, DomainState::Shutoff | DomainState::Crashed) => cannot_be_reached(look),
        (Saved, _) => Course::step(Step::Save),
        (Stopped | ForcedOff, DomainState::Shutoff) => reached(),
        (ForcedOff, _) | (Stopped, DomainState::Crashed) => Course::step(Step::Destroy),
        (Stopped, _) => stop(look, facts),
    }
}

/// What is off can neither be halted nor saved; it is not started for that.
pub(super) fn cannot_be_reached(look: &Look<'_>) -> Course {
    let words = "the VM is off; start it with `startVm` first".to_owned();
    Course::given_up(look.bundle.record.intent.generation, "WRONG_STATE", words)
}

pub(super) fn is_fleeting(facts: &DomainFacts) -> bool {
    use paused::{DUMP, MIGRATION, SAVE, SNAPSHOT, STARTING_UP};
    facts.state == DomainState::Paused
        && matches!(facts.reason, MIGRATION | SAVE | DUMP | SNAPSHOT | STARTING_UP)
}

/// Why it is halted each time it is made to go on, where that is known.
pub(super) fn halts_again(look: &Look<'_>) -> Option<&'static str> {
    let DomainObservation::Present(facts) = &look.observed.domain else { return None };
    ((facts.state, facts.reason) == (DomainState::Paused, PAUSED_BY_IO_ERROR)).then_some(
        "QEMU halts it again because a disk cannot be read or written; make room in its pool or mend the storage, \
         then ask again",
    )
}

pub(super) fn stop_deadline(look: &Look<'_>) -> DateTime<Utc> {
    after(look.memory.stopping_since.unwrap_or(look.now), look.rules.stop_grace)
}

/// A guest that is halted hears nothing: it goes on first, so that it can write what it holds.
fn stop(look: &Look<'_>, facts: &DomainFacts) -> Course {
    let deadline = stop_deadline(look);
    if look.now >= deadline {
        return Course::step(Step::Destroy);
    }
    let hears = matches!(facts.state, DomainState::Running | DomainState::Blocked);
    let halted = matches!(facts.state, DomainState::Paused | DomainState::Suspended);
    if halted && is_fleeting(facts) {
        return Course::wait_until(after(look.now, FLEETING_RECHECK).min(deadline));
    }
    if halted {
        return Course { wake_at: Some(deadline), ..Course::step(Step::Resume) };
    }
    let ask_at = match look.memory.shutdown_asked_at {
        None => look.now,
        Some(asked) => after(asked, ASK_AGAIN),
    };
    match (hears, ask_at <= look.now) {
        (true, true) => Course::step(Step::RequestShutdown),
        (true, false) => Course::wait_until(ask_at.min(deadline)),
        (false, _) => Course::wait_until(deadline),
    }
}
