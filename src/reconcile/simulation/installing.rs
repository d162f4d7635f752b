//! Systems that are installed from a disc, by an installer of good manners and by others.

use std::time::Duration;

use super::{Crash, Run, World, is_ready, through_crash, until, world::Manners};
use crate::vm::{
    ConditionKind, ConditionStatus, DesiredPower, DomainState, InstallFamily, OperationStatus, VmPhase,
    WindowsRelease,
};

const WINDOWS: InstallFamily = InstallFamily::Windows(WindowsRelease::Windows11);

fn condition(world: &World) -> Option<(ConditionStatus, String, String)> {
    let status = world.status()?;
    let found = status.conditions.into_iter().find(|it| it.kind == ConditionKind::InstallProgressing)?;
    Some((found.status, found.reason, found.message))
}

fn is_failed(world: &World, code: &str) -> bool {
    world.operations().iter().any(|operation| {
        operation.status == OperationStatus::Failed
            && operation.error.as_ref().is_some_and(|error| error.code == code)
    })
}

#[tokio::test(start_paused = true)]
async fn an_installation_survives_a_crash_at_every_gate() {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = World::with_installation(Manners::Good);
            any |= through_crash(&world, crash, &format!("a running VM after {crash:?}"), is_ready).await;
            assert_eq!(world.boots(), (1, 1), "{crash:?}: {}", world.describe());
            assert!(world.is_cleared(), "{crash:?} left {}", world.describe());
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates > 20, "only {gates} gates were reached: the simulation misses effects");
}

/// Its set-up waits for a key, boots the machine anew by itself and never switches it off: the drives of
/// a running domain are emptied, and nothing is started again.
#[tokio::test(start_paused = true)]
async fn an_installation_of_windows_survives_a_crash_at_every_gate_and_runs_on() {
    let mut gates = 0;
    for gate in 1.. {
        // Before the next one is after this one.
        let (world, crash) = (World::with_installer(WINDOWS, Manners::Good), Crash::After(gate));
        let any = through_crash(&world, crash, &format!("a running VM after {crash:?}"), is_ready).await;
        assert_eq!((world.boots(), world.starts()), ((1, 0), 1), "{crash:?}: {}", world.describe());
        assert_eq!(world.set_up_reboots(), 2, "{crash:?}: {}", world.describe());
        assert!(world.is_cleared(), "{crash:?} left {}", world.describe());
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates > 20, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_vm_deleted_in_the_middle_of_its_installation_leaves_nothing() {
    for family in [InstallFamily::Debian, WINDOWS] {
        deleted_at_every_gate(family).await;
    }
}

async fn deleted_at_every_gate(family: InstallFamily) {
    for gate in 1..80 {
        let world = World::with_installer(family, Manners::Good);
        world.crash_at(Crash::After(gate));
        let run = Run::start(&world);
        let reached = tokio::select! {
            () = world.crashed() => true,
            () = until(&world, "a running VM", is_ready) => false,
        };
        run.kill().await;
        world.never_crash();
        world.ask_delete();
        let run = Run::start(&world);
        until(&world, "nothing left", World::is_gone).await;
        run.stop().await;
        assert!(world.nothing_is_left(), "{family:?}: gate {gate} left {}", world.describe());
        if !reached {
            return;
        }
    }
    panic!("{family:?}: the installation never ended");
}

#[tokio::test(start_paused = true)]
async fn an_installer_that_waits_for_an_answer_is_found_and_may_still_go_on() {
    let world = World::with_installation(Manners::Asks);
    let run = Run::start(&world);
    let began = tokio::time::Instant::now();
    until(&world, "the operation failed as stuck", |world| is_failed(world, "INSTALL_STUCK")).await;
    assert!(began.elapsed() < Duration::from_secs(17 * 60), "found only after {:?}", began.elapsed());
    let (status, reason, message) = condition(&world).expect("a condition");
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "InstallStuck"));
    assert!(message.contains("started") && message.contains("line 1"), "{message}");
    assert_eq!(world.status().map(|status| status.phase), Some(VmPhase::Installing));
    // Somebody answers it.
    world.set_manners(Manners::Good);
    until(&world, "it moves", |world| condition(world).is_some_and(|it| it.1 == "Installing")).await;
    until(&world, "a running VM", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Running) && world.is_cleared()
    })
    .await;
    assert_eq!(world.boots(), (1, 1));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_installer_that_ends_without_a_word_has_failed_and_is_begun_anew_when_asked() {
    let world = World::with_installation(Manners::Dies);
    let run = Run::start(&world);
    until(&world, "the operation failed", |world| is_failed(world, "INSTALL_FAILED")).await;
    until(&world, "a failed VM", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Failed)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((world.boots(), world.domain_state()), ((1, 0), Some(DomainState::Shutoff)));
    let (status, reason, message) = condition(&world).expect("a condition");
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "InstallFailed"));
    assert!(message.contains("last stage: started") && message.contains("line 8"), "{message}");
    // A controller that remembers nothing says the same.
    run.stop().await;
    let run = Run::start(&world);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(condition(&world).expect("a condition").2, message);
    world.set_manners(Manners::Good);
    world.ask_power(DesiredPower::Running);
    run.waker.wake(world.vm());
    until(&world, "a running VM", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Running) && world.is_cleared()
    })
    .await;
    assert_eq!(world.boots(), (2, 1));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_is_stopped_is_interrupted_and_no_failure() {
    let world = World::with_installation(Manners::Good);
    let run = Run::start(&world);
    until(&world, "an installer at work", |world| world.boots() == (1, 0)).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    world.ask_power(DesiredPower::ForcedOff);
    run.waker.wake(world.vm());
    until(&world, "a stopped VM", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Stopped)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(condition(&world).map(|it| it.1).as_deref(), Some("Interrupted"));
    assert!(!is_failed(&world, "INSTALL_FAILED"));
    run.stop().await;
}
