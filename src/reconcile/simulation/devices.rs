//! Devices come and go through a crash at every gate: nothing doubled, nothing left.

use std::sync::Arc;

use super::{
    Run, is_ready, through_crash, until,
    world::{Crash, World},
};
use crate::vm::{
    DesiredPower, DeviceChange, DiskTarget, DomainState, Effect, NicSource, OperationKind, OperationStatus,
    SizeChange, VmChange, VmPhase,
};

fn attach(world: &World) -> VmChange {
    VmChange::Device(DeviceChange::AttachDisk {
        pool: "default".parse().unwrap(),
        volume: format!("infinibay-{}-1.qcow2", world.vm()),
        bytes: 1 << 20,
    })
}

fn detach(world: &World, delete_volume: bool) -> VmChange {
    let disk = world.spec().devices.disks[0].clone();
    VmChange::Device(DeviceChange::DetachDisk { disk, delete_volume })
}

fn ended(world: &World, kind: OperationKind, status: OperationStatus) -> bool {
    world.operations().iter().any(|operation| operation.kind == kind && operation.status == status)
}

fn effect(world: &World, kind: OperationKind) -> Option<Effect> {
    world.operations().iter().find(|operation| operation.kind == kind).and_then(|operation| operation.effect)
}

/// A world whose VM runs, or was stopped.
async fn with_vm(power: DesiredPower) -> Arc<World> {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    if power != DesiredPower::Running {
        world.ask_power(power);
        run.waker.wake(world.vm());
        until(&world, "a stopped VM", |world| {
            world.status().is_some_and(|status| status.phase == VmPhase::Stopped)
        })
        .await;
    }
    run.stop().await;
    world
}

/// Has a change carried out without a crash.
async fn change(world: &Arc<World>, change: VmChange) {
    let kind = change.kind();
    world.ask_change(change);
    let run = Run::start(world);
    until(world, "the change", |world| ended(world, kind, OperationStatus::Succeeded)).await;
    run.stop().await;
}

/// Has a deletion carried out; nothing may be left.
async fn nothing_is_left_after_deletion(world: &Arc<World>, words: &str) {
    world.ask_delete();
    let run = Run::start(world);
    until(world, "nothing left", World::is_gone).await;
    run.stop().await;
    assert!(world.nothing_is_left(), "{words} left {}", world.describe());
}

#[tokio::test(start_paused = true)]
async fn attaching_a_disk_survives_a_crash_at_every_gate() {
    for power in [DesiredPower::Running, DesiredPower::Stopped] {
        let mut gates = 0;
        for gate in 1.. {
            let mut any = false;
            for crash in [Crash::Before(gate), Crash::After(gate)] {
                let world = with_vm(power).await;
                world.ask_change(attach(&world));
                let attached =
                    |world: &World| ended(world, OperationKind::AttachDisk, OperationStatus::Succeeded);
                any |= through_crash(&world, crash, &format!("the disk after {crash:?}"), attached).await;
                assert_eq!(world.volumes(), 2, "{crash:?} left {}", world.describe());
                assert_eq!(world.spec().devices.disks.len(), 1, "{crash:?}: {}", world.describe());
                let (config, live) = world.hardware_now();
                assert_eq!(config.disks.len(), 1, "{crash:?}: {}", world.describe());
                assert_eq!(live.is_some(), power == DesiredPower::Running);
                assert!(
                    live.is_none_or(|live| live.disks == config.disks),
                    "{crash:?}: {}",
                    world.describe()
                );
                assert_eq!(effect(&world, OperationKind::AttachDisk), Some(Effect::Live));
                nothing_is_left_after_deletion(&world, &format!("{crash:?}")).await;
            }
            if !any {
                break;
            }
            gates = gate;
        }
        assert!(gates >= 5, "only {gates} gates were reached: the simulation misses effects");
    }
}

#[tokio::test(start_paused = true)]
async fn detaching_a_disk_survives_a_crash_at_every_gate() {
    for delete_volume in [true, false] {
        let mut gates = 0;
        for gate in 1.. {
            let mut any = false;
            for crash in [Crash::Before(gate), Crash::After(gate)] {
                let world = with_vm(DesiredPower::Running).await;
                change(&world, attach(&world)).await;
                world.ask_change(detach(&world, delete_volume));
                let detached =
                    |world: &World| ended(world, OperationKind::DetachDisk, OperationStatus::Succeeded);
                any |= through_crash(&world, crash, &format!("no disk after {crash:?}"), detached).await;
                assert_eq!(
                    world.volumes(),
                    if delete_volume { 1 } else { 2 },
                    "{crash:?}: {}",
                    world.describe()
                );
                assert!(world.spec().devices.disks.is_empty(), "{crash:?}: {}", world.describe());
                let (config, live) = world.hardware_now();
                assert!(
                    config.disks.is_empty() && live.unwrap().disks.is_empty(),
                    "{crash:?}: {}",
                    world.describe()
                );
                nothing_is_left_after_deletion(&world, &format!("{crash:?}")).await;
            }
            if !any {
                break;
            }
            gates = gate;
        }
        assert!(gates >= 3, "only {gates} gates were reached: the simulation misses effects");
    }
}

#[tokio::test(start_paused = true)]
async fn a_card_is_plugged_in_once_through_a_crash_at_every_gate() {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = with_vm(DesiredPower::Running).await;
            let source = NicSource::Network("default".parse().unwrap());
            world.ask_change(VmChange::Device(DeviceChange::AttachInterface { source }));
            let attached =
                |world: &World| ended(world, OperationKind::AttachInterface, OperationStatus::Succeeded);
            any |= through_crash(&world, crash, &format!("the card after {crash:?}"), attached).await;
            let (config, live) = world.hardware_now();
            let known: Vec<_> = world.spec().devices.interfaces.into_iter().map(|card| card.mac).collect();
            assert_eq!(known.len(), 1, "{crash:?}");
            for plugged in [config, live.unwrap()] {
                let macs: Vec<_> = plugged.cards.into_iter().map(|card| card.mac).collect();
                assert_eq!(macs, known, "{crash:?}");
            }
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates >= 2, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_let_go_keeps_its_disk_and_the_reason_is_told() {
    let world = with_vm(DesiredPower::Running).await;
    change(&world, attach(&world)).await;
    world.set_clinging(true);
    world.ask_change(detach(&world, true));
    let run = Run::start(&world);
    until(&world, "the end", |world| ended(world, OperationKind::DetachDisk, OperationStatus::Failed)).await;
    let operations = world.operations();
    let told = operations.iter().find_map(|operation| operation.error.as_ref()).expect("a reason");
    assert_eq!(told.code, "CHANGE_TIMEOUT");
    assert!(told.message.contains("does not let go of disk vdb"), "{}", told.message);
    assert_eq!((world.volumes(), world.spec().devices.disks.len()), (2, 1));
    assert_eq!(world.hardware_now().0.disks.len(), 1, "its configuration is as before");

    world.set_clinging(false);
    world.ask_change(detach(&world, true));
    run.waker.wake(world.vm());
    until(&world, "the disk gone", |world| {
        ended(world, OperationKind::DetachDisk, OperationStatus::Succeeded)
    })
    .await;
    run.stop().await;
    assert_eq!((world.volumes(), world.spec().devices.disks.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_the_running_domain_comes_with_the_next_start() {
    let world = with_vm(DesiredPower::Running).await;
    world.set_full(true);
    change(&world, attach(&world)).await;
    assert_eq!(effect(&world, OperationKind::AttachDisk), Some(Effect::NextBoot));
    let (config, live) = world.hardware_now();
    assert_eq!((config.disks.len(), live.unwrap().disks.len()), (1, 0));
    change(&world, VmChange::Size(SizeChange::Resize { vcpus: Some(2), memory_mib: None })).await;
    assert_eq!(effect(&world, OperationKind::Resize), Some(Effect::NextBoot));
    assert_eq!((world.spec().vcpus, world.spec().memory_mib), (2, 512));
    assert_eq!(world.domain_state(), Some(DomainState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_not_taken_for_one_that_was_there_before_it() {
    for delete_volume in [false, true] {
        let world = with_vm(DesiredPower::Running).await;
        change(&world, attach(&world)).await;
        let mut before = world.spec().devices.disks[0].clone();
        before.volume = format!("infinibay-{}-0.qcow2", world.vm());
        world.ask_change(VmChange::Device(DeviceChange::DetachDisk { disk: before, delete_volume }));
        let run = Run::start(&world);
        until(&world, "the refusal", |world| {
            ended(world, OperationKind::DetachDisk, OperationStatus::Failed)
        })
        .await;
        run.stop().await;
        let refused = world.operations().into_iter().find_map(|operation| operation.error).unwrap();
        assert_eq!(refused.code, "DEVICE_NOT_FOUND");
        assert_eq!((world.spec().devices.disks.len(), world.hardware_now().0.disks.len()), (1, 1));
        assert_eq!(world.volumes(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn growing_a_disk_survives_a_crash_at_every_gate() {
    for power in [DesiredPower::Running, DesiredPower::Stopped] {
        for gate in 1.. {
            let mut any = false;
            for crash in [Crash::Before(gate), Crash::After(gate)] {
                let world = with_vm(power).await;
                change(&world, attach(&world)).await;
                let target: DiskTarget = "vdb".parse().unwrap();
                world.ask_change(VmChange::Size(SizeChange::GrowDisk { target, bytes: 1 << 21 }));
                let grown = |world: &World| ended(world, OperationKind::GrowDisk, OperationStatus::Succeeded);
                any |= through_crash(&world, crash, &format!("the growth after {crash:?}"), grown).await;
                assert_eq!(world.spec().devices.disks[0].bytes, 1 << 21, "{crash:?}");
                assert_eq!(world.spec().disk_bytes, 1 << 30, "{crash:?}");
            }
            if !any {
                assert!(gate > 2, "the simulation misses effects");
                break;
            }
        }
    }
}
