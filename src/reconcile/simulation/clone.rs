//! Copies of VMs, and what becomes of them and of the VM that is copied when things end in between.

use std::{sync::Arc, time::Duration};

use super::{
    Run, through_crash, until,
    world::{Crash, World},
};
use crate::vm::{DomainState, OperationKind, OperationStatus, VmPhase};

fn ended(world: &World, kind: OperationKind) -> Option<(OperationStatus, String)> {
    let mut all = world.operations().into_iter().filter(|operation| operation.kind == kind);
    let found = all.find(|operation| operation.status.is_final())?;
    Some((found.status, found.error.map(|error| error.code).unwrap_or_default()))
}

fn is_cloned(world: &World) -> bool {
    let done = |kind| ended(world, kind).is_some_and(|(status, _)| status == OperationStatus::Succeeded);
    let off = world.status().is_some_and(|status| status.phase == VmPhase::Stopped);
    done(OperationKind::Clone) && done(OperationKind::Lend) && off && world.is_free()
}

/// Runs into a crash right after each effect in turn, until a run comes to its end without one.
async fn after_each(what: &str, goal: impl Fn(&World) -> bool, then: impl AsyncFn(Arc<World>, u32)) {
    let mut gates = 0;
    for gate in 1.. {
        let world = World::with_clone();
        world.crash_at(Crash::After(gate));
        let run = Run::start(&world);
        let reached = tokio::select! {
            () = world.crashed() => true,
            () = until(&world, what, &goal) => false,
        };
        run.kill().await;
        world.never_crash();
        then(world, gate).await;
        if !reached {
            break;
        }
        gates = gate;
    }
    assert!(gates > 10, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_copy_survives_a_crash_at_every_gate() {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = World::with_clone();
            any |= through_crash(&world, crash, &format!("a copy after {crash:?}"), is_cloned).await;
            let (begun, torn) = world.copies();
            assert_eq!((world.volumes(), torn), (4, 0), "{crash:?} left {}", world.describe());
            assert!((2..=3).contains(&begun), "{crash:?}: {begun} copies were begun");
            assert_eq!((world.starts(), world.domain_state()), (0, Some(DomainState::Shutoff)));
            assert_eq!(world.lender_state(), Some(DomainState::Shutoff));
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates > 10, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_copy_deleted_in_between_gives_its_original_back() {
    after_each("a copy", is_cloned, async |world, gate| {
        world.ask_delete();
        let run = Run::start(&world);
        until(&world, "no copy", |world| world.is_gone() && world.is_free()).await;
        world.power_lender_on();
        run.waker.wake(world.lender());
        until(&world, "its original at work", |world| world.lender_state() == Some(DomainState::Running))
            .await;
        run.stop().await;
        assert_eq!(world.volumes(), 2, "gate {gate} left {}", world.describe());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_waits_for_its_turn_keeps_nobody_when_it_is_not_needed() {
    let crowded = async || {
        let world = World::with_clone();
        world.crowd();
        let run = Run::start(&world);
        until(&world, "a copy that waits", World::copy_waits).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!world.is_free(), "its original is not lent while it waits");
        (world, run)
    };
    let (world, run) = crowded().await;
    world.ask_delete();
    run.waker.wake(world.vm());
    until(&world, "no copy", |world| world.is_gone() && world.is_free()).await;
    run.stop().await;
    assert_eq!((world.copies(), world.copy_waits(), world.volumes()), ((0, 0), false, 2));

    let (world, run) = crowded().await;
    world.delete_lender();
    run.waker.wake(world.lender());
    until(&world, "an end of the copy", |world| ended(world, OperationKind::Clone).is_some()).await;
    until(&world, "nothing that waits", |world| !world.copy_waits()).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_original_deleted_in_between_is_gone_and_its_copy_says_so() {
    after_each("a copy", is_cloned, async |world, gate| {
        world.delete_lender();
        let run = Run::start(&world);
        until(&world, "no original", World::is_lender_gone).await;
        until(&world, "an end of the copy", |world| ended(world, OperationKind::Clone).is_some()).await;
        match ended(&world, OperationKind::Clone).expect("an end") {
            (OperationStatus::Succeeded, _) => {}
            (status, code) => {
                assert_eq!(
                    (status, code.as_str()),
                    (OperationStatus::Failed, "SOURCE_DELETED"),
                    "gate {gate}"
                );
                until(&world, "a failed copy", |world| {
                    world.status().is_some_and(|status| status.phase == VmPhase::Failed)
                })
                .await;
            }
        }
        world.ask_delete();
        run.waker.wake(world.vm());
        until(&world, "nothing left", World::is_gone).await;
        run.stop().await;
        assert_eq!(world.volumes(), 0, "gate {gate} left {}", world.describe());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn power_asked_of_the_original_waits_for_its_copy() {
    after_each("a copy", is_cloned, async |world, gate| {
        world.power_lender_on();
        let run = Run::start(&world);
        until(&world, "both", |world| is_cloned(world) && world.lender_state() == Some(DomainState::Running))
            .await;
        run.stop().await;
        assert_eq!(world.copies().1, 0, "gate {gate}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_original_that_is_started_behind_our_back_is_no_original() {
    for wait in [0, 3, 9, 12] {
        let world = World::with_clone();
        let run = Run::start(&world);
        tokio::time::sleep(Duration::from_secs(wait)).await;
        world.start_lender_outside();
        run.waker.wake(world.lender());
        until(&world, "the copy given up", |world| {
            ended(world, OperationKind::Clone).is_some_and(|(_, code)| code == "SOURCE_CHANGED")
        })
        .await;
        until(&world, "the loan ended", |world| {
            ended(world, OperationKind::Lend).is_some_and(|(_, code)| code == "WRONG_STATE")
        })
        .await;
        assert_eq!(world.domain_state(), None);
        world.ask_delete();
        run.waker.wake(world.vm());
        until(&world, "nothing left", World::is_gone).await;
        run.stop().await;
        assert_eq!(world.volumes(), 2, "{}", world.describe());
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_is_begun_anew_and_at_last_given_up() {
    for (faults, ends_well) in [(3, true), (40, false)] {
        let world = World::with_clone();
        world.set_faults(vec![true; faults]);
        let run = Run::start(&world);
        until(&world, "an end", |world| ended(world, OperationKind::Clone).is_some()).await;
        let (status, code) = ended(&world, OperationKind::Clone).expect("an end");
        match ends_well {
            true => assert_eq!(status, OperationStatus::Succeeded),
            false => assert_eq!((status, code.as_str()), (OperationStatus::Failed, "STEP_FAILED")),
        }
        until(&world, "the loan over", World::is_free).await;
        run.stop().await;
    }
}
