//! Volumes go and pools run full behind the loop's back: told, and told as over; and nothing is made
//! of a pool that gives no answer.

use super::{Run, is_ready, until, world::World};
use crate::vm::{ConditionKind, ConditionStatus, DesiredPower};

fn told(world: &World, kind: ConditionKind) -> Option<(ConditionStatus, String)> {
    let status = world.status()?;
    let found = status.conditions.into_iter().find(|condition| condition.kind == kind)?;
    Some((found.status, found.reason))
}

fn is(kind: ConditionKind, status: ConditionStatus, reason: &'static str) -> impl Fn(&World) -> bool {
    move |world| told(world, kind).is_some_and(|told| told == (status, reason.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn missing_volumes_are_told_and_unknown_is_not_missing() {
    use ConditionKind::DisksPresent;
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    assert_eq!(told(&world, DisksPresent), None, "nothing is wrong");

    let volumes = world.take_volumes();
    until(&world, "missing", is(DisksPresent, ConditionStatus::False, "DiskMissing")).await;
    world.silence_pool(true);
    run.waker.resync(world.vm()).await;
    until(&world, "unknown", is(DisksPresent, ConditionStatus::Unknown, "PoolSilent")).await;
    world.put_volumes(volumes);
    world.silence_pool(false);
    run.waker.resync(world.vm()).await;
    until(&world, "there again", is(DisksPresent, ConditionStatus::True, "Usable")).await;

    // What is missing is told across a restart, before the pools were looked at again.
    world.take_volumes();
    run.waker.resync(world.vm()).await;
    until(&world, "missing again", is(DisksPresent, ConditionStatus::False, "DiskMissing")).await;
    run.stop().await;
    let run = Run::start(&world);
    run.waker.wake(world.vm());
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(is(DisksPresent, ConditionStatus::False, "DiskMissing")(&world));

    world.ask_delete();
    run.waker.wake(world.vm());
    until(&world, "the end of a VM without its disk", World::is_gone).await;
    run.stop().await;
    assert!(world.nothing_is_left(), "left {}", world.describe());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_cannot_write_is_told_that_its_pool_is_full() {
    use ConditionKind::{DisksPresent, StorageLow};
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    assert_eq!(told(&world, StorageLow), None);

    // Nobody looks at the pool just then, but a guest that is paused makes the loop do it.
    world.fill_pool(true);
    world.starve();
    run.waker.wake(world.vm());
    until(&world, "a full pool", is(DisksPresent, ConditionStatus::False, "PoolFull")).await;
    until(&world, "little room", is(StorageLow, ConditionStatus::True, "PoolNearlyFull")).await;

    world.fill_pool(false);
    world.ask_power(DesiredPower::Running);
    run.waker.resync(world.vm()).await;
    until(&world, "room again", is(StorageLow, ConditionStatus::False, "Enough")).await;
    until(&world, "usable again", is(DisksPresent, ConditionStatus::True, "Usable")).await;
    run.stop().await;
}
