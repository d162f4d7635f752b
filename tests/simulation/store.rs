//! The simulated store: the database, over a connection that may fail before or after it was written,
//! or say nothing.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use infinibay::{
    reconcile::LoopStore,
    store::{ChangeOutcome, StoreError, VmBundle},
    vm::{
        Base, Milestone, Operation, OperationError, OperationId, OperationKind, OperationStatus, Resource,
        ResourceState, UserId, VmChange, VmId, VmStatus,
    },
};

use super::{controller::Ports, watch::Seen, world::State};

/// How long the database is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    Fails,
    Lies,
    Silent { commits: Option<Duration> },
}

fn away(operation: &'static str) -> StoreError {
    StoreError::Database { operation, source: sqlx::Error::PoolTimedOut }
}

impl State {
    fn draw_store_fate(&mut self) -> Fate {
        let fate = self.draw_fate_of_statement();
        if fate != Fate::Good {
            self.watch.frost.hinder(None);
        }
        fate
    }

    fn draw_fate_of_statement(&mut self) -> Fate {
        let faults = self.faults.clone();
        if self.database.is_away {
            return Fate::Fails;
        }
        if self.chance.one_in(faults.store_fail) {
            Fate::Fails
        } else if self.chance.one_in(faults.store_lie) {
            Fate::Lies
        } else if self.chance.one_in(faults.store_silent) {
            let later = self.chance.seconds(0, 5);
            Fate::Silent { commits: self.chance.one_in(2).then_some(PATIENCE + later) }
        } else {
            Fate::Good
        }
    }
}

impl Ports {
    async fn say_nothing(&self) {
        tokio::time::sleep(PATIENCE).await;
        self.world.state().watch.frost.hinder(None);
    }

    async fn read_rows<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&State) -> T + Send,
    ) -> Result<T, StoreError> {
        self.world.point(self.life, "before a read").await;
        let fate = {
            let mut state = self.world.state();
            state.draw_store_fate()
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        match fate {
            Fate::Good | Fate::Lies => Ok(work(&self.world.state())),
            Fate::Fails => Err(away(name)),
            Fate::Silent { .. } => {
                self.say_nothing().await;
                Err(StoreError::NoAnswer { limit: PATIENCE })
            }
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.world.point(self.life, &format!("before {name}")).await;
        let (fate, takes) = {
            let mut state = self.world.state();
            (state.draw_store_fate(), state.chance.millis(1, 10))
        };
        tokio::time::sleep(takes).await;
        let outcome = match fate {
            Fate::Good => work(&mut self.world.state()),
            Fate::Fails => Err(away(name)),
            Fate::Lies => {
                let mut state = self.world.state();
                state.note(format_args!("{name}: a lie"));
                let done = work(&mut state);
                done.and(Err(away(name)))
            }
            Fate::Silent { commits } => {
                if let Some(commits) = commits {
                    self.world.later(commits, move |world| {
                        let mut state = world.state();
                        state.note(format_args!("{name} is written late"));
                        drop(work(&mut state));
                    });
                }
                self.say_nothing().await;
                Err(StoreError::NoAnswer { limit: PATIENCE })
            }
        };
        self.world.point(self.life, &format!("after {name}")).await;
        outcome
    }

    async fn on_vm(
        &self,
        name: &'static str,
        vm: VmId,
        work: impl FnOnce(&mut VmBundle) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.write(name, move |state| state.database.vms.get_mut(&vm).map(work).ok_or(StoreError::NotFound))
            .await
    }
}

#[async_trait]
impl LoopStore for Ports {
    async fn load_host(&self) -> Result<Vec<VmBundle>, StoreError> {
        self.read_rows("load_host", |state| state.database.vms.values().cloned().collect()).await
    }

    async fn load_vm(&self, vm: VmId) -> Result<Option<VmBundle>, StoreError> {
        self.read_rows("load_vm", |state| state.database.vms.get(&vm).cloned()).await
    }

    async fn pass_milestone(
        &self,
        vm: VmId,
        milestone: Milestone,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.world.state().judge_milestone(vm, milestone);
        self.write("pass_milestone", move |state| {
            let bundle = state.database.vms.get_mut(&vm).ok_or(StoreError::NotFound)?;
            let is_new = bundle.record.milestones.at(milestone).is_none();
            bundle.record.milestones.pass(milestone, at);
            let is_installed =
                bundle.record.spec.installation().is_some() && milestone == Milestone::BootReplaced;
            state.watch.installs += u32::from(is_new && is_installed);
            let label = state.label(vm);
            state.note(format_args!("{label} passes {milestone:?}"));
            Ok(())
        })
        .await
    }

    async fn satisfy(&self, vm: VmId, generation: i64) -> Result<(), StoreError> {
        // What the loop was shown until now is what it judges by.
        let shown: Vec<(u64, Seen)> = self.world.state().watch.fresh(vm).collect();
        self.write("satisfy", move |state| {
            state.judge_satisfaction(vm, generation, &shown);
            let bundle = state.database.vms.get_mut(&vm).ok_or(StoreError::NotFound)?;
            let intent = &mut bundle.record.intent;
            if generation > intent.satisfied {
                intent.satisfied = generation;
                // What changed after the look is not what was looked at; which of the looks it was, only
                // the loop knows.
                let seen_at = shown.iter().map(|(begun, _)| *begun).min();
                if state.watch.disturbed.get(&vm).copied() <= seen_at {
                    state.watch.disturbed.remove(&vm);
                }
                let label = state.label(vm);
                state.note(format_args!("{label} is satisfied with generation {generation}"));
            }
            Ok(())
        })
        .await
    }

    async fn give_up(
        &self,
        vm: VmId,
        generation: i64,
        error: &OperationError,
        now: DateTime<Utc>,
    ) -> Result<Vec<Operation>, StoreError> {
        let error = error.clone();
        self.write("give_up", move |state| {
            let label = state.label(vm);
            state.note(format_args!("{label}: generation {generation} is given up ({})", error.code));
            let bundle = state.database.vms.get_mut(&vm).ok_or(StoreError::NotFound)?;
            let intent = &mut bundle.record.intent;
            intent.satisfied = intent.satisfied.max(generation);
            intent.given_up = intent.given_up.max(generation);
            Ok(state.database.end(vm, OperationStatus::Failed, Some(&error), now, |open| {
                open.generation <= generation && open.kind != OperationKind::Delete
            }))
        })
        .await
    }

    async fn save_status(&self, vm: VmId, status: &VmStatus) -> Result<(), StoreError> {
        let status = status.clone();
        self.on_vm("save_status", vm, move |bundle| bundle.status = Some(status)).await
    }

    async fn progress_operation(
        &self,
        id: OperationId,
        progress: i32,
        stage: &str,
    ) -> Result<Option<Operation>, StoreError> {
        let stage = stage.to_owned();
        self.write("progress_operation", move |state| {
            let open = state.database.vms.values_mut().flat_map(|bundle| &mut bundle.operations);
            if let Some(operation) = open.into_iter().find(|operation| operation.id == id) {
                operation.status = OperationStatus::Running;
                operation.progress = progress.clamp(0, 100);
                operation.stage = stage;
            }
            Ok(state.database.operation(id))
        })
        .await
    }

    async fn finish_operation(
        &self,
        id: OperationId,
        status: OperationStatus,
        error: Option<OperationError>,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        self.write("finish_operation", move |state| {
            if let Some(vm) = state.database.open(id).map(|operation| operation.vm) {
                let ended = state.database.end(vm, status, error.as_ref(), now, |open| open.id == id);
                let label = state.label(vm);
                for operation in ended {
                    let code = operation.error.as_ref().map_or("", |error| error.code.as_str());
                    state.note(format_args!("{label}: {:?} ends as {status:?} {code}", operation.kind));
                }
            }
            Ok(state.database.operation(id))
        })
        .await
    }

    async fn note_change(&self, id: OperationId, change: &VmChange) -> Result<(), StoreError> {
        let change = change.clone();
        self.write("note_change", move |state| {
            let operations = state.database.vms.values_mut().flat_map(|bundle| &mut bundle.operations);
            for operation in operations.filter(|operation| operation.id == id) {
                operation.change = Some(change.clone());
            }
            Ok(())
        })
        .await
    }

    async fn user_name(&self, _user: UserId) -> Result<Option<String>, StoreError> {
        self.read_rows("user_name", |_| Some("somebody".to_owned())).await
    }

    async fn finish_change(
        &self,
        vm: VmId,
        id: OperationId,
        outcome: &ChangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        let outcome = outcome.clone();
        self.write("finish_change", move |state| {
            state.judge_change(vm, id);
            let open = state.database.open(id).cloned();
            let name = outcome.spec.as_ref().map(|spec| spec.name.clone());
            let mut others = state.database.vms.iter().filter(|(other, _)| **other != vm);
            if open.is_some() && others.any(|(_, other)| Some(&other.record.spec.name) == name.as_ref()) {
                return Err(StoreError::NameTaken);
            }
            if outcome.released && open.is_some() {
                state.database.end(vm, OperationStatus::Succeeded, None, now, |open| open.id == id);
                state.database.end(vm, OperationStatus::Superseded, None, now, |_| true);
                state.database.vms.remove(&vm);
                let label = state.label(vm);
                state.note(format_args!("{label} is released"));
                return Ok(state.database.operation(id));
            }
            if let Some((bundle, open)) = state.database.vms.get_mut(&vm).zip(open) {
                for operation in bundle.operations.iter_mut().filter(|operation| operation.id == id) {
                    operation.effect = outcome.effect.or(operation.effect);
                }
                if let Some(spec) = outcome.spec {
                    bundle.record.spec = spec;
                }
                // Whoever asked for power since is heard.
                let is_last = bundle.record.intent.generation == open.generation;
                if let Some(power) = outcome.power.filter(|_| is_last) {
                    bundle.record.intent.power = power;
                    // As it was put back, so it is wanted.
                    let (disturbed, reverted) =
                        (state.watch.disturbed.get(&vm), state.watch.reverted.get(&vm));
                    if disturbed == reverted {
                        state.watch.disturbed.remove(&vm);
                    }
                }
                state.database.end(vm, OperationStatus::Succeeded, None, now, |open| open.id == id);
                let label = state.label(vm);
                state.note(format_args!("{label}: the change is done"));
            }
            Ok(state.database.operation(id))
        })
        .await
    }

    async fn reserve_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        let resource = resource.clone();
        self.on_vm("reserve_resource", resource.vm, move |bundle| {
            if !bundle.resources.iter().any(|row| is_same(row, &resource)) {
                bundle.resources.push(Resource { state: ResourceState::Creating, ..resource });
                sort(&mut bundle.resources);
            }
        })
        .await
    }

    async fn resource_created(&self, resource: &Resource) -> Result<(), StoreError> {
        let resource = Resource { state: ResourceState::Created, ..resource.clone() };
        self.world.state().judge_copied(resource.vm, &resource.name);
        self.on_vm("resource_created", resource.vm, move |bundle| {
            bundle.resources.retain(|row| !is_same(row, &resource));
            bundle.resources.push(resource);
            sort(&mut bundle.resources);
        })
        .await
    }

    async fn release_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        let resource = resource.clone();
        self.write("release_resource", move |state| {
            state.judge_release(&resource);
            if let Some(bundle) = state.database.vms.get_mut(&resource.vm) {
                bundle.resources.retain(|row| !is_same(row, &resource));
            }
            Ok(())
        })
        .await
    }

    async fn forget_secrets(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.on_vm("forget_secrets", vm, move |bundle| {
            let spec = &mut bundle.record.spec;
            spec.unattended = spec.unattended.without_secrets();
            if let Base::Installation(installation) = &mut spec.base {
                installation.token = None;
            }
            bundle.record.milestones.pass(Milestone::SeedScrubbed, now);
        })
        .await
    }

    async fn finish_delete(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.world.state().judge_destruction(vm, "forgetting", &[Seen::Absent]);
        self.write("finish_delete", move |state| {
            let Some(bundle) = state.database.vms.get(&vm) else { return Ok(()) };
            if !bundle.record.intent.deleting {
                let label = state.label(vm);
                state.violate(format_args!("{label} was forgotten, and nobody asked for its end"));
                let reason = "not being deleted".to_owned();
                return Err(StoreError::Corrupt { operation: "finish_delete", reason });
            }
            state.judge_end(vm);
            let is_delete = |open: &Operation| open.kind == OperationKind::Delete;
            state.database.end(vm, OperationStatus::Succeeded, None, now, is_delete);
            state.database.end(vm, OperationStatus::Superseded, None, now, |_| true);
            state.database.vms.remove(&vm);
            let label = state.label(vm);
            state.note(format_args!("{label} is forgotten"));
            Ok(())
        })
        .await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.read_rows("operation", |state| state.database.operation(id)).await
    }
}

fn is_same(one: &Resource, other: &Resource) -> bool {
    (one.kind, &one.place, &one.name) == (other.kind, &other.place, &other.name)
}

fn sort(rows: &mut [Resource]) {
    rows.sort_by_key(|row| (format!("{:?}", row.kind), row.place.clone(), row.name.clone()));
}

impl State {
    /// Whether the VM's guest is to power off.
    pub fn is_asked_to_stop(&self, vm: VmId) -> bool {
        self.database.vms.get(&vm).is_none_or(|bundle| {
            let intent = &bundle.record.intent;
            intent.deleting || (intent.is_open() && intent.power.is_off())
        })
    }
}
