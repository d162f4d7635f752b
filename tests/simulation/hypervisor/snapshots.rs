//! A domain's snapshots, and its guest's file systems.

use async_trait::async_trait;
use infinibay::{
    hypervisor::{FileSystems, Freeze, HypervisorError, RevertTo, SnapshotRequest, Snapshots, Thaw},
    store::VmBundle,
    vm::{
        DomainState, OperationId, Snapshot, SnapshotChange, SnapshotName, SnapshotState, SnapshotTag,
        VmChange, VmId,
    },
};

use super::{LIMIT, invalid, not_found};
use crate::simulation::{
    controller::Ports,
    guests,
    host::{Domain, Shot},
    world::State,
};

/// libvirt's words for why a domain is off: it was put back to a snapshot.
const FROM_SNAPSHOT: i32 = 7;

impl Domain {
    /// Takes a snapshot of it as it is.
    pub fn shoot(&mut self, name: String, tag: Option<SnapshotTag>, at: chrono::DateTime<chrono::Utc>) {
        let running = self.state.is_active();
        let (parent, config) = (self.current.replace(name.clone()), self.config.clone());
        self.shots.push(Shot { name, parent, tag, at, running, at_rest: self.is_frozen, config });
    }

    fn forget_shot(&mut self, name: &str, children: bool) {
        let mut gone = vec![name.to_owned()];
        while let Some(name) = gone.pop() {
            let Some(index) = self.shots.iter().position(|shot| shot.name == name) else { continue };
            let parent = self.shots.remove(index).parent;
            for child in self.shots.iter_mut().filter(|shot| shot.parent.as_ref() == Some(&name)) {
                match children {
                    true => gone.push(child.name.clone()),
                    false => child.parent.clone_from(&parent),
                }
            }
            if self.current.as_ref() == Some(&name) {
                self.current = parent;
            }
        }
    }

    fn shown(&self) -> Vec<Snapshot> {
        let shown = self.shots.iter().map(|shot| Snapshot {
            name: shot.name.clone(),
            parent: shot.parent.clone(),
            description: String::new(),
            created_at: shot.at,
            state: match (shot.running, shot.tag.is_none_or(|tag| tag.memory)) {
                (false, _) => SnapshotState::Shutoff,
                (true, true) => SnapshotState::Running,
                (true, false) => SnapshotState::Disk,
            },
            current: self.current.as_ref() == Some(&shot.name),
            tag: shot.tag,
        });
        shown.collect()
    }
}

impl Ports {
    async fn shots(&self, id: VmId, name: &'static str) -> Result<Vec<Snapshot>, HypervisorError> {
        let seen = self.read(id, name, move |state| {
            let works = state.host.calls.iter().any(|call| call.vm == id && call.name.ends_with("_snapshot"));
            (works, state.host.domains.get(&id).map(Domain::shown))
        });
        match seen.await? {
            (true, _) => Err(HypervisorError::Deadline { operation: name.to_owned(), limit: LIMIT }),
            (false, shots) => shots.ok_or_else(|| not_found(name)),
        }
    }
}

fn is(change: &VmChange, fits: impl Fn(&SnapshotChange) -> bool) -> bool {
    matches!(change, VmChange::Snapshot(change) if fits(change))
}

fn creates(change: &VmChange) -> bool {
    is(change, |it| matches!(it, SnapshotChange::Create(_)))
}

#[async_trait]
impl Snapshots for Ports {
    async fn snapshots(&self, id: VmId) -> Result<Vec<Snapshot>, HypervisorError> {
        self.shots(id, "snapshots").await
    }

    async fn snapshot_names(&self, id: VmId) -> Result<Vec<String>, HypervisorError> {
        let shots = self.shots(id, "snapshot_names").await?;
        Ok(shots.into_iter().map(|shot| shot.name).collect())
    }

    async fn snapshot(&self, id: VmId, name: &SnapshotName) -> Result<Option<Snapshot>, HypervisorError> {
        let shots = self.shots(id, "snapshot").await?;
        Ok(shots.into_iter().find(|shot| shot.name == name.as_str()))
    }

    async fn create_snapshot(&self, id: VmId, request: SnapshotRequest) -> Result<(), HypervisorError> {
        self.world.state().judge_asked(id, "create_snapshot", creates);
        self.call(id, "create_snapshot", move |world| {
            let mut state = world.state();
            let now = state.now;
            let domain = state.domain("create_snapshot", id)?;
            let name = request.name.to_string();
            if domain.shots.iter().any(|shot| shot.name == name) {
                return Err(invalid("create_snapshot", "the name is taken"));
            }
            if domain.state == DomainState::Crashed {
                return Err(invalid("create_snapshot", "the domain crashed"));
            }
            domain.shoot(name, Some(request.tag), now);
            Ok(())
        })
        .await
    }

    async fn revert_snapshot(
        &self,
        id: VmId,
        name: &SnapshotName,
        to: RevertTo,
    ) -> Result<(), HypervisorError> {
        let reverts = |change: &VmChange| is(change, |it| matches!(it, SnapshotChange::Revert { .. }));
        {
            let mut state = self.world.state();
            state.judge_asked(id, "revert_snapshot", reverts);
            state.judge_revert(id, name);
        }
        let operation = self.world.state().open_change(id);
        let name = name.to_string();
        self.call(id, "revert_snapshot", move |world| {
            let mut state = world.state();
            let domain = state.domain("revert_snapshot", id)?;
            let shot = domain.shots.iter().find(|shot| shot.name == name).cloned();
            let shot = shot.ok_or_else(|| not_found("revert_snapshot"))?;
            domain.current = Some(shot.name);
            domain.config = shot.config;
            domain.saved = None;
            domain.reverts += 1;
            if domain.state.is_active() {
                state.host.power_off(id, FROM_SNAPSHOT, true);
            }
            if to == RevertTo::Running {
                state.host.power_on(id);
            } else if let Some(domain) = state.host.domains.get_mut(&id) {
                (domain.state, domain.reason) = (DomainState::Shutoff, FROM_SNAPSHOT);
            }
            if let Some(domain) = state.host.domains.get_mut(&id) {
                domain.reverted_by = operation.map(|operation| (operation, domain.instance));
            }
            state.disturb(id);
            let tick = state.tick;
            state.watch.reverted.insert(id, tick);
            drop(state);
            if to == RevertTo::Running {
                guests::boot(world, id);
            }
            Ok(())
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        id: VmId,
        name: &SnapshotName,
        children: bool,
    ) -> Result<(), HypervisorError> {
        // One that was taken of a guest thawed too early goes too.
        let asked = |change: &VmChange| {
            is(change, |it| matches!(it, SnapshotChange::Delete { .. } | SnapshotChange::Create(_)))
        };
        self.world.state().judge_asked(id, "delete_snapshot", asked);
        let name = name.to_string();
        self.call(id, "delete_snapshot", move |world| {
            world.state().domain("delete_snapshot", id)?.forget_shot(&name, children);
            Ok(())
        })
        .await
    }

    async fn instance(&self, id: VmId) -> Result<Option<u32>, HypervisorError> {
        self.read(id, "instance", move |state| {
            let domain = state.host.domains.get(&id).filter(|domain| domain.state.is_active());
            domain.map(|domain| domain.instance)
        })
        .await
    }
}

impl State {
    fn open_change(&self, vm: VmId) -> Option<OperationId> {
        let mut open = self.database.vms.get(&vm)?.operations.iter();
        open.find(|operation| operation.change.is_some()).map(|operation| operation.id)
    }

    /// A guest that was put back and runs is not put back once more: what it did since would be lost.
    fn judge_revert(&mut self, vm: VmId, name: &SnapshotName) {
        let open = self.open_change(vm);
        let again = self.host.domains.get(&vm).is_some_and(|domain| {
            domain.state.is_active()
                && domain.current.as_deref() == Some(name.as_str())
                && domain
                    .reverted_by
                    .is_some_and(|(by, instance)| Some(by) == open && instance == domain.instance)
        });
        if again && !self.watch.haunted.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("{label} was put back, goes on from there, and is put back again"));
        }
    }

    pub fn hears(&self, vm: VmId) -> bool {
        let hears =
            |domain: &Domain| domain.has_agent && domain.is_up && domain.state == DomainState::Running;
        self.host.domains.get(&vm).is_some_and(hears)
    }
}

#[async_trait]
impl FileSystems for Ports {
    async fn can_freeze(&self, id: VmId) -> Result<bool, HypervisorError> {
        self.call_agent(id, "can_freeze", move |world| Ok(world.state().hears(id))).await
    }

    async fn freeze(&self, id: VmId) -> Result<Freeze, HypervisorError> {
        {
            let mut state = self.world.state();
            state.judge_asked(id, "freeze", creates);
            let noted = state.is_asked(id, VmChange::may_be_frozen);
            // One that is being deleted is asked for nothing any more.
            let stays = |bundle: &VmBundle| !bundle.record.intent.deleting;
            let stays = state.database.vms.get(&id).is_some_and(stays);
            if !noted && stays && !state.watch.haunted.contains(&id) {
                state.violate(format_args!("a guest is frozen before that was written down"));
            }
        }
        self.call_agent(id, "freeze", move |world| {
            let mut state = world.state();
            if !state.hears(id) {
                return Ok(Freeze::Doubtful);
            }
            let doubtful = state.chance.one_in(6);
            state.watch.freezes += 1;
            state.domain("freeze", id)?.is_frozen = true;
            Ok(if doubtful { Freeze::Doubtful } else { Freeze::Frozen })
        })
        .await
    }

    async fn thaw(&self, id: VmId) -> Result<Thaw, HypervisorError> {
        self.call_agent(id, "thaw", move |world| {
            let mut state = world.state();
            let hears = state.hears(id);
            let Ok(domain) = state.domain("thaw", id) else { return Ok(Thaw::Off) };
            match domain.state {
                DomainState::Paused | DomainState::Suspended => return Ok(Thaw::Halted),
                DomainState::Shutoff | DomainState::Crashed => return Ok(Thaw::Off),
                _ if !hears => return Err(invalid("thaw", "the agent does not answer")),
                _ => {}
            }
            Ok(Thaw::Thawed(u32::from(std::mem::take(&mut domain.is_frozen))))
        })
        .await
    }
}
