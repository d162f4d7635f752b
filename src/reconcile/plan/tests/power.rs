//! Halting, saving, rebooting, and what becomes of a VM that goes off by itself.

use super::*;
use crate::vm::{FORCED, GuestChange, OnCrash, OnPowerOff, SettingChange};

fn seen(state: DomainState, reason: i32, managed_save: bool) -> Observation {
    let DomainObservation::Present(facts) = domain(state) else { unreachable!() };
    observed(DomainObservation::Present(DomainFacts { reason, managed_save, ..facts }))
}

fn asked(power: DesiredPower) -> VmBundle {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.power = power;
    vm
}

fn drift(plan: &Plan) -> (bool, String) {
    let kind = ConditionKind::DriftedFromIntent;
    let found =
        plan.status.conditions.iter().find(|condition| condition.kind == kind).expect("the condition");
    (found.status == crate::vm::ConditionStatus::True, found.reason.clone())
}

#[test]
fn each_power_has_its_way_from_each_state() {
    use DesiredPower::{ColdRunning, ForcedOff, Paused, Running, Saved, Stopped};
    use DomainState as S;
    const REACHED: Option<&str> = Some("reached");
    const GIVEN_UP: Option<&str> = Some("given up");
    for (power, state, reason, saved, expected) in [
        (Running, S::Shutoff, 5, true, Some("Start")),
        (ColdRunning, S::Shutoff, 5, true, Some("DiscardSaved")),
        (ColdRunning, S::Shutoff, 1, false, Some("Start")),
        (ColdRunning, S::Running, 1, false, REACHED),
        (ColdRunning, S::Paused, 1, false, Some("Resume")),
        (Running, S::Paused, 1, false, Some("Resume")),
        (Running, S::Paused, 5, false, Some("Resume")),
        (Running, S::Paused, 3, false, None),
        (Paused, S::Running, 1, false, Some("Suspend")),
        (Paused, S::Blocked, 1, false, Some("Suspend")),
        (Paused, S::Paused, 1, false, REACHED),
        (Paused, S::Paused, 5, false, REACHED),
        (Paused, S::Paused, 2, false, None),
        (Paused, S::Suspended, 1, false, REACHED),
        (Paused, S::ShuttingDown, 1, false, None),
        (Paused, S::Shutoff, 1, false, GIVEN_UP),
        (Paused, S::Crashed, 1, false, GIVEN_UP),
        (Saved, S::Running, 1, false, Some("Save")),
        (Saved, S::Paused, 1, false, Some("Save")),
        (Saved, S::Paused, 3, false, None),
        (Saved, S::Shutoff, 5, true, REACHED),
        (Saved, S::Shutoff, 1, false, GIVEN_UP),
        (Saved, S::ShuttingDown, 1, false, None),
        (Stopped, S::Shutoff, 5, true, REACHED),
        // It hears nothing while it is halted.
        (Stopped, S::Paused, 1, false, Some("Resume")),
        (Stopped, S::Paused, 5, false, Some("Resume")),
        (Stopped, S::Suspended, 3, false, Some("Resume")),
        (Stopped, S::Paused, 3, false, None),
        (Stopped, S::Running, 1, false, Some("RequestShutdown")),
        (ForcedOff, S::Paused, 3, false, Some("Destroy")),
        (Saved, S::Unknown, 0, true, None),
        (ColdRunning, S::Unknown, 0, true, None),
    ] {
        let plan = decide(&asked(power), &seen(state, reason, saved), &memory());
        let did = match (&plan.step, plan.satisfied, &plan.given_up) {
            (Some(step), None, None) => Some(step.name()),
            (None, Some(1), None) => REACHED,
            (None, None, Some((1, error))) => {
                assert_eq!(error.code, "WRONG_STATE");
                GIVEN_UP
            }
            (None, None, None) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(did, expected, "{power:?} from {state:?} because {reason}, saved: {saved}");
    }
}

#[test]
fn what_is_saved_shows_and_is_not_offline_by_mistake() {
    let mut vm = asked(DesiredPower::Saved);
    vm.record.intent.satisfied = 1;
    let plan = decide(&vm, &seen(DomainState::Shutoff, 5, true), &memory());
    assert_eq!((plan.step, plan.status.phase), (None, VmPhase::Saved));
    assert_eq!(plan.link, LinkWish::Close(LinkEnd::VmStopped));
    let plan = decide(&vm, &seen(DomainState::Shutoff, 2, false), &memory());
    assert_eq!((drift(&plan), plan.status.phase), ((true, "SavedStateGone".to_owned()), VmPhase::Stopped));
    vm.record.intent.power = DesiredPower::Paused;
    let plan = decide(&vm, &seen(DomainState::Paused, 1, false), &memory());
    assert_eq!((drift(&plan).0, plan.status.phase), (false, VmPhase::Paused));
}

#[test]
fn what_others_did_to_the_power_is_told() {
    use DesiredPower::{Paused, Running, Saved, Stopped};
    for (power, state, reason, told) in [
        (Running, DomainState::Running, 1, None),
        (Running, DomainState::Shutoff, 1, Some("PoweredOff")),
        (Running, DomainState::Shutoff, 2, Some("PoweredOffOutside")),
        (Running, DomainState::Shutoff, 3, Some("Crashed")),
        (Running, DomainState::Crashed, 0, Some("Crashed")),
        (Running, DomainState::Shutoff, 0, Some("Off")),
        (Running, DomainState::Paused, 1, Some("PausedOutside")),
        (Running, DomainState::Paused, 5, Some("PausedOnIoError")),
        (Running, DomainState::Suspended, 1, Some("GuestSleeps")),
        (Stopped, DomainState::Shutoff, 1, None),
        (Stopped, DomainState::Running, 1, Some("StartedOutside")),
        (Paused, DomainState::Paused, 1, None),
        (Paused, DomainState::Running, 1, Some("ResumedOutside")),
        (Paused, DomainState::Shutoff, 2, Some("PoweredOff")),
        (Saved, DomainState::Running, 1, Some("StartedOutside")),
    ] {
        let mut vm = asked(power);
        let open = decide(&vm, &seen(state, reason, false), &memory());
        assert_eq!(drift(&open), (false, "AsAsked".to_owned()), "{power:?}: the request is not over");
        vm.record.intent.satisfied = 1;
        let plan = decide(&vm, &seen(state, reason, false), &memory());
        let expected = told.map_or((false, "AsAsked".to_owned()), |reason| (true, reason.to_owned()));
        assert_eq!(drift(&plan), expected, "{power:?} in {state:?} because {reason}");
        assert_eq!(plan.step, None, "{power:?} in {state:?}: followed");
    }
}

#[test]
fn a_resume_that_brings_nothing_says_what_halts_the_vm() {
    let mut vm = asked(DesiredPower::Running);
    vm.record.intent.satisfied = 1;
    vm.record.intent.generation = 2;
    let mut failing = memory();
    failing.enter(2, None);
    failing.failure = Some(Failure {
        step: Step::Resume.name(),
        attempts: MAX_ATTEMPTS,
        message: "in vain".to_owned(),
        retry_at: now(),
    });
    let given_up = |reason| {
        let plan = decide(&vm, &seen(DomainState::Paused, reason, false), &failing);
        plan.given_up.expect("it is given up").1.message
    };
    assert!(given_up(5).contains("make room"), "{}", given_up(5));
    assert!(given_up(1).contains("in vain"), "{}", given_up(1));
    vm.record.intent.given_up = 2;
    for (state, reason, told) in [
        (DomainState::Paused, 5, Some("PausedOnIoError")),
        (DomainState::Paused, 1, Some("PausedOutside")),
        // It is not as it was asked for, which `Reconciled` says.
        (DomainState::Shutoff, 1, None),
    ] {
        let plan = decide(&vm, &seen(state, reason, false), &memory());
        let mut conditions = plan.status.conditions.iter();
        let drift = conditions.find(|found| found.kind == ConditionKind::DriftedFromIntent);
        assert_eq!(drift.map(|drift| drift.reason.as_str()), told, "{state:?} because {reason}");
        let mut conditions = plan.status.conditions.iter();
        let reconciled = conditions.find(|found| found.kind == ConditionKind::Reconciled);
        assert_eq!(reconciled.map(|found| found.reason.as_str()), Some("StepFailed"));
    }
}

#[test]
fn a_policy_brings_back_what_went_off_and_no_more() {
    use OnCrash::{Restart, Stay};
    use OnPowerOff::{Correct, Follow};
    for (on_power_off, on_crash, reason, back_after) in [
        (Follow, Stay, 1, None),
        (Follow, Restart, 1, None),
        (Correct, Stay, 1, Some(15)),
        (Correct, Stay, 2, Some(15)),
        (Correct, Stay, 3, None),
        (Follow, Restart, 3, Some(1)),
        (Follow, Restart, 6, Some(1)),
        (Correct, Stay, 6, Some(1)),
        (Follow, Stay, 6, None),
        // The host booted, or it was migrated.
        (Correct, Restart, 0, None),
        (Correct, Restart, 4, None),
    ] {
        let mut vm = asked(DesiredPower::Running);
        vm.record.intent.satisfied = 1;
        vm.record.spec.keeping = PowerKeeping { autostart: false, on_power_off, on_crash };
        let off = seen(DomainState::Shutoff, reason, false);
        let mut lately = memory();
        lately.enter(1, None);
        lately.seen(true, now());
        let plan = decide(&vm, &off, &lately);
        assert_eq!(plan.step, None, "not at once");
        assert_eq!(plan.wake_at, back_after.map(|wait| now() + TimeDelta::seconds(wait)), "{reason}");
        let mut waited = memory();
        waited.enter(1, None);
        waited.seen(true, now() - TimeDelta::minutes(2));
        let plan = decide(&vm, &off, &waited);
        assert_eq!(plan.step, back_after.map(|_| Step::Restart), "{on_power_off:?}, {on_crash:?}, {reason}");
        // Somebody asked it to be off, or the request was given up.
        for change in [
            |vm: &mut VmBundle| vm.record.intent.power = DesiredPower::Stopped,
            |vm: &mut VmBundle| vm.record.intent.given_up = 1,
            |vm: &mut VmBundle| vm.record.intent.deleting = true,
        ] {
            let mut vm = vm.clone();
            change(&mut vm);
            assert_ne!(decide(&vm, &off, &waited).step, Some(Step::Restart));
        }
    }
}

#[test]
fn a_boot_loop_ends_and_is_told() {
    let mut vm = asked(DesiredPower::Running);
    vm.record.intent.satisfied = 1;
    vm.record.spec.keeping.on_crash = OnCrash::Restart;
    let crashed = seen(DomainState::Shutoff, 3, false);
    let mut memory = memory();
    memory.enter(1, None);
    let mut waits = Vec::new();
    for _ in 0..5 {
        memory.seen(true, now());
        let plan = decide(&vm, &crashed, &memory);
        waits.push((plan.wake_at.expect("it comes back") - now()).num_seconds());
        memory.attempting(&Step::Restart, now());
        memory.seen(false, now());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16]);
    memory.seen(true, now() - TimeDelta::hours(1));
    let plan = decide(&vm, &crashed, &memory);
    assert_eq!((plan.step.clone(), plan.wake_at), (None, None));
    assert_eq!((drift(&plan), plan.status.phase), ((true, "BootLoop".to_owned()), VmPhase::Crashed));
}

fn rebooting(force: bool) -> (VmBundle, OperationId) {
    let mut vm = asked(DesiredPower::Running);
    vm.record.intent.satisfied = 1;
    let operation = &mut vm.operations[0];
    operation.kind = OperationKind::Reboot;
    operation.change = Some(VmChange::Guest(GuestChange::Reboot { force }));
    let id = operation.id;
    (vm, id)
}

#[test]
fn a_reboot_is_asked_for_then_proven_or_forced() {
    let (vm, id) = rebooting(false);
    let long_ago = now() - TimeDelta::hours(1);
    let running = seen(DomainState::Running, 1, false);
    assert_eq!(decide(&vm, &running, &memory()).step, Some(Step::RequestReboot(id)));

    let asked_at = now() - TimeDelta::seconds(10);
    let mut asked = memory();
    asked.asked_to_reboot(id, asked_at);
    let told = |last| Reboots { told_since: Some(long_ago), last };
    let LinkObservation::Open(link) = heard(300, FirstBoot::NotReported) else { unreachable!() };
    let greets = |greeted_at| LinkObservation::Open(OpenLink { greeted_at, since: long_ago, ..link.clone() });
    let mute = LinkObservation::Open(OpenLink { version: None, since: long_ago, ..link.clone() });
    let young = LinkObservation::Open(OpenLink { since: now(), greeted_at: Some(now()), ..link.clone() });
    let missed = Reboots { told_since: Some(now()), last: None };
    for (what, reboots, link, done) in [
        ("told", told(Some(now())), LinkObservation::None, true),
        ("told before it was asked", told(Some(long_ago)), greets(Some(now())), false),
        ("a greeting is no proof where reboots are told", told(None), greets(Some(now())), false),
        ("a greeting where they may have been missed", missed, greets(Some(now())), true),
        ("no greeting yet", missed, greets(Some(long_ago)), false),
        ("no greeting yet, and never told", Reboots::default(), greets(Some(long_ago)), false),
        ("nobody who would greet", Reboots::default(), mute, true),
        ("nobody at all", Reboots::default(), LinkObservation::None, true),
        ("a connection that was made since", Reboots::default(), young, true),
    ] {
        let mut seen = running.clone();
        (seen.reboots, seen.link) = (reboots, link);
        let plan = decide(&vm, &seen, &asked);
        assert_eq!(plan.step, done.then_some(Step::Settle(id)), "{what}");
        if !done {
            assert_eq!(plan.wake_at, Some(asked_at + TimeDelta::seconds(60)), "{what}");
        }
        let mut over = memory();
        over.asked_to_reboot(id, now() - TimeDelta::seconds(60));
        seen.reboots.last = None;
        if reboots.told_since == Some(long_ago) {
            assert_eq!(decide(&vm, &seen, &over).step, Some(Step::Change(id)), "{what}: forced");
        }
    }
    let (vm, id) = rebooting(true);
    let plan = decide(&vm, &running, &memory());
    assert_eq!(plan.step, Some(Step::Change(id)));
    assert!(!stage(&plan).starts_with(FORCED), "nobody was polite: {}", stage(&plan));
}

fn stage(plan: &Plan) -> String {
    let mut stages = plan.operations.iter().filter_map(|update| match update {
        OperationUpdate::Progress { stage, .. } => Some(stage.clone()),
        OperationUpdate::Finish { .. } => None,
    });
    stages.next_back().unwrap_or_default()
}

#[test]
fn which_way_it_went_is_told() {
    let running = seen(DomainState::Running, 1, false);
    let (vm, id) = rebooting(false);
    for (asked_before, forced) in [(59, false), (60, true)] {
        let mut waited = memory();
        waited.asked_to_reboot(id, now() - TimeDelta::seconds(asked_before));
        let mut told = running.clone();
        told.reboots = Reboots { told_since: Some(now() - TimeDelta::hours(1)), last: None };
        assert_eq!(stage(&decide(&vm, &told, &waited)).starts_with(FORCED), forced, "after {asked_before} s");
    }
    for (power, stopping, forced) in [
        (DesiredPower::Stopped, 89, false),
        (DesiredPower::Stopped, 90, true),
        (DesiredPower::ForcedOff, 90, false),
    ] {
        let mut vm = asked(power);
        vm.operations[0].kind = OperationKind::Stop;
        let mut waited = memory();
        waited.enter(1, None);
        waited.stopping_since = Some(now() - TimeDelta::seconds(stopping));
        let plan = decide(&vm, &running, &waited);
        assert_eq!(stage(&plan).starts_with(FORCED), forced, "{power:?} after {stopping} s");
    }
}

#[test]
fn a_reboot_that_cannot_be_asked_for_is_forced_and_one_that_powers_off_fails() {
    let (mut vm, id) = rebooting(false);
    let running = seen(DomainState::Running, 1, false);
    let mut failing = memory();
    failing.enter(1, Some(id));
    failing.failure =
        Some(Failure { step: CHANGE, attempts: 0, message: "refused".to_owned(), retry_at: now() });
    assert_eq!(decide(&vm, &running, &failing).step, Some(Step::RequestReboot(id)));
    vm.operations[0].created_at = now() - TimeDelta::seconds(60);
    assert_eq!(decide(&vm, &running, &failing).step, Some(Step::Change(id)));

    let off = seen(DomainState::Shutoff, 1, false);
    let mut lately = memory();
    lately.seen(true, now());
    let plan = decide(&vm, &off, &lately);
    assert_eq!((plan.step, plan.wake_at), (None, Some(now() + TimeDelta::seconds(15))));
    let mut long = memory();
    long.seen(true, now() - TimeDelta::seconds(15));
    let plan = decide(&vm, &off, &long);
    let failed = |update: &OperationUpdate| matches!(update, OperationUpdate::Finish { error: Some(error), .. } if error.code == "GUEST_OFF");
    assert!(plan.step.is_none() && plan.operations.iter().any(failed), "{:?}", plan.operations);
}

#[test]
fn a_rename_under_way_is_no_drift() {
    let mut vm = asked(DesiredPower::Stopped);
    vm.record.intent.satisfied = 1;
    let DomainObservation::Present(facts) = domain(DomainState::Shutoff) else { unreachable!() };
    let renamed = observed(DomainObservation::Present(DomainFacts { name: "web-2".to_owned(), ..facts }));
    assert_eq!(drift(&decide(&vm, &renamed, &memory())), (true, "Renamed".to_owned()));
    vm.operations[0].change = Some(VmChange::Setting(SettingChange::Rename("web-2".parse().unwrap())));
    assert_eq!(drift(&decide(&vm, &renamed, &memory())), (false, "AsAsked".to_owned()));
}
