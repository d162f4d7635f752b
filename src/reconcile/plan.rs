//! The decision: from intent and observation to what to do, what to say and when to look again.
//!
//! Pure, without clock, I/O or randomness. The invariant above all: while the domain is
//! `Unknown`, no step that destroys, undefines, removes or marks anything stopped is planned. One thing
//! is no matter of knowledge: where a call hangs, and somebody asked for the guest's end at once.

mod agent;
mod clone;
mod conditions;
mod course;
mod disks;
mod drift;
mod installing;
mod keeping;
mod operations;
mod phase;
mod power;
mod reboot;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

pub use installing::is_watched;

use super::{
    memory::Memory,
    observation::Observation,
    step::{CHANGE, Step, THAW},
};
use crate::{
    config::InstallsConfig,
    store::VmBundle,
    vm::{
        DesiredPower, DomainObservation, DomainState, FirstBoot, LinkEnd, Milestone, OpenLink, Operation,
        OperationError, OperationId, OperationStatus, VmChange, VmId, VmStatus,
    },
};

/// The numbers that decisions depend on.
#[derive(Debug, Clone)]
pub struct Rules {
    /// From a polite request to pulling the plug.
    pub stop_grace: Duration,
    /// From a polite request to reboot to the reset button.
    pub reboot_grace: Duration,
    /// How long a domain may be gone before it is `Missing`.
    pub missing_grace: Duration,
    /// How long a first boot may take.
    pub install_budget: Duration,
    /// How long an installation may take, and be silent.
    pub installs: InstallsConfig,
    /// Whether installers can reach us to report.
    pub install_reports: bool,
    /// Silence that makes an agent offline.
    pub offline_after: Duration,
    /// A guest clock further off than this is a condition.
    pub max_clock_skew: Duration,
    /// Where the agents' sockets are expected.
    pub socket_dir: PathBuf,
}

/// What should become of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkWish {
    /// There should be one, to this socket.
    Open(PathBuf),
    /// There should be none, for this reason.
    Close(LinkEnd),
    /// Nothing is known that would change it.
    Keep,
}

/// What an operation is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationUpdate {
    /// It moved on.
    Progress {
        /// Which.
        id: OperationId,
        /// 0 to 100.
        progress: i32,
        /// What is happening.
        stage: String,
    },
    /// It ended.
    Finish {
        /// Which.
        id: OperationId,
        /// How.
        status: OperationStatus,
        /// Why not.
        error: Option<OperationError>,
    },
}

/// The decision.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Facts to note before anything else.
    pub milestones: Vec<Milestone>,
    /// The generation whose power is reached.
    pub satisfied: Option<i64>,
    /// The generation that is given up, and what those who asked for it are told.
    pub given_up: Option<(i64, OperationError)>,
    /// What operations are told.
    pub operations: Vec<OperationUpdate>,
    /// What people are told.
    pub status: VmStatus,
    /// The link.
    pub link: LinkWish,
    /// At most one change of the world.
    pub step: Option<Step>,
    /// Look again then, if nothing happens before.
    pub wake_at: Option<DateTime<Utc>>,
}

/// Failures of one step after which the request it serves is given up.
const MAX_ATTEMPTS: u32 = 6;

/// How long a domain is off before that counts as its state: some libvirts show a reboot as an end
/// and a beginning.
const OFF_GRACE: Duration = Duration::from_secs(15);

/// How long a greeting is waited for after another message was heard.
const GREETING_GRACE: Duration = Duration::from_secs(5);

/// Failures to thaw a guest's file systems after which a person has to. The agent was asked in vain
/// for half a minute at least.
const MAX_THAWS: u32 = 30;

/// What all parts of the decision see.
struct Look<'a> {
    rules: &'a Rules,
    now: DateTime<Utc>,
    bundle: &'a VmBundle,
    observed: &'a Observation,
    memory: &'a Memory,
}

impl Look<'_> {
    fn passed(&self, milestone: Milestone) -> bool {
        self.bundle.record.milestones.at(milestone).is_some()
    }

    /// The domain is gone although nobody asked, and has been for longer than the grace.
    fn is_missing(&self) -> bool {
        self.passed(Milestone::Defined)
            && matches!(self.observed.domain, DomainObservation::Absent)
            && self
                .memory
                .missing_since
                .is_some_and(|since| self.now >= after(since, self.rules.missing_grace))
    }

    /// What those are told who ask something of a VM whose domain is missing.
    fn words_when_gone(&self) -> String {
        format!("The VM's domain is gone from the host; {}", self.bundle.record.spec.when_gone())
    }

    /// The domain is off, and not only between its end and its beginning, as which some libvirts
    /// show a reboot.
    fn is_off_for_good(&self) -> bool {
        matches!(&self.observed.domain, DomainObservation::Present(facts) if facts.state.is_off())
            && self.memory.off_since.is_some_and(|since| self.now >= after(since, OFF_GRACE))
    }

    /// The request was tried often enough.
    fn gives_up(&self) -> bool {
        !self.bundle.record.intent.deleting
            && self.bundle.record.intent.is_open()
            && self.memory.failure.as_ref().is_some_and(|failure| {
                !matches!(failure.step, CHANGE | THAW) && failure.attempts >= MAX_ATTEMPTS
            })
    }

    /// Somebody asked for the guest's end, whatever it is doing.
    fn ends_the_guest(&self) -> bool {
        let intent = &self.bundle.record.intent;
        intent.deleting || (intent.is_open() && intent.power == DesiredPower::ForcedOff)
    }

    /// The domain was seen, and nothing of it runs.
    fn is_surely_off(&self) -> bool {
        match &self.observed.domain {
            DomainObservation::Unknown => false,
            DomainObservation::Absent => true,
            DomainObservation::Present(facts) => facts.state.is_off(),
        }
    }

    /// The change that is under way, with its operation.
    fn change(&self) -> Option<(&Operation, &VmChange)> {
        let open = self.bundle.operations.iter().filter(|operation| !operation.status.is_final());
        open.filter_map(|operation| Some((operation, operation.change.as_ref()?))).next()
    }

    /// The operation on whose behalf the guest's file systems may be frozen, where they can be
    /// thawed now: the guest runs, or a call for it hangs and it may.
    fn thaws_for(&self) -> Option<OperationId> {
        let (operation, _) = self.change().filter(|(_, change)| change.may_be_frozen())?;
        let runs = matches!(
            &self.observed.domain,
            DomainObservation::Present(facts)
                if matches!(facts.state, DomainState::Running | DomainState::Blocked)
        );
        (runs || self.observed.busy).then_some(operation.id)
    }

    /// Why the change that is under way is given up, if it is: it failed too often, took too long,
    /// or there is nothing left to change.
    fn gives_change_up(&self) -> Option<OperationError> {
        let (operation, change) = self.change()?;
        let error = |code: &str, message: String| Some(OperationError { code: code.to_owned(), message });
        if self.is_missing() && !change.outlives_domain() {
            return error("VM_MISSING", self.words_when_gone());
        }
        if let Some(words) = clone::breaks_loan(self, change) {
            return error("WRONG_STATE", words.to_owned());
        }
        if matches!(change, VmChange::Guest(_)) && self.is_off_for_good() {
            let words = "the guest powered off instead of booting anew; start it with `startVm`";
            return error("GUEST_OFF", words.to_owned());
        }
        let frozen = || {
            let words = "the guest's file systems may still be frozen, and its QEMU agent does not thaw them; \
                         run `virsh domfsthaw` on the host, or reset the VM";
            error("THAW_FAILED", words.to_owned())
        };
        if self.thaws_for().is_some() {
            // Nothing else ends it before: neither its time nor its failures.
            let thaw = self.memory.failure.as_ref().filter(|failure| failure.step == THAW);
            return thaw.filter(|failure| failure.attempts >= MAX_THAWS).and_then(|_| frozen());
        }
        let is_over = self.now >= self.change_end(operation, change);
        if change.may_be_frozen() && !self.is_surely_off() {
            // Its processors are halted, or it cannot be seen: it is let go when it goes on, however late.
            return None;
        }
        let failure = self.memory.failure.as_ref().filter(|failure| failure.step == CHANGE);
        if let Some(failure) = failure.filter(|failure| failure.attempts >= MAX_ATTEMPTS) {
            let words = format!("it failed {} times: {}", failure.attempts, failure.message);
            return error("STEP_FAILED", words);
        }
        if is_over {
            let why = failure.map_or_else(String::new, |failure| format!(": {}", failure.message));
            return error("CHANGE_TIMEOUT", format!("it was not done in time{why}"));
        }
        None
    }

    /// When the change that is under way is given up.
    fn change_end(&self, operation: &Operation, change: &VmChange) -> DateTime<Utc> {
        after(self.memory.times.change(operation.created_at), change.budget())
    }

    /// When the first boot has taken too long; `None` before it began.
    fn install_end(&self) -> Option<DateTime<Utc>> {
        Some(after(installing::first_boot_began(self)?, self.rules.install_budget))
    }

    /// The request is given up now, or was.
    fn gave_up(&self) -> bool {
        self.gives_up() || self.bundle.record.intent.is_given_up()
    }
}

/// Decides.
///
/// A change comes before the power that was asked for: it was asked for as the VM was. Only what
/// pulls the plug waits for nothing.
#[must_use]
pub fn plan(
    rules: &Rules,
    now: DateTime<Utc>,
    bundle: &VmBundle,
    observed: &Observation,
    memory: &Memory,
) -> Plan {
    // Milestones first: the rest of the decision already stands on them.
    let milestones = passed_now(rules, bundle, observed, memory, now);
    let advanced;
    let bundle = if milestones.is_empty() {
        bundle
    } else {
        let mut later = bundle.clone();
        for milestone in &milestones {
            later.record.milestones.pass(*milestone, now);
        }
        advanced = later;
        &advanced
    };
    let look = Look { rules, now, bundle, observed, memory };

    let course = course::choose(&look);
    let agent = agent::judge(&look);
    let phase = phase::derive(&look);
    let open = observed.link.open();
    let before = bundle.status.as_ref();
    let status = VmStatus {
        phase,
        agent,
        last_seen: open
            .and_then(|link| link.last_message_at)
            .or_else(|| before.and_then(|status| status.last_seen)),
        agent_version: open
            .and_then(|link| link.version.clone())
            .or_else(|| before.and_then(|status| status.agent_version.clone())),
        conditions: conditions::derive(&look, agent),
    };
    let operations = operations::update(&look, &course);
    let greeting = open
        .filter(|link| link.last_message_at.is_some() && link.first_boot == FirstBoot::NotReported)
        .map(|link| after(link.since, GREETING_GRACE))
        .filter(|end| *end > now);
    let wakes = [
        course.wake_at,
        agent::wake_at(&look),
        conditions::wake_at(&look),
        installing::wake_at(&look),
        greeting,
    ];
    let wake_at = wakes.into_iter().flatten().min();
    Plan {
        milestones,
        satisfied: course.satisfied,
        given_up: course.given_up,
        operations,
        status,
        link: link_wish(&look),
        step: course.step,
        wake_at,
    }
}

/// Facts that this look shows and the store does not know yet.
fn passed_now(
    rules: &Rules,
    bundle: &VmBundle,
    observed: &Observation,
    memory: &Memory,
    now: DateTime<Utc>,
) -> Vec<Milestone> {
    let known = &bundle.record.milestones;
    let mut passed = Vec::new();
    let mut note = |milestone, holds: bool| {
        if holds && known.at(milestone).is_none() && !passed.contains(&milestone) {
            passed.push(milestone);
        }
    };
    if let DomainObservation::Present(facts) = &observed.domain {
        // Defined before a crash could note it.
        note(Milestone::Defined, true);
        note(Milestone::FirstStarted, matches!(facts.state, DomainState::Running | DomainState::Blocked));
        let installed = installing::shows_installed(rules, bundle, observed, memory, now);
        note(Milestone::SystemInstalled, installed);
        note(Milestone::Installed, installing::runs_without_agent(bundle, facts));
    }
    if let Some(link) = observed.link.open() {
        let heard = link.last_message_at.is_some();
        note(Milestone::FirstSeen, heard);
        note(Milestone::Installed, heard && is_installed(link, now) && installing::may_be_over(bundle));
    }
    passed
}

/// An agent that greets says how its first boot stands. One that does not greet is taken at its
/// word of being there, but not before a greeting would have come.
fn is_installed(link: &OpenLink, now: DateTime<Utc>) -> bool {
    match link.first_boot {
        FirstBoot::Running => false,
        FirstBoot::Finished { .. } => true,
        FirstBoot::NotReported => link.version.is_some() || now >= after(link.since, GREETING_GRACE),
    }
}

fn link_wish(look: &Look<'_>) -> LinkWish {
    if look.bundle.record.intent.deleting {
        return LinkWish::Close(LinkEnd::VmDeleted);
    }
    match &look.observed.domain {
        DomainObservation::Unknown => LinkWish::Keep,
        DomainObservation::Absent => LinkWish::Close(LinkEnd::VmStopped),
        DomainObservation::Present(facts) => match (&facts.channel, facts.state) {
            (_, DomainState::Unknown) => LinkWish::Keep,
            (Some(channel), state)
                if state.is_active() && !is_anothers(&channel.path, look.bundle.record.id) =>
            {
                LinkWish::Open(channel.path.clone())
            }
            (_, state) if state.is_active() => LinkWish::Close(LinkEnd::ChannelClosed),
            _ => LinkWish::Close(LinkEnd::VmStopped),
        },
    }
}

/// Whether a channel's socket is by its name that of another VM. A copy of a domain keeps the path of
/// its original: whoever owns the copy would be heard, and obeyed, by the original's guest.
fn is_anothers(socket: &Path, vm: VmId) -> bool {
    let named = socket.file_name().and_then(|name| VmId::from_socket_name(name.to_str()?));
    named.is_some_and(|named| named != vm)
}

/// `at + wait`, saturating.
fn after(at: DateTime<Utc>, wait: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(wait)
        .ok()
        .and_then(|wait| at.checked_add_signed(wait))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
pub(super) mod tests;
