//! Installations from a disc: what is seen, what that means, what is done about it.

use super::*;
use crate::{
    reconcile::observation::InstallSigns,
    vm::{
        ConditionStatus, Disc, FirstBootSecret, InstallFamily, InstallReport, Installation, InstallerKernel,
        WindowsRelease,
    },
};

const ON: DomainState = DomainState::Running;
const OFF: DomainState = DomainState::Shutoff;

/// A VM whose installer was started an hour ago and is at work.
pub(super) fn installing(family: InstallFamily) -> VmBundle {
    let mut vm = bundle();
    vm.record.spec.base = Base::Installation(Box::new(Installation {
        disc: Disc { medium: "disc".parse().unwrap(), path: "/media/disc.iso".into() },
        family,
        label: None,
        kernel: match family {
            InstallFamily::Windows(_) => None,
            _ => Some(InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd".to_owned() }),
        },
        drivers: None,
        mirror: None,
        edition: None,
        medium_language: None,
        agent: true,
        token: Some(FirstBootSecret::new("t".to_owned())),
    }));
    for milestone in
        [Milestone::DiskCreated, Milestone::SeedWritten, Milestone::Defined, Milestone::FirstStarted]
    {
        vm.record.milestones.pass(milestone, now() - TimeDelta::hours(1));
    }
    vm.record.intent.satisfied = 1;
    vm.record.intent.asked_at = now() - TimeDelta::hours(1);
    vm
}

pub(super) fn debian() -> VmBundle {
    installing(InstallFamily::Debian)
}

fn windows() -> VmBundle {
    let mut vm = installing(InstallFamily::Windows(WindowsRelease::Windows11));
    vm.record.spec.firmware = Firmware::Uefi;
    vm
}

fn of(vm: &mut VmBundle) -> &mut Installation {
    match &mut vm.record.spec.base {
        Base::Installation(installation) => installation,
        Base::Image(_) => unreachable!("made from an image"),
    }
}

pub(super) fn reported(mut vm: VmBundle, stage: &str) -> VmBundle {
    vm.install_report = Some(InstallReport { stage: stage.to_owned(), at: now() });
    vm
}

pub(super) fn seen(state: DomainState) -> Observation {
    let last_lines = vec!["Retrieving".to_owned(), "Go back?".to_owned()];
    let install = InstallSigns { last_lines, lines: vec![1], ..InstallSigns::default() };
    Observation { install: Some(install), ..observed(domain(state)) }
}

/// Nothing new for so many seconds; off for as long.
pub(super) fn silent(seconds: i64) -> Memory {
    let since = now() - TimeDelta::seconds(seconds);
    let mut memory = memory();
    memory.off_since = Some(since);
    memory.install.last_news = Some(since);
    memory
}

/// Off, as libvirt's reason says.
fn ended(reason: i32) -> Observation {
    let mut off = seen(OFF);
    facts(&mut off).reason = reason;
    off
}

fn facts(observed: &mut Observation) -> &mut DomainFacts {
    match &mut observed.domain {
        DomainObservation::Present(facts) => facts,
        other => unreachable!("{other:?}"),
    }
}

fn is_installed(plan: &Plan) -> bool {
    plan.milestones.contains(&Milestone::SystemInstalled)
}

fn told(plan: &Plan) -> (ConditionStatus, &str, &str) {
    let found = plan.status.conditions.iter().find(|it| it.kind == ConditionKind::InstallProgressing);
    let found = found.expect("it is told how the installation goes");
    (found.status, &found.reason, &found.message)
}

fn code(plan: &Plan) -> Option<&str> {
    plan.operations.iter().find_map(|update| match update {
        OperationUpdate::Finish { error: Some(error), .. } => Some(error.code.as_str()),
        _ => None,
    })
}

#[test]
fn an_installer_at_work_is_told_with_its_own_words() {
    let vm = reported(debian(), "installer-pkgsel");
    let plan = decide(&vm, &seen(ON), &silent(60));
    assert_eq!((&plan.step, plan.status.phase), (&None, VmPhase::Installing));
    assert_eq!((plan.milestones.len(), told(&plan).1), (0, "Installing"));
    let [OperationUpdate::Progress { progress, stage, .. }] = &plan.operations[..] else {
        panic!("{:?}", plan.operations)
    };
    assert_eq!((*progress, stage.as_str()), (64, "installing: installer-pkgsel"));
    assert_eq!(plan.wake_at, Some(now() + TimeDelta::minutes(14)), "when silence would be too long");
}

#[test]
fn silence_is_stuck_and_what_comes_later_is_told_as_it_is() {
    let vm = reported(debian(), "installer-pkgsel");
    let plan = decide(&vm, &seen(ON), &silent(15 * 60));
    let (status, reason, message) = told(&plan);
    assert_eq!((status, reason), (ConditionStatus::False, "InstallStuck"));
    for part in ["installer-pkgsel", "Retrieving / Go back?", "startVm"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!((code(&plan), plan.step.as_ref()), (Some("INSTALL_STUCK"), None));
    // Its operation is over, and it moves again.
    let mut later = vm.clone();
    later.operations.clear();
    later.status = Some(plan.status);
    let plan = decide(&later, &seen(ON), &silent(5));
    assert_eq!(told(&plan).0, ConditionStatus::True);
    let plan = decide(&reported(later, "finished"), &seen(OFF), &silent(0));
    assert_eq!(plan.step, Some(Step::ReplaceBoot));
}

#[test]
fn each_family_has_its_budget() {
    for (family, hours) in [
        (InstallFamily::Debian, 3),
        (InstallFamily::Ubuntu, 3),
        (InstallFamily::RedHat, 3),
        (InstallFamily::Windows(WindowsRelease::Server2022), 6),
    ] {
        for (seconds, expected) in [(-1, None), (0, Some("INSTALL_TIMEOUT"))] {
            let mut vm = installing(family);
            let started = now() - TimeDelta::hours(hours) - TimeDelta::seconds(seconds);
            vm.record.milestones.first_started = Some(started);
            vm.record.intent.asked_at = started;
            assert_eq!(code(&decide(&vm, &seen(ON), &silent(0))), expected, "{family:?}");
            // Begun anew, it has all its time again.
            vm.record.intent.asked_at = now();
            assert_eq!(code(&decide(&vm, &seen(ON), &silent(0))), None, "{family:?}");
        }
    }
}

#[test]
fn a_machine_that_is_off_has_installed_its_system_if_it_said_so() {
    for (stage, installed) in
        [("installed", true), ("finished", true), ("installer-pkgsel", false), ("failed", false)]
    {
        let vm = reported(debian(), stage);
        let plan = decide(&vm, &seen(OFF), &silent(5));
        assert_eq!(plan.milestones.contains(&Milestone::SystemInstalled), installed, "{stage}");
        assert_eq!(plan.step, installed.then_some(Step::ReplaceBoot), "{stage}");
        assert_eq!(plan.status.phase, VmPhase::Installing, "{stage}");
        assert!(plan.given_up.is_none(), "its last word may be on its way");
        // While it runs, that word is not the end.
        let plan = decide(&vm, &seen(ON), &silent(5));
        assert_eq!((plan.milestones, plan.step), (vec![], None), "{stage}");
    }
}

#[test]
fn a_machine_that_is_off_without_that_word_has_failed() {
    for (reason, how) in
        [(1, "went off"), (2, "was turned off outside"), (3, "ended by a fault"), (0, "is off")]
    {
        let vm = reported(debian(), "installer-pkgsel");
        let mut off = seen(OFF);
        if let DomainObservation::Present(facts) = &mut off.domain {
            facts.reason = reason;
        }
        assert_eq!(decide(&vm, &off, &silent(14)).wake_at, Some(now() + TimeDelta::seconds(1)));
        let plan = decide(&vm, &off, &silent(15));
        let Some((1, error)) = &plan.given_up else { panic!("{how}: {:?}", plan.given_up) };
        assert_eq!((error.code.as_str(), plan.step.as_ref()), ("INSTALL_FAILED", None));
        for part in [how, "installer-pkgsel", "Go back?", "startVm"] {
            assert!(error.message.contains(part), "{part} is not in: {}", error.message);
        }
        // Given up, it is left alone, and begins anew when asked.
        let mut vm = vm;
        vm.operations.clear();
        vm.record.intent.given_up = 1;
        let plan = decide(&vm, &off, &silent(600));
        assert_eq!((plan.step, plan.given_up.is_none(), plan.status.phase), (None, true, VmPhase::Failed));
        vm.record.intent.generation = 2;
        assert_eq!(decide(&vm, &off, &silent(600)).step, Some(Step::Start));
    }
}

#[test]
fn an_installer_that_says_so_has_failed_until_it_is_begun_anew() {
    let mut vm = reported(debian(), "failed");
    let plan = decide(&vm, &seen(ON), &silent(1));
    assert_eq!((code(&plan), told(&plan).1), (Some("INSTALL_FAILED"), "InstallFailed"));
    assert_eq!((plan.step, plan.given_up.is_none(), plan.status.phase), (None, true, VmPhase::Installing));
    vm.record.intent.asked_at = now() + TimeDelta::seconds(1);
    assert_eq!(told(&decide(&vm, &seen(ON), &silent(1))).1, "Installing");
}

#[test]
fn where_no_report_can_come_an_end_is_success_only_if_nobody_brought_it() {
    for (reason, power, installed) in [
        (1, DesiredPower::Running, true),
        (2, DesiredPower::Running, false),
        (3, DesiredPower::Running, false),
        (1, DesiredPower::Stopped, false),
    ] {
        let mut vm = debian();
        of(&mut vm).token = None;
        vm.record.intent.power = power;
        let mut off = seen(OFF);
        if let DomainObservation::Present(facts) = &mut off.domain {
            facts.reason = reason;
        }
        let plan = decide(&vm, &off, &silent(60));
        let passed = plan.milestones.contains(&Milestone::SystemInstalled);
        assert_eq!(passed, installed, "{reason} {power:?}");
    }
}

#[test]
fn what_stands_on_the_console_counts_as_a_report() {
    for (stage, installed) in [("installed", true), ("finished", true), ("installer-pkgsel", false)] {
        for token in [true, false] {
            let mut vm = reported(debian(), "installer-netcfg");
            of(&mut vm).token = of(&mut vm).token.take().filter(|_| token);
            let mut off = seen(OFF);
            if let Some(signs) = &mut off.install {
                signs.stage = Some(stage.to_owned());
            }
            let plan = decide(&vm, &off, &silent(15));
            assert_eq!(plan.milestones.contains(&Milestone::SystemInstalled), installed, "{stage}");
            assert_eq!(plan.given_up.is_some(), !installed, "{stage}");
        }
    }
    let mut later = silent(0);
    later.install.stage = Some("installer-pkgsel".to_owned());
    let plan = decide(&reported(debian(), "installer-netcfg"), &seen(ON), &later);
    assert!(told(&plan).2.contains("installer-pkgsel"), "{:?}", told(&plan));
    later.install.stage = Some("failed".to_owned());
    assert_eq!(code(&decide(&debian(), &seen(ON), &later)), Some("INSTALL_FAILED"));
}

#[test]
fn a_failure_on_the_console_is_remembered_and_outdoes_every_report() {
    let mut failed = silent(60);
    failed.install.stage = Some("failed".to_owned());
    // Its machine is switched off, and much came after that word.
    let plan = decide(&debian(), &ended(1), &failed);
    assert!(plan.given_up.is_some());
    for stage in ["installed", "finished"] {
        let plan = decide(&reported(debian(), stage), &ended(1), &failed);
        assert_eq!((is_installed(&plan), plan.given_up.is_some()), (false, true), "{stage}");
    }
    // Where no report can come, it is not mute for that.
    let mut mute = debian();
    of(&mut mute).token = None;
    assert!(is_installed(&decide(&mute, &ended(1), &silent(60))));
    for stage in ["failed", "installer-pkgsel"] {
        failed.install.stage = Some(stage.to_owned());
        assert!(!is_installed(&decide(&mute, &ended(1), &failed)), "{stage}");
    }
    // What comes after that word, on the console, counts again.
    let mut later = ended(1);
    later.install.as_mut().expect("signs").stage = Some("finished".to_owned());
    assert!(is_installed(&decide(&mute, &later, &failed)));
}

#[test]
fn before_its_last_word_an_installation_is_over_only_if_it_ends_by_itself() {
    for (stage, reason, power, installed) in [
        ("installed", 1, DesiredPower::Running, true),
        ("installed", 0, DesiredPower::Running, false),
        ("installed", 2, DesiredPower::Running, false),
        ("installed", 3, DesiredPower::Running, false),
        ("installed", 1, DesiredPower::Stopped, false),
        ("installed", 2, DesiredPower::ForcedOff, false),
        ("finished", 0, DesiredPower::Running, true),
        ("finished", 2, DesiredPower::Running, true),
        ("finished", 3, DesiredPower::Running, true),
        ("finished", 2, DesiredPower::ForcedOff, true),
    ] {
        let mut by_report = reported(debian(), stage);
        by_report.record.intent.power = power;
        let mut by_console = debian();
        by_console.record.intent.power = power;
        let mut remembered = silent(60);
        remembered.install.stage = Some(stage.to_owned());
        for (vm, memory) in [(by_report, silent(60)), (by_console, remembered)] {
            let plan = decide(&vm, &ended(reason), &memory);
            assert_eq!(is_installed(&plan), installed, "{stage} {reason} {power:?}");
        }
    }
    // The word of an attempt before this one is none of its.
    let mut anew = reported(debian(), "installed");
    anew.record.intent.asked_at = now() + TimeDelta::seconds(1);
    assert!(!is_installed(&decide(&anew, &ended(1), &silent(60))));
}

#[test]
fn what_is_saved_goes_on_with_what_it_ran_with() {
    for stage in ["installer-pkgsel", "installed", "finished"] {
        for vm in [debian(), windows()] {
            let mut vm = reported(vm, stage);
            let mut saved = ended(5);
            facts(&mut saved).managed_save = true;
            for (power, satisfied) in [(DesiredPower::Running, 1), (DesiredPower::Saved, 1)] {
                (vm.record.intent.power, vm.record.intent.satisfied) = (power, satisfied);
                let plan = decide(&vm, &saved, &silent(60));
                assert_eq!((&plan.step, plan.given_up.is_none()), (&None, true), "{stage} {power:?}");
                let windows_is_done = of(&mut vm).family.reboots_by_itself() && stage == "finished";
                assert_eq!(is_installed(&plan), windows_is_done, "{stage}");
                if !windows_is_done {
                    assert_eq!(plan.status.phase, VmPhase::Saved, "{stage} {power:?}");
                    assert!(told(&plan).2.contains("`startVm` goes on"), "{:?}", told(&plan));
                }
            }
            (vm.record.intent.power, vm.record.intent.generation) = (DesiredPower::Running, 2);
            assert_eq!(decide(&vm, &saved, &silent(60)).step, Some(Step::Start), "{stage}");
        }
    }
}

#[test]
fn a_clock_on_the_console_is_no_news() {
    let mut vm = debian();
    let at = |time: &str| {
        let mut seen = seen(ON);
        if let Some(signs) = &mut seen.install {
            signs.last_lines.push(format!("[ installer ][ {time} ]"));
        }
        seen
    };
    let first = decide(&vm, &at("13:59"), &silent(900));
    vm.status = Some(first.status.clone());
    assert_eq!(decide(&vm, &at("14:00"), &silent(960)).status, first.status);
}

#[test]
fn windows_goes_on_by_itself_until_it_says_that_it_is_done() {
    for (stage, installed) in [("specialize", false), ("installed", false), ("finished", true)] {
        let plan = decide(&reported(windows(), stage), &seen(ON), &silent(5));
        assert_eq!(plan.step, installed.then_some(Step::ReplaceBoot), "{stage}");
    }
    let mut heard_of = seen(ON);
    heard_of.link = heard(1, FirstBoot::Finished { errors: vec![] });
    let plan = decide(&windows(), &heard_of, &silent(5));
    assert!(plan.milestones.contains(&Milestone::SystemInstalled));
    assert!(!plan.milestones.contains(&Milestone::Installed), "its media are still in their drives");
    assert_eq!(plan.step, Some(Step::ReplaceBoot));
    let plan = decide(&windows(), &seen(OFF), &silent(60));
    assert!(plan.given_up.is_some(), "it never switches itself off");
}

#[test]
fn what_begins_a_failed_installation_anew_is_told_as_it_is() {
    for (vm, created) in [(debian(), false), (windows(), true)] {
        let (stuck, failed) = (seen(ON), seen(OFF));
        let mut broken_off = vm.clone();
        broken_off.record.intent.power = DesiredPower::ForcedOff;
        for (vm, seen) in [(&vm, &stuck), (&vm, &failed), (&broken_off, &failed)] {
            let plan = decide(vm, seen, &silent(36_000));
            let (_, reason, message) = told(&plan);
            assert_eq!(message.contains("create the VM again"), created, "{reason}: {message}");
            assert_eq!(message.contains("anew."), !created, "{reason}: {message}");
        }
    }
}

#[test]
fn firmware_is_given_a_key_for_ten_seconds_after_a_start() {
    let at = |seconds: i64| Some(now() - TimeDelta::seconds(seconds));
    for (uefi, started, pressed, step) in [
        (true, at(0), None, true),
        (true, at(5), at(1), true),
        (true, at(5), at(0), false),
        (true, at(10), at(1), false),
        (true, None, None, false),
        (false, at(0), None, false),
    ] {
        let mut vm = windows();
        vm.record.spec.firmware = if uefi { Firmware::Uefi } else { Firmware::Bios };
        let mut memory = silent(0);
        (memory.install.started, memory.install.pressed) = (started, pressed);
        let plan = decide(&vm, &seen(ON), &memory);
        assert_eq!(plan.step, step.then_some(Step::PressKey), "{uefi} {started:?} {pressed:?}");
        let soon = plan.wake_at.is_some_and(|wake| wake <= now() + TimeDelta::seconds(1));
        assert_eq!(soon, uefi && started.is_some_and(|at| now() - at < TimeDelta::seconds(10)));
    }
    // The controller that started it died, and this one sees it run for the first time, or soon after.
    for (first, step) in [(None, true), (at(3), true), (at(10), false)] {
        let mut vm = windows();
        vm.record.milestones.first_started = first;
        let plan = decide(&vm, &seen(ON), &silent(0));
        assert_eq!(plan.step, step.then_some(Step::PressKey), "{first:?}");
    }
    let mut memory = silent(0);
    memory.install.started = at(0);
    assert_eq!(decide(&debian(), &seen(ON), &memory).step, None, "a kernel asks for no key");
}

#[test]
fn after_its_installation_a_vm_is_like_any_other() {
    let mut vm = reported(debian(), "finished");
    vm.record.milestones.pass(Milestone::SystemInstalled, now());
    vm.record.milestones.pass(Milestone::BootReplaced, now());
    let mut on = observed(domain(ON));
    let plan = decide(&vm, &on, &memory());
    assert_eq!((told(&plan).1, plan.status.phase), ("Booting", VmPhase::Installing));
    on.link = heard(1, FirstBoot::Finished { errors: vec![] });
    let plan = decide(&vm, &on, &memory());
    assert!(plan.milestones.contains(&Milestone::Installed));
    assert_eq!((plan.step, plan.status.phase), (Some(Step::ScrubSeed), VmPhase::Running));
    // The first boot has its own time, from its own beginning.
    vm.record.milestones.boot_replaced = Some(now() - TimeDelta::minutes(30));
    on.link = LinkObservation::None;
    assert_eq!(code(&decide(&vm, &on, &memory())), Some("INSTALL_TIMEOUT"));
    // It powers off: that is followed.
    vm.operations.clear();
    assert_eq!(decide(&vm, &observed(domain(OFF)), &silent(60)).step, None);
}

#[test]
fn without_an_agent_it_is_over_when_it_runs_from_its_disk() {
    let mut vm = reported(debian(), "finished");
    of(&mut vm).agent = false;
    let plan = decide(&vm, &seen(ON), &silent(0));
    assert!(!plan.milestones.contains(&Milestone::Installed));
    vm.record.milestones.pass(Milestone::SystemInstalled, now());
    vm.record.milestones.pass(Milestone::BootReplaced, now());
    assert!(!decide(&vm, &observed(domain(OFF)), &silent(0)).milestones.contains(&Milestone::Installed));
    let plan = decide(&vm, &observed(domain(ON)), &silent(0));
    assert!(plan.milestones.contains(&Milestone::Installed));
    assert!(matches!(
        plan.operations[..],
        [OperationUpdate::Finish { status: OperationStatus::Succeeded, .. }]
    ));
}

#[test]
fn what_is_asked_of_the_power_is_done_while_a_system_is_installed() {
    let mut vm = debian();
    vm.record.intent.generation = 2;
    for (power, step) in [
        (DesiredPower::ForcedOff, Step::Destroy),
        (DesiredPower::Stopped, Step::RequestShutdown),
        (DesiredPower::Paused, Step::Suspend),
    ] {
        vm.record.intent.power = power;
        assert_eq!(decide(&vm, &seen(ON), &silent(0)).step, Some(step));
    }
    vm.record.intent.power = DesiredPower::ForcedOff;
    vm.record.intent.satisfied = 2;
    vm.operations.clear();
    let plan = decide(&vm, &seen(OFF), &silent(600));
    assert_eq!((&plan.step, plan.given_up.is_none(), plan.status.phase), (&None, true, VmPhase::Stopped));
    assert_eq!(told(&plan).1, "Interrupted");
}

#[test]
fn a_boot_that_cannot_be_replaced_ends_the_operation_and_is_tried_again() {
    let vm = reported(debian(), "finished");
    let mut failing = silent(60);
    failing.failure = Some(Failure {
        step: "ReplaceBoot",
        attempts: MAX_ATTEMPTS,
        message: "no".to_owned(),
        retry_at: now(),
    });
    let plan = decide(&vm, &seen(OFF), &failing);
    assert_eq!((code(&plan), plan.step.as_ref()), (Some("STEP_FAILED"), Some(&Step::ReplaceBoot)));
}

#[test]
fn nothing_is_concluded_while_libvirt_is_away_and_deletion_comes_first() {
    let vm = reported(debian(), "finished");
    let plan = decide(&vm, &observed(DomainObservation::Unknown), &silent(36_000));
    assert_eq!((plan.step.as_ref(), code(&plan), plan.milestones.len()), (None, None, 0));
    let mut vm = vm;
    vm.record.intent.deleting = true;
    let plan = decide(&vm, &seen(OFF), &silent(60));
    assert_eq!((plan.step, plan.milestones.len()), (Some(Step::Undefine), 0));
}

#[test]
fn who_waits_for_an_installation_whose_machine_does_not_run_is_told_in_time() {
    let halted = |vm: &VmBundle| decide(vm, &seen(DomainState::Paused), &silent(60));
    let gone = |vm: &VmBundle| decide(vm, &observed(DomainObservation::Absent), &silent(60));
    for (hours, expected) in [(1, None), (3, Some("INSTALL_TIMEOUT"))] {
        let mut vm = debian();
        let began = now() - TimeDelta::hours(hours);
        vm.record.milestones.first_started = Some(began);
        vm.record.intent.asked_at = began;
        assert_eq!((code(&halted(&vm)), code(&gone(&vm))), (expected, expected), "{hours} h");
        let woken = halted(&vm).wake_at.is_some() && gone(&vm).wake_at.is_some();
        assert!(woken || expected.is_some(), "nobody would look");
        // It was done, and somebody took its domain away before it was set up to boot from its disk.
        vm.record.milestones.pass(Milestone::SystemInstalled, now());
        assert_eq!(code(&gone(&vm)), expected, "{hours} h");
        // Whether it runs is not known.
        assert_eq!(code(&decide(&vm, &observed(DomainObservation::Unknown), &silent(60))), None);
    }
}
