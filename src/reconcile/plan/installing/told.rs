//! What people are told of an installation: its condition, its operation's stage and percent, and why it
//! failed. An installer's words are a stranger's, and are bounded and cleaned before they come here.

use super::{Standing, is_overdue, standing, under_way};
use crate::{
    reconcile::{
        console::without_clocks,
        plan::{Look, MAX_ATTEMPTS, Step, conditions::Draft, keeping},
    },
    vm::{
        ConditionKind, ConditionStatus, DomainFacts, DomainObservation, InstallReport, Milestone,
        OperationError,
    },
};

/// Longest stage that is told, characters.
const MAX_STAGE: usize = 64;

/// Percent of an operation, by the stages that our scripts report; 40 where the installer has only
/// been started.
const STAGES: [(&str, i32); 14] = [
    ("started", 42),
    ("installer-localechooser", 43),
    ("installer-netcfg", 44),
    ("installer-choose-mirror", 45),
    ("installer-download-installer", 46),
    ("installer-partman-base", 50),
    ("installer-bootstrap-base", 52),
    ("installer-apt-setup-udeb", 62),
    ("installer-pkgsel", 64),
    ("specialize", 65),
    ("installer-grub-installer", 72),
    ("installer-finish-install", 74),
    (InstallReport::INSTALLED, 76),
    (InstallReport::FINISHED, 78),
];

/// Why whoever waits for the installation is told that it failed, while its domain runs.
pub(in crate::reconcile::plan) fn failure(look: &Look<'_>) -> Option<OperationError> {
    let failing = look.memory.failure.as_ref().filter(|failure| failure.step == Step::ReplaceBoot.name());
    if let Some(failure) = failing.filter(|failure| failure.attempts >= MAX_ATTEMPTS) {
        let message = format!("{} failed {} times: {}", failure.step, failure.attempts, failure.message);
        return Some(OperationError { code: "STEP_FAILED".to_owned(), message });
    }
    if is_at_rest(look) && is_overdue(look) {
        let message = format!(
            "The installation has not ended in its time, and its machine does not run{}. See the VM's phase and \
             conditions.",
            at_stage(look)
        );
        return Some(OperationError { code: "INSTALL_TIMEOUT".to_owned(), message });
    }
    let code = match standing(look)? {
        Standing::Stuck => "INSTALL_STUCK",
        Standing::Overdue => "INSTALL_TIMEOUT",
        Standing::GaveUp => "INSTALL_FAILED",
        _ => return None,
    };
    let (_, _, _, message) = condition(look)?;
    Some(OperationError { code: code.to_owned(), message })
}

/// Whether its machine is seen not to run, halted, saved or gone: who waits for it is not to wait for ever.
fn is_at_rest(look: &Look<'_>) -> bool {
    match &look.observed.domain {
        DomainObservation::Unknown => false,
        DomainObservation::Absent => under_way(look.bundle).is_some() && look.passed(Milestone::FirstStarted),
        DomainObservation::Present(_) => standing(look) == Some(Standing::Resting),
    }
}

/// What is said of an installation that is under way.
pub(in crate::reconcile::plan) fn condition(look: &Look<'_>) -> Option<Draft> {
    let kind = ConditionKind::InstallProgressing;
    if look.passed(Milestone::SystemInstalled) {
        let words = "The system is on the disk; the domain is set up to boot from it.";
        return Some((kind, ConditionStatus::True, "SystemInstalled", words.to_owned()));
    }
    let old =
        look.bundle.status.as_ref().and_then(|status| status.conditions.iter().find(|it| it.kind == kind));
    let told = |status, reason, message: String| {
        // A clock on its console is no news.
        let same = old.filter(|old| without_clocks(&old.message) == without_clocks(&message));
        Some((kind, status, reason, same.map_or(message, |old| old.message.clone())))
    };
    let anew = match goes_on_from_disk(look) {
        false => {
            "Look at its console (`virsh console`, or its screen); `stopVm` and then `startVm` begin the \
             installation anew."
        }
        true => {
            "Look at its screen. `startVm` does not begin anew what it has put onto the disk: `deleteVm`, and \
             create the VM again."
        }
    };
    match standing(look)? {
        Standing::AtWork => {
            told(ConditionStatus::True, "Installing", format!("The installer is at work{}.", at_stage(look)))
        }
        Standing::Stuck => {
            let minutes = look.rules.installs.stall_timeout.as_secs().div_ceil(60);
            let message = format!(
                "The installer is stuck{}: for {minutes} min it has reported nothing, written nothing new to its \
                 console and nothing to its disk.{} {anew}",
                at_stage(look),
                last_words(look)
            );
            told(ConditionStatus::False, "InstallStuck", message)
        }
        Standing::Overdue => {
            let message = format!(
                "The installer has not ended in its time{}.{} {anew}",
                at_stage(look),
                last_words(look)
            );
            told(ConditionStatus::False, "InstallTimeout", message)
        }
        Standing::GaveUp => {
            let message = format!("The installer says that it failed.{} {anew}", last_words(look));
            told(ConditionStatus::False, "InstallFailed", message)
        }
        Standing::Failed => match &look.observed.domain {
            DomainObservation::Present(facts) => {
                told(ConditionStatus::False, "InstallFailed", failed(look, facts))
            }
            _ => None,
        },
        Standing::Resting if is_saved(look) => {
            let words = "What the installer holds in memory was saved; `startVm` goes on with it.";
            told(ConditionStatus::False, "Interrupted", words.to_owned())
        }
        Standing::Resting if is_off(look) && !look.bundle.record.intent.power.is_on() => {
            let words = match goes_on_from_disk(look) {
                false => "The installation was broken off; `startVm` begins it anew.",
                true => {
                    "The installation was broken off; `startVm` goes on with what is on the disk. Where that does not \
                     boot, `deleteVm`, and create the VM again."
                }
            };
            told(ConditionStatus::False, "Interrupted", words.to_owned())
        }
        // As before, until more is known.
        Standing::Resting | Standing::Ended => {
            let old = old?;
            let reasons = ["Installing", "InstallStuck", "InstallTimeout", "InstallFailed", "Interrupted"];
            let reason = reasons.into_iter().find(|reason| *reason == old.reason)?;
            told(old.status, reason, old.message.clone())
        }
    }
}

/// Whether the machine boots its disk before the installer's disc, so that what an installer that failed
/// has left there is what starts next.
fn goes_on_from_disk(look: &Look<'_>) -> bool {
    under_way(look.bundle).is_some_and(|installation| installation.family.reboots_by_itself())
}

fn is_off(look: &Look<'_>) -> bool {
    matches!(&look.observed.domain, DomainObservation::Present(facts) if facts.state.is_off())
}

fn is_saved(look: &Look<'_>) -> bool {
    is_off(look) && matches!(&look.observed.domain, DomainObservation::Present(facts) if facts.managed_save)
}

pub(super) fn failed(look: &Look<'_>, facts: &DomainFacts) -> String {
    let how = match keeping::how(facts) {
        Some(keeping::Off::Crashed) => "ended by a fault",
        Some(keeping::Off::Outside) => "was turned off outside of this controller",
        Some(keeping::Off::ByItself) => "went off",
        Some(keeping::Off::Unseen) | None => "is off",
    };
    let anew = match goes_on_from_disk(look) {
        false => "`startVm` begins the installation anew.",
        true => "`startVm` would boot what it has put onto the disk: `deleteVm`, and create the VM again.",
    };
    format!(
        "The installer's machine {how} before the system was installed{}.{} {anew}",
        at_stage(look),
        last_words(look)
    )
}

/// What the installer said last of where it is. Its console has it first, and only of this attempt.
fn reported(look: &Look<'_>) -> Option<String> {
    let reported = || look.bundle.install_report.as_ref().map(|report| &report.stage);
    let stage = look.memory.install.stage.as_ref().or_else(reported)?;
    let plain = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let clean: String = stage.chars().filter(plain).take(MAX_STAGE).collect();
    Some(clean).filter(|stage| !stage.is_empty())
}

fn at_stage(look: &Look<'_>) -> String {
    reported(look).map_or_else(String::new, |stage| format!(" (last stage: {stage})"))
}

fn last_words(look: &Look<'_>) -> String {
    match look.observed.install.as_ref().map(|signs| &signs.last_lines[..]) {
        None | Some([]) => " Its console shows nothing.".to_owned(),
        Some(lines) => format!(" Its console ends with \"{}\".", lines.join(" / ")),
    }
}

/// What an operation is told of an installation that is under way.
pub(in crate::reconcile::plan) fn stage(look: &Look<'_>) -> Option<String> {
    under_way(look.bundle).filter(|_| look.passed(Milestone::FirstStarted))?;
    let stage = match reported(look) {
        Some(stage) => format!("installing: {stage}"),
        None => "installing; the installer has reported nothing yet".to_owned(),
    };
    Some(stage)
}

/// Percent of an operation that waits for an installation; `None`: it is for none, or not begun.
pub(in crate::reconcile::plan) fn percent(look: &Look<'_>) -> Option<i32> {
    look.bundle.record.spec.installation()?;
    if look.passed(Milestone::FirstSeen) && look.passed(Milestone::BootReplaced) {
        return Some(90);
    }
    if look.passed(Milestone::BootReplaced) {
        return Some(85);
    }
    if look.passed(Milestone::SystemInstalled) {
        return Some(80);
    }
    let stage = reported(look)?;
    STAGES.iter().find(|(known, _)| *known == stage).map(|(_, percent)| *percent)
}
