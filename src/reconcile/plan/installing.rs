//! A system that is installed from a disc, by an installer that nobody can be asked about: whether it
//! moves, has ended, and how.
//!
//! An installer that has done its work says so and boots anew, which ends its domain; so a domain that
//! ends without that word is an installation that failed. One that shows nothing new for long is stuck.
//! Neither verdict is for ever: what comes later is told as it is.

mod told;

pub(super) use told::{condition, failure, percent, stage};

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Look, OFF_GRACE, Rules, Step, after, course::Course, is_installed, keeping};
use crate::{
    config::InstallsConfig,
    reconcile::{memory::Memory, observation::Observation},
    store::VmBundle,
    vm::{
        DomainFacts, DomainObservation, DomainState, InstallFamily, InstallReport, Installation, Milestone,
    },
};

/// How long firmware asks for a key before it boots a disc.
const ASKS_FOR_KEY: Duration = Duration::from_secs(10);
/// How often it is given one.
const PRESS_AGAIN: Duration = Duration::from_secs(1);

/// How an installation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing runs, or it cannot be seen; nobody can say more.
    Resting,
    /// It shows that it moves, or has not been silent for long.
    AtWork,
    /// It shows nothing new.
    Stuck,
    /// It takes longer than it may.
    Overdue,
    /// It says itself that it failed.
    GaveUp,
    /// Its domain is off, and its last word may still be on its way.
    Ended,
    /// Its domain is off, and nothing said that it was done.
    Failed,
}

/// The installation whose system does not boot from its disk yet.
fn under_way(bundle: &VmBundle) -> Option<&Installation> {
    let milestones = &bundle.record.milestones;
    let over = milestones.boot_replaced.is_some() || milestones.installed.is_some();
    bundle.record.spec.installation().filter(|_| !over && !bundle.record.intent.deleting)
}

/// Whether a system is being installed, or is to be.
pub(super) fn is_under_way(look: &Look<'_>) -> bool {
    under_way(look.bundle).is_some()
}

/// Whether an installer may be at work: what it shows is looked at then.
#[must_use]
pub fn is_watched(bundle: &VmBundle, domain: &DomainObservation) -> bool {
    under_way(bundle).is_some()
        && bundle.record.milestones.system_installed.is_none()
        && matches!(domain, DomainObservation::Present(_))
}

/// Whether the look shows that the system is on the disk, with all that belongs there.
pub(super) fn shows_installed(
    rules: &Rules,
    bundle: &VmBundle,
    observed: &Observation,
    memory: &Memory,
    now: DateTime<Utc>,
) -> bool {
    let Some(installation) = under_way(bundle) else { return false };
    // The agent runs in no installer.
    let heard =
        observed.link.open().is_some_and(|link| link.last_message_at.is_some() && is_installed(link, now));
    let DomainObservation::Present(facts) = &observed.domain else { return false };
    // Written to the console first, and never lost on a network; what the log's end has no more is
    // remembered.
    let seen = observed.install.as_ref().and_then(|signs| signs.stage.as_deref());
    let written = seen.or(memory.install.stage.as_deref());
    let says = |word: &str| {
        let reported = bundle.install_report.as_ref().is_some_and(|report| report.stage == word);
        written == Some(word) || (reported && written != Some(InstallReport::FAILED))
    };
    let finished = says(InstallReport::FINISHED);
    if heard || (installation.family.reboots_by_itself() && finished) {
        return true;
    }
    // The agent, keys and first-boot files are put in between this word and the last one. An earlier
    // attempt may have said it, too.
    let is_new = |report: &InstallReport| report.at >= bundle.record.intent.asked_at;
    let installed = says(InstallReport::INSTALLED)
        && (written == Some(InstallReport::INSTALLED) || bundle.install_report.as_ref().is_some_and(is_new));
    let is_mute = written.is_none() && !can_report(rules, installation);
    // What is saved goes on where it was.
    facts.state.is_off()
        && !facts.managed_save
        && !installation.family.reboots_by_itself()
        && (finished || ((installed || is_mute) && ended_by_itself(bundle, facts)))
}

/// An installer that switched its machine off, unasked: where no word can come, that is all there is
/// to see.
fn ended_by_itself(bundle: &VmBundle, facts: &DomainFacts) -> bool {
    let record = &bundle.record;
    record.milestones.first_started.is_some()
        && record.intent.power.is_on()
        && !record.intent.is_open()
        && keeping::how(facts) == Some(keeping::Off::ByItself)
}

fn can_report(rules: &Rules, installation: &Installation) -> bool {
    rules.install_reports && installation.token.is_some()
}

/// Whether the first boot is over of a system that nobody speaks for.
pub(super) fn runs_without_agent(bundle: &VmBundle, facts: &DomainFacts) -> bool {
    let without = bundle.record.spec.installation().is_some_and(|installation| !installation.agent);
    let runs = matches!(facts.state, DomainState::Running | DomainState::Blocked);
    without && runs && bundle.record.milestones.boot_replaced.is_some()
}

/// Whether a look may pass `Installed`: not before the domain is set up for what comes after.
pub(super) fn may_be_over(bundle: &VmBundle) -> bool {
    bundle.record.spec.installation().is_none() || bundle.record.milestones.boot_replaced.is_some()
}

/// When the system booted for the first time, as far as its making is concerned.
pub(super) fn first_boot_began(look: &Look<'_>) -> Option<DateTime<Utc>> {
    let (milestones, times) = (&look.bundle.record.milestones, &look.memory.times);
    let spec = &look.bundle.record.spec;
    // Of a copy, all of that was over before it was made.
    match spec.installation().filter(|_| spec.cloned_from().is_none()) {
        Some(_) => milestones.boot_replaced.map(|at| times.boot_replaced(at)),
        None => milestones.first_started.map(|at| times.first_start(at)),
    }
}

/// The way of an installation, where it differs from that of other VMs.
pub(super) fn next(look: &Look<'_>, facts: &DomainFacts) -> Option<Course> {
    let intent = &look.bundle.record.intent;
    under_way(look.bundle)?;
    if look.passed(Milestone::SystemInstalled) {
        // Who wants it off, halted or saved comes first; what is saved runs on with what it ran with.
        let waits =
            facts.managed_save || (facts.state.is_active() && intent.is_open() && !intent.power.is_on());
        let known = facts.state != DomainState::Unknown;
        return (known && !waits).then(|| Course::step(Step::ReplaceBoot));
    }
    match standing(look)? {
        Standing::Ended => Some(Course::wait_until(off_grace(look))),
        Standing::Failed if !intent.is_given_up() => {
            Some(Course::given_up(intent.generation, "INSTALL_FAILED", told::failed(look, facts)))
        }
        _ => None,
    }
}

/// The key that firmware asks for before it boots Windows' disc. Only after a start of ours: when the
/// installer boots the machine anew, the disk comes first, and nobody may press anything. Whoever comes
/// after a controller that died knows of its start by what is stored.
pub(super) fn press(look: &Look<'_>) -> Option<Step> {
    let pressed = look.memory.install.pressed.is_none_or(|at| look.now >= after(at, PRESS_AGAIN));
    (asks_for_key(look) && pressed).then_some(Step::PressKey)
}

fn asks_for_key(look: &Look<'_>) -> bool {
    let spec = &look.bundle.record.spec;
    let disc = under_way(look.bundle).is_some_and(|installation| installation.kernel.is_none());
    let started = look.memory.install.started.map_or(first_start(look), |at| at.max(first_start(look)));
    let started = look.now < after(started, ASKS_FOR_KEY);
    disc && started && spec.firmware.is_uefi() && standing(look).is_some_and(|it| it == Standing::AtWork)
}

fn off_grace(look: &Look<'_>) -> DateTime<Utc> {
    after(look.memory.off_since.unwrap_or(look.now), OFF_GRACE)
}

/// `None`: no installer has been started, or its work is done.
fn standing(look: &Look<'_>) -> Option<Standing> {
    let record = &look.bundle.record;
    under_way(look.bundle)?;
    if look.passed(Milestone::SystemInstalled) || !look.passed(Milestone::FirstStarted) {
        return None;
    }
    let DomainObservation::Present(facts) = &look.observed.domain else { return Some(Standing::Resting) };
    let wanted = record.intent.power.is_on() && !record.intent.is_open();
    Some(match facts.state {
        DomainState::Shutoff if facts.managed_save => Standing::Resting,
        DomainState::Shutoff | DomainState::Crashed if !wanted => Standing::Resting,
        DomainState::Shutoff | DomainState::Crashed if look.is_off_for_good() => Standing::Failed,
        DomainState::Shutoff | DomainState::Crashed => Standing::Ended,
        DomainState::Running | DomainState::Blocked => {
            if says_failed(look) {
                Standing::GaveUp
            } else if is_overdue(look) {
                Standing::Overdue
            } else if stall_end(look).is_some_and(|end| look.now >= end) {
                Standing::Stuck
            } else {
                Standing::AtWork
            }
        }
        _ => Standing::Resting,
    })
}

/// Whether the installer's last word since it was asked for is that it failed.
fn says_failed(look: &Look<'_>) -> bool {
    let asked = look.bundle.record.intent.asked_at;
    if let Some(written) = &look.memory.install.stage {
        return written == InstallReport::FAILED;
    }
    look.bundle.install_report.as_ref().is_some_and(|it| it.stage == InstallReport::FAILED && it.at >= asked)
}

/// The present, where this look is the first that shows it.
fn first_start(look: &Look<'_>) -> DateTime<Utc> {
    let times = &look.memory.times;
    look.bundle.record.milestones.first_started.map_or(look.now, |at| times.first_start(at))
}

/// Asked again, an installation begins anew, and so does its time.
fn budget_end(look: &Look<'_>, installation: &Installation) -> DateTime<Utc> {
    let asked = look.memory.times.asked(look.bundle.record.intent.asked_at);
    after(first_start(look).max(asked), budget(&look.rules.installs, installation.family))
}

fn is_overdue(look: &Look<'_>) -> bool {
    under_way(look.bundle).is_some_and(|installation| look.now >= budget_end(look, installation))
}

fn budget(config: &InstallsConfig, family: InstallFamily) -> Duration {
    match family {
        InstallFamily::Ubuntu => config.ubuntu_budget,
        InstallFamily::Debian => config.debian_budget,
        InstallFamily::RedHat => config.redhat_budget,
        InstallFamily::Windows(_) => config.windows_budget,
    }
}

fn stall_end(look: &Look<'_>) -> Option<DateTime<Utc>> {
    Some(after(look.memory.install.last_news?, look.rules.installs.stall_timeout))
}

/// Whether an installer's machine is off and it is not settled yet what that means.
pub(super) fn is_between(look: &Look<'_>) -> bool {
    let wanted = look.bundle.record.intent.power.is_on();
    let done = is_under_way(look) && look.passed(Milestone::SystemInstalled);
    wanted && (done || standing(look) == Some(Standing::Ended))
}

/// When silence, or the time it takes, would change the verdict, or a key is to be pressed.
pub(super) fn wake_at(look: &Look<'_>) -> Option<DateTime<Utc>> {
    let installation = under_way(look.bundle)?;
    let budget = budget_end(look, installation);
    let ends = match standing(look) {
        Some(Standing::AtWork | Standing::Stuck) => [stall_end(look), Some(budget)],
        Some(Standing::Resting) => [Some(budget), None],
        // The machine may be gone before it is set up for what comes after.
        None if look.passed(Milestone::SystemInstalled) => [Some(budget), None],
        _ => [None, None],
    };
    let press = look.memory.install.pressed.map(|at| after(at, PRESS_AGAIN));
    let press = press.unwrap_or(look.now).max(after(look.now, Duration::from_millis(100)));
    let press = asks_for_key(look).then_some(press);
    ends.into_iter().chain([press]).flatten().filter(|end| *end > look.now).min()
}
