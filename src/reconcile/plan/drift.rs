//! Whether the domain is as it was asked for, and if not, what to do about it.

use super::{
    Look,
    conditions::Draft,
    keeping::{self, Fate, Off},
    power::PAUSED_BY_IO_ERROR,
};
use crate::vm::{
    ConditionKind, ConditionStatus, DesiredPower, DomainFacts, DomainObservation, DomainState, Milestone,
    SettingChange, VmChange,
};

pub(super) fn derive(look: &Look<'_>) -> Option<Draft> {
    if !look.passed(Milestone::Defined) || look.bundle.record.intent.deleting {
        return None;
    }
    let kind = ConditionKind::DriftedFromIntent;
    let drifted = |(reason, message): (&'static str, &str)| {
        Some((kind, ConditionStatus::True, reason, message.to_owned()))
    };
    match &look.observed.domain {
        DomainObservation::Absent if look.is_missing() => Some((
            kind,
            ConditionStatus::True,
            "DomainMissing",
            format!(
                "The domain is gone although nobody asked this controller: {}.",
                look.bundle.record.spec.when_gone()
            ),
        )),
        DomainObservation::Present(facts) if is_renamed(look, facts) => Some((
            kind,
            ConditionStatus::True,
            "Renamed",
            format!(
                "The domain was renamed outside of this controller; rename it back while it is off, with `virsh \
                 domrename {:?} {:?}`.",
                facts.name,
                look.bundle.record.spec.name.as_str()
            ),
        )),
        DomainObservation::Present(facts) if facts.state.is_active() && !facts.persistent => drifted((
            "NotPersistent",
            "The domain's configuration was removed outside of this controller: once it is off, it is gone. \
             Write it back while it runs, with `virsh dumpxml` and `virsh define`.",
        )),
        DomainObservation::Present(facts) => match power(look, facts) {
            Some(words) => drifted(words),
            // It is not, and `Reconciled` says why.
            None if look.gave_up() => None,
            None => Some((
                kind,
                ConditionStatus::False,
                "AsAsked",
                "The domain is as it was asked for.".to_owned(),
            )),
        },
        _ => None,
    }
}

fn is_renamed(look: &Look<'_>, facts: &DomainFacts) -> bool {
    let by_us = matches!(
        look.change(),
        Some((_, VmChange::Setting(SettingChange::Rename(name)))) if name.as_str() == facts.name
    );
    facts.name != look.bundle.record.spec.name.as_str() && !by_us
}

/// One word and one sentence, where the power is not what was asked for and reached before.
fn power(look: &Look<'_>, facts: &DomainFacts) -> Option<(&'static str, &'static str)> {
    let intent = &look.bundle.record.intent;
    let halted = matches!(facts.state, DomainState::Paused | DomainState::Suspended);
    if intent.is_given_up() {
        // What halts it is told also where it was asked in vain to go on.
        let goes_on = matches!(intent.power, DesiredPower::Running | DesiredPower::ColdRunning);
        return (goes_on && halted).then(|| while_halted(facts));
    }
    if intent.is_open() || facts.state == DomainState::Unknown {
        return None;
    }
    let on = facts.state.is_active();
    match intent.power {
        DesiredPower::Running | DesiredPower::ColdRunning if halted => Some(while_halted(facts)),
        DesiredPower::Running | DesiredPower::ColdRunning => keeping::fate(look, facts).map(while_off),
        DesiredPower::Stopped | DesiredPower::ForcedOff | DesiredPower::Saved if on => Some((
            "StartedOutside",
            "It was asked to be off and is on: somebody started it outside of this controller. Take that as \
             asked with `startVm`, or stop it with `stopVm`.",
        )),
        DesiredPower::Saved if !facts.managed_save => Some((
            "SavedStateGone",
            "What was saved of its memory is gone. Boot it anew with `startVm`, or take that as asked with \
                 `stopVm`.",
        )),
        DesiredPower::Paused if !on => Some((
            "PoweredOff",
            "It was asked to be paused and is off; start it with `startVm`, or take that as asked with `stopVm`.",
        )),
        DesiredPower::Paused if !halted => Some((
            "ResumedOutside",
            "It was asked to be paused and runs: somebody resumed it outside of this controller. Take that as \
             asked with `resumeVm`, or pause it with `suspendVm`.",
        )),
        DesiredPower::Stopped | DesiredPower::ForcedOff | DesiredPower::Saved | DesiredPower::Paused => None,
    }
}

fn while_halted(facts: &DomainFacts) -> (&'static str, &'static str) {
    match (facts.state, facts.reason) {
        (DomainState::Suspended, _) => {
            ("GuestSleeps", "The guest put itself to sleep; wake it with `resumeVm`.")
        }
        (_, PAUSED_BY_IO_ERROR) => (
            "PausedOnIoError",
            "QEMU paused it because a disk could not be read or written. Look whether its pool is full and \
             its disks are there; then go on with `resumeVm`.",
        ),
        _ => (
            "PausedOutside",
            "It was asked to run and is paused: somebody or libvirt paused it. Go on with `resumeVm`, or take \
             that as asked with `suspendVm`.",
        ),
    }
}

fn while_off(fate: Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::Back(_) => (
            "StartsAgain",
            "It is off although it was asked to run; it is started again, unless that is taken as asked with \
             `stopVm`.",
        ),
        Fate::Looping => (
            "BootLoop",
            "It went off again and again, and was started 5 times within 10 minutes; it is not started any \
             more. Look at its console and at libvirt's log; then start it with `startVm`.",
        ),
        Fate::Left(Off::Crashed) => (
            "Crashed",
            "It was asked to run and was ended by a fault. Look at libvirt's log; then start it with `startVm`.",
        ),
        Fate::Left(Off::Outside) => (
            "PoweredOffOutside",
            "It was asked to run and is off: somebody turned it off outside of this controller. Start it with \
             `startVm`, or take that as asked with `stopVm`.",
        ),
        Fate::Left(Off::ByItself) => (
            "PoweredOff",
            "It was asked to run and is off: its guest powered off. Start it with `startVm`, or take that as \
             asked with `stopVm`.",
        ),
        Fate::Left(Off::Unseen) => (
            "Off",
            "It was asked to run and is off since the host or libvirt began anew. Start it with `startVm`, or \
             have it start with the host by `setVmAutostart`.",
        ),
    }
}
