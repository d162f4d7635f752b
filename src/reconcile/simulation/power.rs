//! Halting, saving, rebooting, renaming and keeping, against the simulated host.

use super::*;
use crate::vm::{OnCrash, OnPowerOff, PowerKeeping};

fn ended(world: &World, kind: OperationKind) -> Option<OperationStatus> {
    let operations = world.operations();
    operations.iter().find(|operation| operation.kind == kind).map(|operation| operation.status)
}

fn phase(world: &World) -> Option<VmPhase> {
    world.status().map(|status| status.phase)
}

/// A VM that runs, and its loop.
async fn running() -> (Arc<World>, Run) {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    (world, run)
}

#[tokio::test(start_paused = true)]
async fn a_save_survives_a_crash_at_every_gate_and_the_next_start_goes_on_from_it() {
    let saved = |world: &World| {
        phase(world) == Some(VmPhase::Saved)
            && ended(world, OperationKind::Save) == Some(OperationStatus::Succeeded)
    };
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let (world, run) = running().await;
            run.stop().await;
            world.ask_power(DesiredPower::Saved);
            any |= through_crash(&world, crash, &format!("a saved VM after {crash:?}"), saved).await;
            assert!(world.is_saved(), "{crash:?}");
            let run = Run::start(&world);
            world.ask_power(DesiredPower::Running);
            run.waker.wake(world.vm());
            until(&world, "a restored VM", |world| phase(world) == Some(VmPhase::Running)).await;
            assert!(!world.is_saved() && world.starts() == 2, "{}", world.describe());
            run.stop().await;
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates >= 3, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_save_that_outlasts_its_call_is_left_alone_and_found_done() {
    let (world, run) = running().await;
    world.save_slowly();
    let begun = tokio::time::Instant::now();
    world.ask_power(DesiredPower::Saved);
    run.waker.wake(world.vm());
    until(&world, "the call told as under way", |world| {
        let status = world.status();
        status.is_some_and(|status| status.conditions.iter().any(|it| it.reason == "CallUnderWay"))
    })
    .await;
    until(&world, "a saved VM", |world| {
        phase(world) == Some(VmPhase::Saved)
            && ended(world, OperationKind::Save) == Some(OperationStatus::Succeeded)
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(300));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_save_that_outlasts_its_call_does_not_keep_anybody_from_pulling_the_plug() {
    for delete in [false, true] {
        let (world, run) = running().await;
        world.save_slowly();
        world.ask_power(DesiredPower::Saved);
        run.waker.wake(world.vm());
        until(&world, "the call told as under way", |world| {
            let status = world.status();
            status.is_some_and(|status| status.conditions.iter().any(|it| it.reason == "CallUnderWay"))
        })
        .await;
        let asked = tokio::time::Instant::now();
        if delete {
            world.ask_delete();
        } else {
            world.ask_power(DesiredPower::ForcedOff);
        }
        run.waker.wake(world.vm());
        until(&world, "its end", |world| {
            if delete { world.is_gone() } else { phase(world) == Some(VmPhase::Stopped) }
        })
        .await;
        assert!(asked.elapsed() < Duration::from_secs(60), "the plug was pulled after {:?}", asked.elapsed());
        assert!(!world.is_saved());
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_halted_vm_goes_on_to_hear_that_it_is_to_stop() {
    let grace = ReconcileConfig::default().stop_grace;
    for goes_on in [true, false] {
        let (world, run) = running().await;
        world.ask_power(DesiredPower::Paused);
        run.waker.wake(world.vm());
        until(&world, "a halted VM", |world| phase(world) == Some(VmPhase::Paused)).await;
        world.set_stuck(!goes_on);
        let asked = tokio::time::Instant::now();
        world.ask_power(DesiredPower::Stopped);
        run.waker.wake(world.vm());
        until(&world, "a stopped VM", |world| {
            phase(world) == Some(VmPhase::Stopped)
                && ended(world, OperationKind::Stop) == Some(OperationStatus::Succeeded)
        })
        .await;
        let took = asked.elapsed();
        assert_eq!(took < grace, goes_on, "the plug was pulled after {took:?}");
        assert!(took < grace * 2, "the plug was pulled only after {took:?}");
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_is_dropped_only_for_a_cold_start() {
    let (world, run) = running().await;
    world.ask_power(DesiredPower::Saved);
    run.waker.wake(world.vm());
    until(&world, "a saved VM", |world| phase(world) == Some(VmPhase::Saved)).await;
    world.ask_power(DesiredPower::ColdRunning);
    run.waker.wake(world.vm());
    until(&world, "a running VM", |world| phase(world) == Some(VmPhase::Running)).await;
    assert!(!world.is_saved());
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_halted_vm_goes_on_and_a_stop_that_is_open_yields_to_it() {
    let (world, run) = running().await;
    world.set_deaf(true);
    world.ask_power(DesiredPower::Stopped);
    run.waker.wake(world.vm());
    until(&world, "the stop under way", |world| phase(world) == Some(VmPhase::Stopping)).await;
    world.ask_power(DesiredPower::Paused);
    run.waker.wake(world.vm());
    until(&world, "a halted VM", |world| phase(world) == Some(VmPhase::Paused)).await;
    tokio::time::sleep(ReconcileConfig::default().stop_grace * 3).await;
    assert_eq!(world.domain_state(), Some(DomainState::Paused), "the old request pulled the plug");
    world.ask_power(DesiredPower::Running);
    run.waker.wake(world.vm());
    until(&world, "a running VM", |world| phase(world) == Some(VmPhase::Running)).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_goes_off_first_cannot_be_halted_and_that_is_told() {
    let (world, run) = running().await;
    world.set_domain(DomainState::Shutoff, 1);
    world.ask_power(DesiredPower::Paused);
    run.waker.wake(world.vm());
    until(&world, "the refusal", |world| {
        ended(world, OperationKind::Suspend) == Some(OperationStatus::Failed)
    })
    .await;
    assert_eq!((world.starts(), phase(&world)), (1, Some(VmPhase::Stopped)));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_is_asked_once_and_forced_only_when_the_guest_does_not_follow() {
    for (deaf, resets) in [(false, 0), (true, 1)] {
        let (world, run) = running().await;
        world.tell_reboots();
        world.set_deaf(deaf);
        let begun = tokio::time::Instant::now();
        world.ask_change(VmChange::Guest(GuestChange::Reboot { force: false }));
        run.waker.wake(world.vm());
        until(&world, "the end of the reboot", |world| {
            ended(world, OperationKind::Reboot) == Some(OperationStatus::Succeeded)
        })
        .await;
        assert_eq!((world.reboots_asked(), world.resets()), (1, resets), "deaf: {deaf}");
        let grace = ReconcileConfig::default().reboot_grace;
        assert_eq!(begun.elapsed() >= grace, deaf, "after {:?}", begun.elapsed());
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rename_survives_a_crash_at_every_gate() {
    let both = ("renamed".to_owned(), "renamed".to_owned());
    let renamed = |world: &World| {
        world.names() == both && ended(world, OperationKind::Rename) == Some(OperationStatus::Succeeded)
    };
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let (world, run) = running().await;
            world.ask_power(DesiredPower::Stopped);
            run.waker.wake(world.vm());
            until(&world, "a stopped VM", |world| phase(world) == Some(VmPhase::Stopped)).await;
            run.stop().await;
            world.ask_change(VmChange::Setting(SettingChange::Rename("renamed".parse().unwrap())));
            any |= through_crash(&world, crash, &format!("the new name after {crash:?}"), renamed).await;
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates >= 2, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_meanwhile_is_given_back_whatever_crashes() {
    let refused = |world: &World| ended(world, OperationKind::Rename) == Some(OperationStatus::Failed);
    let old = ("simulated".to_owned(), "simulated".to_owned());
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let (world, run) = running().await;
            world.ask_power(DesiredPower::Stopped);
            run.waker.wake(world.vm());
            until(&world, "a stopped VM", |world| phase(world) == Some(VmPhase::Stopped)).await;
            run.stop().await;
            world.take_new_name();
            world.ask_change(VmChange::Setting(SettingChange::Rename("taken".parse().unwrap())));
            any |= through_crash(&world, crash, &format!("the refusal after {crash:?}"), refused).await;
            assert_eq!(world.names(), old, "{crash:?}");
        }
        if !any {
            assert!(gate > 3, "only {gate} gates were reached: the simulation misses effects");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_brings_a_vm_back_until_it_is_a_boot_loop() {
    const CRASHED: i32 = 3;
    let (world, run) = running().await;
    world.set_policy(PowerKeeping {
        autostart: false,
        on_power_off: OnPowerOff::Correct,
        on_crash: OnCrash::Restart,
    });
    world.set_domain(DomainState::Shutoff, 1);
    until(&world, "the VM back", |world| world.starts() == 2).await;
    for n in 3..=6 {
        world.set_domain(DomainState::Shutoff, CRASHED);
        until(&world, "the VM back again", |world| world.starts() == n).await;
    }
    until(&world, "a running VM", |world| phase(world) == Some(VmPhase::Running)).await;
    world.set_domain(DomainState::Shutoff, CRASHED);
    until(&world, "the loop told", |world| {
        let status = world.status();
        status.is_some_and(|status| status.conditions.iter().any(|it| it.reason == "BootLoop"))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert_eq!((world.starts(), phase(&world)), (6, Some(VmPhase::Crashed)));
    // Somebody asks: it counts anew.
    world.ask_power(DesiredPower::Running);
    run.waker.wake(world.vm());
    until(&world, "a running VM", |world| phase(world) == Some(VmPhase::Running)).await;
    world.set_domain(DomainState::Shutoff, CRASHED);
    until(&world, "the VM back", |world| world.starts() == 8).await;
    run.stop().await;
}
