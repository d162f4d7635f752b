//! How a call that changes something goes: well, badly, slowly, or past its deadline.

use std::{sync::Arc, time::Duration};

use infinibay::{
    hypervisor::HypervisorError,
    vm::{DesiredPower, VmId},
};
use tokio::sync::oneshot;

use super::{DESTROYED, LIMIT, invalid, unreachable};
use crate::simulation::{
    controller::Ports,
    host::{Call, File, Volume},
    world::{Event, State, World},
};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// It does nothing and says so.
    Fails,
    /// It does its work and says that it failed.
    Lies,
    /// The connection breaks under it: its caller knows nothing, and it may go on.
    Breaks,
}

impl Ports {
    /// A call to libvirt that changes something about the VM.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        vm: VmId,
        name: &'static str,
        effect: impl FnOnce(&Arc<World>) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.work(vm, name, false, effect).await
    }

    /// A call to the guest's agent, which passes beside those to the domain.
    pub(super) async fn call_agent<T: Send + 'static>(
        &self,
        vm: VmId,
        name: &'static str,
        effect: impl FnOnce(&Arc<World>) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.work(vm, name, true, effect).await
    }

    async fn work<T: Send + 'static>(
        &self,
        vm: VmId,
        name: &'static str,
        agent: bool,
        effect: impl FnOnce(&Arc<World>) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.world.point(self.life, &format!("before {name}")).await;
        let begun = self.begin(vm, name, true, agent);
        let (number, fate, takes) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // Even a refusal takes a moment.
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Err(error);
            }
        };
        let (tell, told) = oneshot::channel();
        tokio::spawn(at_work(Arc::clone(&self.world), number, fate, takes, effect, tell));
        let outcome = self.wait(number, name, told).await;
        if fate != Fate::Good || takes > LIMIT {
            self.world.state().watch.frost.hinder(Some(vm));
        }
        self.world.point(self.life, &format!("after {name}")).await;
        outcome
    }

    async fn wait<T>(
        &self,
        number: u64,
        name: &'static str,
        told: oneshot::Receiver<Result<T, HypervisorError>>,
    ) -> Result<T, HypervisorError> {
        match tokio::time::timeout(LIMIT, told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unreachable(name)),
            Err(_) => {
                let mut state = self.world.state();
                if let Some(call) = state.host.calls.iter_mut().find(|call| call.number == number) {
                    call.late = true;
                }
                state.note(format_args!("{name} is past its deadline"));
                Err(HypervisorError::Deadline { operation: name.to_owned(), limit: LIMIT })
            }
        }
    }

    /// Lets a call in, and draws what becomes of it.
    fn begin(
        &self,
        vm: VmId,
        name: &'static str,
        mutates: bool,
        agent: bool,
    ) -> Result<(u64, Fate, Duration), HypervisorError> {
        let mut state = self.world.state();
        let label = state.label(vm);
        let own = |call: &&Call| call.vm == vm && call.life == self.life && call.agent == agent;
        let mut others = state.host.calls.iter().filter(own);
        if let Some(other) =
            others.find(|call| mutates && call.mutates && !call.broken && !(agent && call.late)).cloned()
        {
            state.violate(format_args!("{name} of {label} while {} is under way: two writers", other.name));
        }
        if state.host.is_late(self.life, vm, agent) {
            return Err(HypervisorError::Deadline { operation: name.to_owned(), limit: LIMIT });
        }
        if !state.host.reachable {
            return Err(unreachable(name));
        }
        let fate = state.draw_fate(mutates);
        let takes = state.draw_time();
        if fate != Fate::Good || takes > LIMIT {
            state.watch.frost.hinder(Some(vm));
        }
        let number = state.host.next_call;
        state.host.next_call += 1;
        let broken = false;
        let life = self.life;
        state.host.calls.push(Call { number, life, vm, name, mutates, agent, late: false, broken });
        if mutates {
            state.note(format_args!("{name} {label}: {fate:?} in {takes:?}"));
        }
        Ok((number, fate, takes))
    }

    /// libvirt lets it pass beside a call that is late. Nobody has seen the domain since, so that only a
    /// request is a reason for it.
    pub(super) async fn destroy_beside(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.world.point(self.life, "before destroy beside").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        {
            let mut state = self.world.state();
            if !state.host.reachable {
                return Err(unreachable("destroy"));
            }
            let label = state.label(vm);
            let asked = state.database.vms.get(&vm).is_some_and(|bundle| {
                let intent = &bundle.record.intent;
                // Another request may have come since it was planned.
                intent.deleting || intent.is_open() || intent.power == DesiredPower::ForcedOff
            });
            if !asked {
                state.violate(format_args!("{label} was destroyed beside a late call, and nobody asked"));
            }
            state.note(format_args!("destroy {label} beside a late call"));
            let runs = state.host.domains.get(&vm).is_some_and(|domain| domain.state.is_active());
            if runs {
                let clean = state.chance.one_in(2);
                state.host.power_off(vm, DESTROYED, clean);
            }
            state.touch(vm);
        }
        self.world.point(self.life, "after destroy beside").await;
        Ok(())
    }

    /// A call that changes nothing. What it gives is from when it began, and it ends when it ends.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        vm: VmId,
        name: &'static str,
        work: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.world.point(self.life, &format!("before {name}")).await;
        let (number, fate, takes) = self.begin(vm, name, false, false)?;
        let (tell, told) = oneshot::channel();
        let world = Arc::clone(&self.world);
        let seen = work(&mut world.state());
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            let outcome = match fate {
                Fate::Good => Ok(seen),
                Fate::Fails | Fate::Lies => Err(invalid(name, "a fault")),
                Fate::Breaks => Err(unreachable(name)),
            };
            world.end_of(number);
            // Nobody may wait for it any more.
            drop(tell.send(outcome));
        });
        let outcome = self.wait(number, name, told).await;
        if fate != Fate::Good || takes > LIMIT {
            self.world.state().watch.frost.hinder(Some(vm));
        }
        outcome
    }
}

impl State {
    fn draw_fate(&mut self, mutates: bool) -> Fate {
        let faults = self.faults.clone();
        if !mutates {
            return if self.chance.one_in(faults.blind) { Fate::Fails } else { Fate::Good };
        }
        if self.chance.one_in(faults.fail) {
            Fate::Fails
        } else if self.chance.one_in(faults.lie) {
            Fate::Lies
        } else if self.chance.one_in(faults.broken) {
            Fate::Breaks
        } else {
            Fate::Good
        }
    }

    fn draw_time(&mut self) -> Duration {
        let (hang, slow) = (self.faults.hang, self.faults.slow);
        if self.chance.one_in(hang) {
            LIMIT + self.chance.seconds(1, 120)
        } else if self.chance.one_in(slow) {
            self.chance.seconds(1, 20)
        } else {
            self.chance.millis(1, 100)
        }
    }

    /// A thing is made: a row has to name it already.
    pub fn has_row(&mut self, vm: VmId, kind: infinibay::vm::ResourceKind, what: &str) {
        let bundle = self.database.vms.get(&vm);
        let is_it = |row: &infinibay::vm::Resource| {
            row.kind == kind && (kind != infinibay::vm::ResourceKind::Volume || row.name == what)
        };
        let named = bundle.is_some_and(|bundle| bundle.resources.iter().any(is_it));
        if !named && !self.watch.haunted.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("{what} of {label} was made, and no row names it"));
        }
    }
}

impl World {
    /// A call has returned.
    fn end_of(self: &Arc<Self>, number: u64) {
        let mut state = self.state();
        let Some(index) = state.host.calls.iter().position(|call| call.number == number) else { return };
        let call = state.host.calls.remove(index);
        let is_own = call.life == state.life;
        if call.mutates && is_own && !call.broken && !call.agent {
            state.touch(call.vm);
        }
        drop(state);
        if call.late && is_own {
            self.tell(Event::Domain(call.vm));
        }
    }
}

/// A call, at work in libvirtd: it goes on whoever waits for it.
async fn at_work<T>(
    world: Arc<World>,
    number: u64,
    fate: Fate,
    takes: Duration,
    effect: impl FnOnce(&Arc<World>) -> Result<T, HypervisorError> + Send + 'static,
    tell: oneshot::Sender<Result<T, HypervisorError>>,
) {
    let mut tell = Some(tell);
    let call = world.state().host.calls.iter().find(|call| call.number == number).cloned();
    let Some(call) = call else { return };
    if fate == Fate::Breaks {
        let mut state = world.state();
        state.watch.haunted.insert(call.vm);
        if let Some(call) = state.host.calls.iter_mut().find(|call| call.number == number) {
            call.broken = true;
        }
        state.touch(call.vm);
        drop(state);
        drop(tell.take().map(|tell| tell.send(Err(unreachable(call.name)))));
    }
    // libvirt lets one job at a time work on a domain.
    loop {
        let first = {
            let state = world.state();
            let is_same = |other: &&Call| other.vm == call.vm && other.mutates && other.agent == call.agent;
            let mut same = state.host.calls.iter().filter(is_same);
            same.next().is_none_or(|other| other.number == number)
        };
        if first {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(takes).await;
    let is_orphan = {
        let mut state = world.state();
        if !state.host.calls.iter().any(|other| other.number == number) {
            // The host went down under it.
            return;
        }
        let orphan = fate == Fate::Breaks || state.life != call.life || state.crashed;
        if orphan {
            state.watch.haunted.insert(call.vm);
        }
        orphan
    };
    let dropped = is_orphan && world.state().chance.one_in(2);
    let outcome = if fate == Fate::Fails || dropped {
        leave_half(&world, &call);
        Err(invalid(call.name, "a fault"))
    } else {
        let outcome = effect(&world);
        let mut state = world.state();
        let label = state.label(call.vm);
        state.note(format_args!(
            "{} {label} done: {}",
            call.name,
            if outcome.is_ok() { "ok" } else { "refused" }
        ));
        if is_orphan {
            state.disturb(call.vm);
        }
        if fate == Fate::Lies { Err(invalid(call.name, "a lie")) } else { outcome }
    };
    world.end_of(number);
    world.tell(Event::Domain(call.vm));
    // Nobody may wait for it any more.
    drop(tell.take().map(|tell| tell.send(outcome)));
}

/// What a broken-off making leaves behind.
fn leave_half(world: &World, call: &Call) {
    let mut state = world.state();
    if call.name == "create_overlay" && state.chance.one_in(2) {
        let key = (crate::simulation::host::POOL.to_owned(), format!("infinibay-{}.qcow2", call.vm));
        let half = Volume {
            vm: Some(call.vm),
            whole: false,
            installed: false,
            has_system: false,
            spoiled: false,
            bytes: 0,
        };
        state.host.volumes.entry(key).or_insert(half);
    }
    let is_ours = state.host.domains.get(&call.vm).is_some_and(|domain| !domain.is_foreign);
    if call.name == "start" && state.chance.one_in(2) && is_ours {
        // QEMU came up, made its things, and died.
        let vm = call.vm;
        state.host.files.entry(format!("/console/vm-{vm}.log").into()).or_insert(File::Other { vm });
    }
}
