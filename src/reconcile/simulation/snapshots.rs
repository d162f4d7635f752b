//! Snapshots under crashes, hanging calls and agents that fall silent: taken once, put back once,
//! and above all no guest that is left with frozen file systems.

use std::{sync::Arc, time::Duration};

use super::{
    Run, is_ready, through_crash, until,
    world::{Crash, Hang, World},
};
use crate::vm::{
    DesiredPower, DeviceChange, DomainState, Frost, NewSnapshot, NicSource, Operation, OperationKind,
    OperationStatus, Quiesce, Quiesced, SettingChange, SizeChange, SnapshotChange, VmChange, VmPhase,
};

fn create(memory: Option<bool>, quiesce: Quiesce) -> VmChange {
    let name = "before".parse().unwrap();
    let new = NewSnapshot { name, description: String::new(), memory, quiesce, frost: Frost::default() };
    VmChange::Snapshot(SnapshotChange::Create(new))
}

fn at_rest() -> VmChange {
    create(Some(false), Quiesce::IfPossible)
}

fn revert() -> VmChange {
    VmChange::Snapshot(SnapshotChange::Revert { name: "before".parse().unwrap(), before: None })
}

/// The one operation of this kind, once it is over.
fn ended(world: &World, kind: OperationKind) -> Option<Operation> {
    world.operations().into_iter().find(|operation| operation.kind == kind && operation.status.is_final())
}

fn is_over(world: &World) -> bool {
    ended(world, OperationKind::CreateSnapshot).is_some()
}

async fn running(has_agent: bool) -> Arc<World> {
    let world = World::with_vm();
    if has_agent {
        world.give_agent();
    }
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    run.stop().await;
    world
}

/// There is exactly the snapshot that was asked for, and what it says of itself is true.
fn one_true_snapshot(world: &World, what: &str) -> Quiesced {
    let taken = world.snapshots_taken();
    assert_eq!(taken.len(), 1, "{what}: {}", world.describe());
    let tag = taken[0].1.expect("it is ours");
    assert_eq!(
        Some(tag.operation),
        ended(world, OperationKind::CreateSnapshot).map(|operation| operation.id)
    );
    assert!(tag.quiesced != Quiesced::Yes || taken[0].2, "{what} says it was at rest: {}", world.describe());
    assert!(!world.is_frozen(), "{what} left the guest frozen: {}", world.describe());
    tag.quiesced
}

fn succeeded(world: &World) {
    let ended = ended(world, OperationKind::CreateSnapshot).unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded, "{ended:?}");
}

async fn at_every_gate(least: u32, change: VmChange, judge: impl Fn(&World, &str)) {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = running(true).await;
            world.ask_change(change.clone());
            any |= through_crash(&world, crash, &format!("the end after {crash:?}"), is_over).await;
            judge(&world, &format!("{crash:?}"));
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates >= least, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_with_memory_is_taken_once_whatever_crashes() {
    at_every_gate(2, create(None, Quiesce::IfPossible), |world, what| {
        assert_eq!(one_true_snapshot(world, what), Quiesced::NotNeeded);
        assert_eq!(world.freezes(), 0);
        succeeded(world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_never_left_frozen_whatever_crashes() {
    at_every_gate(6, at_rest(), |world, what| {
        assert_eq!(one_true_snapshot(world, what), Quiesced::Yes, "{what}");
        succeeded(world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_thawed_even_when_the_time_for_the_snapshot_is_long_over() {
    for gate in 1..20 {
        let world = running(true).await;
        world.ask_change(at_rest());
        world.crash_at(Crash::After(gate));
        let run = Run::start(&world);
        let crashed = tokio::select! {
            () = world.crashed() => true,
            () = until(&world, "the snapshot", is_over) => false,
        };
        run.kill().await;
        world.never_crash();
        tokio::time::sleep(Duration::from_secs(7200)).await;
        let run = Run::start(&world);
        until(&world, "the end", is_over).await;
        run.stop().await;
        assert!(!world.is_frozen(), "gate {gate}: {}", world.describe());
        if !crashed {
            return;
        }
    }
    panic!("the snapshot has more gates than were tried");
}

/// Somebody halts the guest while it is frozen.
async fn frozen_and_halted() -> Arc<World> {
    for gate in 1..20 {
        let world = running(true).await;
        world.ask_change(at_rest());
        world.crash_at(Crash::After(gate));
        let run = Run::start(&world);
        tokio::select! {
            () = world.crashed() => {}
            () = until(&world, "the snapshot", is_over) => {}
        }
        run.kill().await;
        world.never_crash();
        if world.is_frozen() {
            world.set_domain(DomainState::Paused, 1);
            return world;
        }
    }
    panic!("the guest is never frozen");
}

#[tokio::test(start_paused = true)]
async fn a_halted_guest_with_frozen_file_systems_goes_on_when_asked_and_is_let_go() {
    for (power, state) in
        [(DesiredPower::Running, DomainState::Running), (DesiredPower::Stopped, DomainState::Shutoff)]
    {
        let world = frozen_and_halted().await;
        let run = Run::start(&world);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.domain_state(), Some(DomainState::Paused), "nobody asked that it goes on");
        let asked = tokio::time::Instant::now();
        world.ask_power_beside_changes(power);
        run.waker.wake(world.vm());
        until(&world, "both", |world| is_over(world) && world.domain_state() == Some(state)).await;
        assert!(asked.elapsed() < Duration::from_secs(60), "{power:?} took {:?}", asked.elapsed());
        run.stop().await;
        one_true_snapshot(&world, &format!("{power:?}"));
        succeeded(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_halted_or_unseen_for_hours_is_let_go_in_the_end() {
    for unseen in [false, true] {
        let world = frozen_and_halted().await;
        if unseen {
            world.set_domain(DomainState::Running, 1);
            world.set_reachable(false);
        }
        let run = Run::start(&world);
        tokio::time::sleep(Duration::from_secs(3700)).await;
        assert!(!is_over(&world) && world.is_frozen(), "given up: {}", world.describe());
        world.set_domain(DomainState::Running, 1);
        world.set_reachable(true);
        until(&world, "the end", is_over).await;
        run.stop().await;
        assert!(!world.is_frozen(), "left frozen: {}", world.describe());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_while_the_guest_runs_does_not_keep_it_frozen() {
    let world = running(true).await;
    world.hang_next_snapshot(Hang::Running(Duration::from_secs(600)));
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the snapshot", is_over).await;
    run.stop().await;
    assert!(world.longest_freeze() < Duration::from_secs(60), "frozen for {:?}", world.longest_freeze());
    // The one that came too late does not count.
    assert_eq!(one_true_snapshot(&world, "the hanging call"), Quiesced::Yes);
    assert_eq!(world.freezes(), 2);
    succeeded(&world);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_with_a_halted_guest_is_waited_for_and_counts() {
    let world = running(true).await;
    let took = Duration::from_secs(600);
    world.hang_next_snapshot(Hang::Halted(took));
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the snapshot", is_over).await;
    run.stop().await;
    assert_eq!(one_true_snapshot(&world, "the long call"), Quiesced::Yes);
    assert_eq!(world.freezes(), 1);
    let longest = world.longest_freeze();
    assert!(longest < took + Duration::from_secs(5), "frozen for {longest:?}");
    succeeded(&world);
}

#[tokio::test(start_paused = true)]
async fn a_crash_beside_a_call_that_hangs_leaves_no_guest_frozen() {
    for hang in [Hang::Running(Duration::from_secs(90)), Hang::Halted(Duration::from_secs(90))] {
        for gate in 1..20 {
            for crash in [Crash::Before(gate), Crash::After(gate)] {
                let world = running(true).await;
                world.hang_next_snapshot(hang);
                world.ask_change(at_rest());
                let what = format!("{hang:?} and {crash:?}");
                through_crash(&world, crash, &what, is_over).await;
                one_true_snapshot(&world, &what);
                succeeded(&world);
                assert!(world.longest_freeze() < Duration::from_secs(130), "{what}: {}", world.describe());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_silent_for_a_while_thaws_in_the_end() {
    let world = running(true).await;
    world.fail_thaws(10);
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the snapshot", is_over).await;
    run.stop().await;
    assert_eq!(one_true_snapshot(&world, "the silence"), Quiesced::Yes);
    assert!(world.longest_freeze() < Duration::from_secs(30), "frozen for {:?}", world.longest_freeze());
    succeeded(&world);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_silent_for_ever_is_told() {
    let world = running(true).await;
    world.fail_thaws(10_000);
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the end", is_over).await;
    let error = ended(&world, OperationKind::CreateSnapshot).unwrap().error.unwrap();
    assert_eq!(error.code, "THAW_FAILED");
    assert!(error.message.contains("domfsthaw"), "{}", error.message);
    // Power can be asked for nevertheless.
    world.ask_power(DesiredPower::Stopped);
    run.waker.wake(world.vm());
    until(&world, "a stopped VM", |world| world.domain_state() == Some(DomainState::Shutoff)).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_without_agent_is_told_and_refused_where_rest_is_required() {
    let world = running(false).await;
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the snapshot", is_over).await;
    run.stop().await;
    assert_eq!(one_true_snapshot(&world, "no agent"), Quiesced::NoAgent);
    assert_eq!(world.freezes(), 0);

    let world = running(false).await;
    world.ask_change(create(Some(false), Quiesce::Required));
    let run = Run::start(&world);
    until(&world, "the refusal", is_over).await;
    run.stop().await;
    let error = ended(&world, OperationKind::CreateSnapshot).unwrap().error.unwrap();
    assert_eq!(error.code, "QUIESCE_FAILED");
    assert!(world.snapshots_taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn anothers_snapshot_of_that_name_is_not_taken_for_ones_own() {
    let world = running(true).await;
    world.add_snapshot("before", true);
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the refusal", is_over).await;
    run.stop().await;
    let error = ended(&world, OperationKind::CreateSnapshot).unwrap().error.unwrap();
    assert_eq!(error.code, "SNAPSHOT_EXISTS");
    assert_eq!(world.snapshots_taken(), [("before".to_owned(), None, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_revert_is_done_once_and_the_loop_does_not_fight_it() {
    for (running_then, running_now) in [(true, true), (true, false), (false, true), (false, false)] {
        for gate in 1.. {
            let mut any = false;
            for crash in [Crash::Before(gate), Crash::After(gate)] {
                let world = running(true).await;
                if !running_now {
                    world.ask_power(DesiredPower::Stopped);
                    let run = Run::start(&world);
                    until(&world, "a stopped VM", |world| {
                        world.status().is_some_and(|status| status.phase == VmPhase::Stopped)
                    })
                    .await;
                    run.stop().await;
                }
                world.add_snapshot("before", running_then);
                world.ask_change(revert());
                let (state, power, phase) = if running_then {
                    (DomainState::Running, DesiredPower::Running, VmPhase::Running)
                } else {
                    (DomainState::Shutoff, DesiredPower::Stopped, VmPhase::Stopped)
                };
                let what = format!("{running_now} to {running_then} after {crash:?}");
                any |= through_crash(&world, crash, &what, |world| {
                    ended(world, OperationKind::RevertSnapshot).is_some()
                        && world.status().is_some_and(|status| status.phase == phase)
                })
                .await;
                assert_eq!((world.domain_state(), world.power()), (Some(state), power), "{what}");
                // Where the guest runs, a second time would take from it what it did since.
                assert!(world.reverts() == 1 || !running_then, "{what}: {}", world.describe());
                assert_eq!(world.starts(), 1, "{what}: the loop started it: {}", world.describe());
            }
            if !any {
                assert!(gate > 3, "only {gate} gates were reached: the simulation misses effects");
                break;
            }
        }
    }
}

async fn done(world: &Arc<World>, change: VmChange) {
    let before = world.operations().len();
    world.ask_change(change.clone());
    let run = Run::start(world);
    until(world, "the change", |world| {
        let ended = world.operations().into_iter().filter(|operation| operation.status.is_final()).count();
        ended == before + 1
    })
    .await;
    run.stop().await;
    let mut ended = world.operations().into_iter().filter(|operation| operation.kind == change.kind());
    assert!(ended.all(|operation| operation.status == OperationStatus::Succeeded), "{change:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_vm_is_made_of_goes_back_with_it() {
    for running_then in [true, false] {
        let world = running(true).await;
        let disk = |number: u32| {
            let volume = format!("infinibay-{}-{number}.qcow2", world.vm());
            DeviceChange::AttachDisk { pool: "default".parse().unwrap(), volume, bytes: 1 << 20 }
        };
        let card = |name: &str| {
            VmChange::Device(DeviceChange::AttachInterface {
                source: NicSource::Network(name.parse().unwrap()),
            })
        };
        done(&world, VmChange::Device(disk(1))).await;
        done(&world, card("first")).await;
        let then = world.spec();
        world.add_snapshot("before", running_then);

        let gone = DeviceChange::DetachDisk { disk: then.devices.disks[0].clone(), delete_volume: false };
        done(&world, VmChange::Device(gone)).await;
        let mac = then.devices.interfaces[0].mac.clone();
        done(&world, VmChange::Device(DeviceChange::DetachInterface { mac })).await;
        done(&world, VmChange::Device(disk(2))).await;
        done(&world, card("second")).await;
        done(&world, VmChange::Size(SizeChange::Resize { vcpus: Some(3), memory_mib: Some(768) })).await;
        let name = VmChange::Setting(SettingChange::Autostart(true));
        done(&world, name).await;
        assert_ne!(world.spec().devices, then.devices);

        done(&world, revert()).await;
        let now = world.spec();
        assert_eq!((now.vcpus, now.memory_mib), (then.vcpus, then.memory_mib));
        assert_eq!(now.devices, then.devices, "from a VM that ran: {running_then}");
        // What is no part of the machine stays as it was set.
        assert!(now.keeping.autostart);
        // A volume that is plugged in no more is not forgotten.
        assert_eq!(world.volumes(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn power_that_was_asked_for_after_a_revert_is_heard() {
    let world = running(true).await;
    world.add_snapshot("before", false);
    world.set_reachable(false);
    let run = Run::start(&world);
    world.ask_change(revert());
    world.ask_power_beside_changes(DesiredPower::Running);
    world.set_reachable(true);
    until(&world, "both", |world| {
        world.reverts() == 1
            && world.domain_state() == Some(DomainState::Running)
            && ended(world, OperationKind::Start).is_some()
    })
    .await;
    assert_eq!(world.power(), DesiredPower::Running);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_with_snapshots_leaves_nothing() {
    let world = running(true).await;
    world.ask_change(at_rest());
    let run = Run::start(&world);
    until(&world, "the snapshot", is_over).await;
    world.ask_delete();
    run.waker.wake(world.vm());
    until(&world, "nothing left", World::is_gone).await;
    run.stop().await;
    assert!(world.nothing_is_left() && world.snapshots_taken().is_empty(), "{}", world.describe());
}
