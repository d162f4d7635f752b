//! Which one step comes next, if any: making, changing, powering, tidying, deleting.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Look, Step, THAW, after, clone, installing, keeping, power, reboot};
use crate::hypervisor::Copying;
use crate::reconcile::note;
use crate::vm::{
    DesiredPower, DomainFacts, DomainObservation, DomainState, GuestChange, Milestone, OperationError,
    ResourceKind, SocketObservation, VmChange,
};

/// A guest whose processors are halted with frozen file systems is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The way ahead.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The next step.
    pub(super) step: Option<Step>,
    /// The generation that is reached.
    pub(super) satisfied: Option<i64>,
    /// The generation that is given up, and why.
    pub(super) given_up: Option<(i64, OperationError)>,
    /// Look again then.
    pub(super) wake_at: Option<DateTime<Utc>>,
}

impl Course {
    pub(super) fn step(step: Step) -> Self {
        Self { step: Some(step), ..Self::default() }
    }

    pub(super) fn wait_until(at: DateTime<Utc>) -> Self {
        Self { wake_at: Some(at), ..Self::default() }
    }

    pub(super) fn given_up(generation: i64, code: &str, message: String) -> Self {
        let error = OperationError { code: code.to_owned(), message };
        Self { given_up: Some((generation, error)), ..Self::default() }
    }

    pub(super) fn satisfied(generation: i64) -> Self {
        Self { satisfied: Some(generation), ..Self::default() }
    }

    /// Nothing to do, and nothing to wait for.
    fn is_idle(&self) -> bool {
        let Self { step, satisfied, given_up, wake_at } = self;
        step.is_none() && satisfied.is_none() && given_up.is_none() && wake_at.is_none()
    }
}

pub(super) fn choose(look: &Look<'_>) -> Course {
    let generation = look.bundle.record.intent.generation;
    if let Some(course) = thaw(look) {
        return course;
    }
    if look.observed.busy {
        return beside_a_late_call(look);
    }
    let course = if look.bundle.record.intent.deleting { delete(look) } else { live(look) };
    if course.satisfied.is_some() || course.given_up.is_some() {
        // It is as it was asked for, whatever failed on the way.
        return course;
    }
    if let Some(failure) = look.memory.failure.as_ref().filter(|_| look.gives_up()) {
        let resumes = failure.step == Step::Resume.name();
        let why = power::halts_again(look).filter(|_| resumes).unwrap_or(&failure.message);
        let message = format!("{} failed {} times: {why}", failure.step, failure.attempts);
        return Course::given_up(generation, "STEP_FAILED", message);
    }
    match pause(look).filter(|_| course.step.is_some()) {
        Some(wait_until) => Course::wait_until(wait_until.min(course.wake_at.unwrap_or(wait_until))),
        None => course,
    }
}

/// An earlier call has not returned: whatever it does, nothing else is done beside it. Only a plug that
/// somebody asked to be pulled does not wait: libvirt lets that pass, and it is what ends a call that
/// writes a large memory or hangs on a QEMU that does not answer.
fn beside_a_late_call(look: &Look<'_>) -> Course {
    let pulled = look.memory.last_done == Some(Step::Destroy);
    if pulled || !look.ends_the_guest() || !look.passed(Milestone::Defined) {
        return Course::default();
    }
    match pause(look) {
        Some(wait_until) => Course::wait_until(wait_until),
        None => Course::step(Step::Destroy),
    }
}

/// The end of the wait after a failure. A guest that cannot even be asked to power off does not
/// outlive the grace for it.
fn pause(look: &Look<'_>) -> Option<DateTime<Utc>> {
    let retry_at = look.memory.failure.as_ref()?.retry_at;
    let intent = &look.bundle.record.intent;
    let stopping = !intent.deleting && intent.is_open() && intent.power == DesiredPower::Stopped;
    let end = if stopping { retry_at.min(power::stop_deadline(look)) } else { retry_at };
    // After the deadline a failed attempt by force is paced like any other.
    let forced = look.memory.failure.as_ref().is_some_and(|failure| failure.step == Step::Destroy.name());
    let end = if forced { retry_at } else { end };
    (end > look.now).then_some(end)
}

fn live(look: &Look<'_>) -> Course {
    let intent = &look.bundle.record.intent;
    match &look.observed.domain {
        DomainObservation::Unknown => Course::default(),
        DomainObservation::Absent if look.passed(Milestone::Defined) => {
            let change = look.change().filter(|(_, change)| change.outlives_domain());
            if let Some((operation, change)) = change
                && look.gives_change_up().is_none()
            {
                let end = look.change_end(operation, change);
                return Course { wake_at: Some(end), ..Course::step(Step::Change(operation.id)) };
            }
            if intent.is_open() && look.is_missing() {
                // Never silently made again; whoever asked is told.
                return Course::given_up(intent.generation, "VM_MISSING", look.words_when_gone());
            }
            match look.memory.missing_since {
                Some(since) if !look.is_missing() => {
                    Course::wait_until(after(since, look.rules.missing_grace))
                }
                _ => Course::default(),
            }
        }
        DomainObservation::Absent if clone::is_to_be_made(look) => make(look),
        DomainObservation::Absent if intent.is_open() => match intent.power {
            DesiredPower::Running | DesiredPower::ColdRunning => make(look),
            // Half made, and asked to be off: it is.
            DesiredPower::Stopped | DesiredPower::ForcedOff => Course::satisfied(intent.generation),
            DesiredPower::Paused | DesiredPower::Saved => power::cannot_be_reached(look),
        },
        DomainObservation::Absent => Course::default(),
        DomainObservation::Present(facts) => {
            if let Some(course) = change(look, facts) {
                return course;
            }
            if let Some(course) = installing::next(look, facts) {
                return course;
            }
            let course = if intent.is_open() { power::next(look, facts) } else { keeping::next(look, facts) };
            if course.is_idle() { tidy(look) } else { course }
        }
    }
}

fn make(look: &Look<'_>) -> Course {
    if !look.passed(Milestone::DiskCreated) {
        return if clone::is_copy(look) { clone::copy(look) } else { Course::step(Step::CreateDisk) };
    }
    let wants_seed = look.bundle.record.spec.is_provisioned();
    if wants_seed && !look.passed(Milestone::SeedWritten) {
        return Course::step(Step::WriteSeed);
    }
    Course::step(Step::Define)
}

/// File systems that may be frozen are thawed, beside a call that hangs too. Only what ends the
/// guest comes before.
fn thaw(look: &Look<'_>) -> Option<Course> {
    let operation =
        look.thaws_for().filter(|_| !look.ends_the_guest() && look.gives_change_up().is_none())?;
    let failure = look.memory.failure.as_ref().filter(|failure| failure.step == THAW);
    match failure.map(|failure| failure.retry_at).filter(|retry_at| *retry_at > look.now) {
        Some(retry_at) => Some(Course::wait_until(retry_at)),
        None => Some(Course::step(Step::Thaw(operation))),
    }
}

/// The change that is under way, unless it has to wait.
fn change(look: &Look<'_>, facts: &DomainFacts) -> Option<Course> {
    let (operation, change) = look.change()?;
    let (intent, state) = (&look.bundle.record.intent, facts.state);
    let halted = matches!(state, DomainState::Paused | DomainState::Suspended | DomainState::ShuttingDown);
    let pulls_the_plug =
        intent.is_open() && intent.power == DesiredPower::ForcedOff && state != DomainState::Shutoff;
    if pulls_the_plug || look.gives_change_up().is_some() || state == DomainState::Unknown {
        return None;
    }
    let end = look.change_end(operation, change);
    let course = match change {
        VmChange::Lend(loan) => clone::lend(look, operation.id, *loan),
        VmChange::Guest(_) if state.is_off() => reboot::is_it_back(look),
        VmChange::Guest(GuestChange::Reboot { force: false }) => reboot::next(look, operation, state),
        _ if change.may_be_frozen() && halted => while_halted(look, facts)?,
        _ => Course::step(Step::Change(operation.id)),
    };
    Some(Course { wake_at: Some(course.wake_at.map_or(end, |at| at.min(end))), ..course })
}

/// Frozen file systems are thawed as soon as the processors go on, and nothing is done before that,
/// but for what is asked of the power: what needs the guest thawed lets it go on, what ends it or
/// leaves it halted need not wait. `None`: the power decides.
fn while_halted(look: &Look<'_>, facts: &DomainFacts) -> Option<Course> {
    use DesiredPower::{ColdRunning, ForcedOff, Paused, Running, Saved, Stopped};
    let intent = &look.bundle.record.intent;
    let rests = matches!(facts.state, DomainState::Paused | DomainState::Suspended);
    match intent.power {
        // What would be saved frozen would wake up frozen.
        Running | ColdRunning | Saved if intent.is_open() && rests && !power::is_fleeting(facts) => {
            Some(Course::step(Step::Resume))
        }
        Stopped | ForcedOff | Paused if intent.is_open() => None,
        _ => Some(Course::wait_until(after(look.now, LOOK_AGAIN))),
    }
}

/// Nothing is asked of the VM's power; what is left to put right?
fn tidy(look: &Look<'_>) -> Course {
    if let Some(step) = installing::press(look) {
        return Course::step(step);
    }
    let scrub = look.passed(Milestone::Installed)
        && look.passed(Milestone::SeedWritten)
        && !look.passed(Milestone::SeedScrubbed);
    if scrub {
        return Course::step(Step::ScrubSeed);
    }
    match &look.observed.domain {
        // Not while something is asked of its power: what fails here must not end that.
        DomainObservation::Present(facts)
            if facts.state != DomainState::Unknown
                && !look.bundle.record.intent.is_open()
                && note::is_stale(look.bundle, facts, &look.memory.note) =>
        {
            Course::step(Step::Note)
        }
        _ => Course::default(),
    }
}

fn delete(look: &Look<'_>) -> Course {
    match &look.observed.domain {
        DomainObservation::Unknown => Course::default(),
        DomainObservation::Present(facts) => match facts.state {
            DomainState::Unknown => Course::default(),
            state if state.is_active() || state == DomainState::Crashed => Course::step(Step::Destroy),
            _ => Course::step(Step::Undefine),
        },
        DomainObservation::Absent if look.observed.copying != Copying::Nothing => {
            // libvirt lets nobody remove a volume that it makes.
            Course::wait_until(after(look.now, LOOK_AGAIN))
        }
        DomainObservation::Absent => {
            let rank = |kind: ResourceKind| match kind {
                ResourceKind::Volume => 0,
                ResourceKind::Seed => 1,
                ResourceKind::ConsoleLog => 2,
            };
            let mut resources: Vec<_> = look.bundle.resources.iter().collect();
            resources.sort_by_key(|resource| rank(resource.kind));
            let volume = resources.iter().find(|resource| resource.kind == ResourceKind::Volume);
            if let Some(volume) = volume {
                return Course::step(Step::Remove((*volume).clone()));
            }
            if matches!(look.observed.socket, SocketObservation::Present | SocketObservation::Unknown) {
                return Course::step(Step::RemoveSocket);
            }
            match resources.first() {
                Some(resource) => Course::step(Step::Remove((*resource).clone())),
                None => Course::step(Step::Forget),
            }
        }
    }
}
