//! The whole loop against a simulated host, on one thread and in simulated time.
//!
//! Every effect of the loop passes one gate, where the world may end: before the effect, or
//! right after it. A new controller then has to finish the job from what store and host hold.
//! Trying every gate in turn proves "a crash between any two lines" by exhaustion.

mod clone;
mod devices;
mod installing;
mod power;
mod snapshots;
mod storage;
mod world;

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::world::{Crash, World};
use super::{Parts, Reconciler, Settings, Waker, note::WORK};
use crate::{
    config::{AgentsConfig, InstallsConfig, ReconcileConfig},
    domain_xml::Templates,
    events::EventBus,
    vm::{
        AgentConnectivity, DesiredPower, DomainState, GuestChange, IdentityChange, OperationKind,
        OperationStatus, SettingChange, VmChange, VmPhase,
    },
};

/// More than any wait of the loop, far less than for ever.
const PATIENCE: Duration = Duration::from_secs(3600);

struct Run {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    waker: Waker,
    _hints: (mpsc::Sender<crate::vm::VmId>, mpsc::Sender<Option<crate::vm::VmId>>),
}

impl Run {
    fn start(world: &Arc<World>) -> Self {
        let (link_sender, link_hints) = mpsc::channel(8);
        let (socket_sender, socket_hints) = mpsc::channel(8);
        let (reconciler, waker) = Reconciler::new(Parts {
            hypervisor: world.clone(),
            store: world.clone(),
            links: world.clone(),
            files: world.clone(),
            clock: world.clone(),
            randomness: world.clone(),
            events: EventBus::default(),
            settings: Settings {
                seeds_dir: "/seeds".into(),
                discs_dir: "/discs".into(),
                console_dir: "/console".into(),
                socket_dir: "/sockets".into(),
                templates: Templates::load(None).expect("the built-in templates are right"),
            },
            config: ReconcileConfig::default(),
            agents: AgentsConfig::default(),
            installs: InstallsConfig::default(),
            install_reports: true,
            link_hints,
            socket_hints,
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(reconciler.run(stop.clone()));
        Self { stop, task, waker, _hints: (link_sender, socket_sender) }
    }

    /// The process is gone, wherever it was.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the loop does not stop")
            .expect("the loop panicked");
    }
}

async fn until(world: &World, what: &str, holds: impl Fn(&World) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds(world) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came: {what}\n{}", world.describe());
}

fn is_ready(world: &World) -> bool {
    world
        .status()
        .is_some_and(|status| status.phase == VmPhase::Running && status.agent == AgentConnectivity::Online)
        && world.operations().iter().all(|operation| operation.status == OperationStatus::Succeeded)
        && world.is_scrubbed()
        && world.is_noted()
}

/// Runs to `goal`, through one crash at the given gate. Whether the gate was reached.
async fn through_crash(world: &Arc<World>, crash: Crash, what: &str, goal: impl Fn(&World) -> bool) -> bool {
    world.crash_at(crash);
    let first = Run::start(world);
    let reached = tokio::select! {
        () = world.crashed() => true,
        () = until(world, what, &goal) => false,
    };
    first.kill().await;
    world.never_crash();
    if reached {
        let second = Run::start(world);
        until(world, what, &goal).await;
        second.stop().await;
    }
    reached
}

#[tokio::test(start_paused = true)]
async fn a_creation_survives_a_crash_at_every_gate() {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = World::with_vm();
            any |= through_crash(&world, crash, &format!("a running VM after {crash:?}"), is_ready).await;
            assert_eq!(world.volumes(), 1, "{crash:?} left {}", world.describe());
            assert_eq!(world.starts(), 1, "{crash:?} started twice: {}", world.describe());
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates > 10, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_does_not_change_is_looked_at_without_digesting_its_note() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (compared, digested) = WORK.get();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let (later, still) = WORK.get();
    assert!(later - compared > 100, "it was looked at {} times in an hour", later - compared);
    assert_eq!(still, digested);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_survives_a_crash_at_every_gate_and_leaves_nothing() {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = World::with_vm();
            let run = Run::start(&world);
            until(&world, "a running VM", is_ready).await;
            run.stop().await;
            world.ask_delete();
            let gone = |world: &World| world.is_gone();
            any |= through_crash(&world, crash, &format!("nothing left after {crash:?}"), gone).await;
            assert!(world.nothing_is_left(), "{crash:?} left {}", world.describe());
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates > 5, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_vm_deleted_in_the_middle_of_its_creation_leaves_nothing() {
    for gate in 1..40 {
        let world = World::with_vm();
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
        assert!(world.nothing_is_left(), "gate {gate} left {}", world.describe());
        if !reached {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_destroyed_while_libvirt_is_away() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    world.set_reachable(false);
    world.ask_delete();
    run.waker.wake_all();
    until(&world, "the VM shown as deleting", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Deleting)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((world.volumes(), world.domain_state()), (1, Some(DomainState::Running)));
    world.set_reachable(true);
    until(&world, "nothing left", World::is_gone).await;
    run.stop().await;
    assert!(world.nothing_is_left(), "{}", world.describe());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_looked_at_is_looked_at_again_before_the_next_scan() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    let is = |phase| move |world: &World| world.status().is_some_and(|status| status.phase == phase);
    for (looks, wake_all) in [(1, true), (1, false), (3, true)] {
        world.blind(looks);
        let begun = tokio::time::Instant::now();
        if wake_all {
            run.waker.wake_all()
        } else {
            run.waker.wake(world.vm())
        }
        until(&world, "a VM of which nothing is known", is(VmPhase::Unknown)).await;
        until(&world, "a VM that is seen again", is(VmPhase::Running)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(10), "{looks} looks in vain made it blind for {took:?}");
    }
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_vanishes_is_missing_and_is_not_made_again() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    world.lose_domain();
    until(&world, "a missing VM", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Missing)
    })
    .await;
    world.ask_power(DesiredPower::Running);
    run.waker.wake(world.vm());
    until(&world, "the start refused", |world| {
        world.operations().iter().any(|operation| operation.status == OperationStatus::Failed)
    })
    .await;
    assert_eq!(world.domain_state(), None);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ignores_the_power_button_is_forced_after_the_grace() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    world.set_deaf(true);
    let asked = tokio::time::Instant::now();
    world.ask_power(DesiredPower::Stopped);
    run.waker.wake(world.vm());
    until(&world, "a stopped VM", |world| {
        world.status().is_some_and(|status| status.phase == VmPhase::Stopped)
    })
    .await;
    let grace = ReconcileConfig::default().stop_grace;
    assert!(asked.elapsed() >= grace, "the plug was pulled after {:?}", asked.elapsed());
    assert!(asked.elapsed() < grace * 2, "the plug was pulled only after {:?}", asked.elapsed());
    run.stop().await;
}

/// The change was carried out, whatever happened on the way.
fn is_changed(world: &World) -> bool {
    let kind = OperationKind::SetAutostart;
    let mut changes = world.operations().into_iter().filter(|operation| operation.kind == kind);
    changes.any(|operation| operation.status == OperationStatus::Succeeded) && world.is_autostarted()
}

#[tokio::test(start_paused = true)]
async fn a_change_survives_a_crash_at_every_gate() {
    let mut gates = 0;
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = World::with_vm();
            let run = Run::start(&world);
            until(&world, "a running VM", is_ready).await;
            run.stop().await;
            world.ask_change(VmChange::Setting(SettingChange::Autostart(true)));
            any |= through_crash(&world, crash, &format!("the change after {crash:?}"), is_changed).await;
        }
        if !any {
            break;
        }
        gates = gate;
    }
    assert!(gates >= 2, "only {gates} gates were reached: the simulation misses effects");
}

#[tokio::test(start_paused = true)]
async fn a_change_comes_before_the_power_that_was_asked_for_later() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    world.ask_change(VmChange::Guest(GuestChange::Reset));
    run.waker.wake(world.vm());
    until(&world, "the reset", |world| world.resets() == 1 && is_ready(world)).await;
    world.ask_power(DesiredPower::Stopped);
    world.ask_change(VmChange::Setting(SettingChange::Autostart(true)));
    run.waker.wake(world.vm());
    until(&world, "both", |world| is_changed(world) && world.domain_state() == Some(DomainState::Shutoff))
        .await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_made_is_given_up_and_told() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    world.set_faults(vec![true; 20]);
    world.ask_change(VmChange::Guest(GuestChange::Reset));
    run.waker.wake(world.vm());
    until(&world, "the change given up", |world| {
        world.operations().iter().any(|operation| {
            operation.kind == OperationKind::Reset && operation.status == OperationStatus::Failed
        })
    })
    .await;
    assert_eq!(world.resets(), 0);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_resync_does_not_wait_for_the_next_attempt() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    // Four failures wait for 15 s and more together.
    world.set_faults(vec![true; 4]);
    world.ask_change(VmChange::Guest(GuestChange::Reset));
    let asked = tokio::time::Instant::now();
    while world.resets() == 0 {
        run.waker.resync(world.vm()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "it waited\n{}", world.describe());
    }
    run.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Steps fail at random, and the request still ends: in a running VM or in a told failure.
    #[test]
    fn random_failures_end_in_a_ready_vm_or_a_told_failure(faults in proptest::collection::vec(any::<bool>(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::with_vm();
            world.set_faults(faults);
            let run = Run::start(&world);
            until(&world, "an end of the request", |world| {
                is_ready(world) || world.operations().iter().any(|operation| operation.status == OperationStatus::Failed)
            }).await;
            world.set_faults(Vec::new());
            if !is_ready(&world) {
                // Asking again is the retry.
                world.ask_power(DesiredPower::Running);
                run.waker.wake(world.vm());
                until(&world, "a running VM after a retry", |world| {
                    world.status().is_some_and(|status| status.phase == VmPhase::Running)
                }).await;
            }
            world.ask_delete();
            run.waker.wake(world.vm());
            until(&world, "nothing left", World::is_gone).await;
            run.stop().await;
            assert!(world.nothing_is_left(), "left: {}", world.describe());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_adoption_and_a_release_survive_a_crash_at_every_gate() {
    let adopted = |world: &World| {
        let done = world.operations().iter().all(|operation| operation.status == OperationStatus::Succeeded);
        done && world.is_noted()
    };
    let mut gates = [0, 0];
    for gate in 1.. {
        let mut any = false;
        for crash in [Crash::Before(gate), Crash::After(gate)] {
            let world = World::with_adopted();
            if through_crash(&world, crash, &format!("an adopted VM after {crash:?}"), adopted).await {
                (any, gates[0]) = (true, gate);
            } else {
                // The loop still runs to its end here, and the world goes on without it.
                until(&world, "an adopted VM", adopted).await;
            }
            world.ask_change(VmChange::Identity(IdentityChange::Release));
            let gone = |world: &World| world.is_gone();
            if through_crash(&world, crash, &format!("a released VM after {crash:?}"), gone).await {
                (any, gates[1]) = (true, gate);
            }
            assert_eq!(world.domain_state(), Some(DomainState::Running), "{}", world.describe());
            assert!(world.is_unmarked(), "{crash:?} left {}", world.describe());
        }
        if !any {
            break;
        }
    }
    assert!(gates.iter().all(|gate| *gate > 2), "only {gates:?} gates were reached");
}

#[tokio::test(start_paused = true)]
async fn a_domain_is_told_what_it_is_when_that_changes_and_at_no_other_time() {
    let world = World::with_vm();
    let run = Run::start(&world);
    until(&world, "a running VM", is_ready).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.notes(), 1, "once it was installed: {}", world.describe());
    world.ask_power(DesiredPower::Stopped);
    run.waker.wake_all();
    until(&world, "a VM that is off", |world| world.domain_state() == Some(DomainState::Shutoff)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.notes(), 1, "power is not noted: {}", world.describe());
    run.stop().await;
}
