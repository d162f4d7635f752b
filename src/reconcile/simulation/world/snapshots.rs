//! Snapshots, and a guest whose file systems can be frozen, simulated.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{State, World};
use crate::{
    domain_xml::Hardware,
    hypervisor::{
        FileSystems, Freeze, HypervisorError, HypervisorEvent, RevertTo, SnapshotRequest, Snapshots, Thaw,
    },
    vm::{DesiredPower, DomainState, Snapshot, SnapshotName, SnapshotState, SnapshotTag, VmId},
};

/// How long a caller waits for a call.
const LIMIT: Duration = Duration::from_secs(30);

/// What a call does that does not return in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reconcile::simulation) enum Hang {
    /// The guest runs on, until the snapshot is taken at the end.
    Running(Duration),
    /// The guest is halted while its memory is written.
    Halted(Duration),
}

#[derive(Debug)]
struct Shot {
    name: String,
    parent: Option<String>,
    tag: Option<SnapshotTag>,
    at: DateTime<Utc>,
    running: bool,
    /// Whether the file systems were frozen when it was taken.
    at_rest: bool,
    config: Hardware,
}

/// What the host and its guest hold.
#[derive(Debug, Default)]
pub(super) struct Shots {
    taken: Vec<Shot>,
    current: Option<String>,
    frozen: Option<tokio::time::Instant>,
    longest: Duration,
    freezes: u32,
    has_agent: bool,
    failing_thaws: u32,
    instance: u32,
    reverts: u32,
    hang: Option<Hang>,
    at_work: bool,
    late: bool,
}

impl Shots {
    /// A new process of the domain, whose guest has nothing frozen.
    pub(super) fn boot(&mut self) {
        self.instance += 1;
        self.frozen = None;
    }

    /// The process that waited is gone.
    pub(super) fn forget_late(&mut self) {
        self.late = false;
    }
}

impl State {
    fn take(&mut self, request: &SnapshotRequest, at: DateTime<Utc>) {
        let name = request.name.to_string();
        assert!(self.shots.taken.iter().all(|shot| shot.name != name), "a name was given twice");
        self.shots.taken.push(Shot {
            name: name.clone(),
            parent: self.shots.current.replace(name),
            tag: Some(request.tag),
            at,
            running: self.domain != Some(DomainState::Shutoff),
            at_rest: self.shots.frozen.is_some(),
            config: self.plugs.config.clone(),
        });
    }
}

impl World {
    pub(in crate::reconcile::simulation) fn give_agent(&self) {
        self.state().shots.has_agent = true;
    }

    pub(in crate::reconcile::simulation) fn fail_thaws(&self, times: u32) {
        self.state().shots.failing_thaws = times;
    }

    pub(in crate::reconcile::simulation) fn hang_next_snapshot(&self, hang: Hang) {
        self.state().shots.hang = Some(hang);
    }

    /// One that somebody else took.
    pub(in crate::reconcile::simulation) fn add_snapshot(&self, name: &str, running: bool) {
        let at = crate::reconcile::ports::Clock::now(self);
        let mut state = self.state();
        let parent = state.shots.current.replace(name.to_owned());
        let config = state.plugs.config.clone();
        let shot = Shot { name: name.to_owned(), parent, tag: None, at, running, at_rest: false, config };
        state.shots.taken.push(shot);
    }

    /// Name, note, and whether the file systems were at rest in truth.
    pub(in crate::reconcile::simulation) fn snapshots_taken(
        &self,
    ) -> Vec<(String, Option<SnapshotTag>, bool)> {
        let state = self.state();
        state.shots.taken.iter().map(|shot| (shot.name.clone(), shot.tag, shot.at_rest)).collect()
    }

    pub(in crate::reconcile::simulation) fn is_frozen(&self) -> bool {
        self.state().shots.frozen.is_some()
    }

    /// How long a guest was frozen at most.
    pub(in crate::reconcile::simulation) fn longest_freeze(&self) -> Duration {
        self.state().shots.longest
    }

    pub(in crate::reconcile::simulation) fn freezes(&self) -> u32 {
        self.state().shots.freezes
    }

    pub(in crate::reconcile::simulation) fn reverts(&self) -> u32 {
        self.state().shots.reverts
    }

    pub(in crate::reconcile::simulation) fn power(&self) -> DesiredPower {
        self.state().bundle.as_ref().expect("the VM is there").record.intent.power
    }

    /// As the store does it: a change goes on beside a request for power.
    pub(in crate::reconcile::simulation) fn ask_power_beside_changes(&self, power: DesiredPower) {
        let change = {
            let mut state = self.state();
            let bundle = state.bundle.as_mut().expect("the VM is there");
            std::mem::take(&mut bundle.operations)
        };
        self.ask_power(power);
        self.state().bundle.as_mut().expect("the VM is there").operations.extend(change);
    }

    pub(super) fn is_taking_late(&self) -> bool {
        self.state().shots.late
    }

    /// The hypervisor's own work on a call that nobody waits for any more.
    fn finish_later(self: Arc<Self>, request: SnapshotRequest, after: Duration) {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let now = crate::reconcile::ports::Clock::now(&*self);
            {
                let mut state = self.state();
                if state.domain.is_some() {
                    state.take(&request, now);
                }
                if state.domain == Some(DomainState::Paused) {
                    state.domain = Some(DomainState::Running);
                }
                state.shots.at_work = false;
                state.shots.late = false;
            }
            let _ = self.events.send(HypervisorEvent::Domain(self.vm));
        });
    }
}

fn at_work(name: &str) -> HypervisorError {
    HypervisorError::Deadline { operation: name.to_owned(), limit: Duration::ZERO }
}

#[async_trait]
impl Snapshots for World {
    async fn snapshots(&self, _id: VmId) -> Result<Vec<Snapshot>, HypervisorError> {
        let state = self.state();
        let shown = state.shots.taken.iter().map(|shot| Snapshot {
            name: shot.name.clone(),
            parent: shot.parent.clone(),
            description: String::new(),
            created_at: shot.at,
            state: match (shot.running, shot.tag.is_none_or(|tag| tag.memory)) {
                (false, _) => SnapshotState::Shutoff,
                (true, true) => SnapshotState::Running,
                (true, false) => SnapshotState::Disk,
            },
            current: state.shots.current.as_ref() == Some(&shot.name),
            tag: shot.tag,
        });
        Ok(shown.collect())
    }

    async fn snapshot_names(&self, id: VmId) -> Result<Vec<String>, HypervisorError> {
        Ok(self.snapshots(id).await?.into_iter().map(|snapshot| snapshot.name).collect())
    }

    async fn snapshot(&self, id: VmId, name: &SnapshotName) -> Result<Option<Snapshot>, HypervisorError> {
        if self.state().shots.at_work {
            return Err(at_work("look up a snapshot"));
        }
        let found = self.snapshots(id).await?;
        Ok(found.into_iter().find(|snapshot| snapshot.name == name.as_str()))
    }

    async fn create_snapshot(&self, _id: VmId, request: SnapshotRequest) -> Result<(), HypervisorError> {
        let now = crate::reconcile::ports::Clock::now(self);
        let hang = self
            .on_host("take a snapshot", |state| {
                assert!(!state.shots.at_work, "two snapshots at once");
                let hang = state.shots.hang.take();
                match hang {
                    None => state.take(&request, now),
                    Some(hang) => {
                        state.shots.at_work = true;
                        let after = match hang {
                            Hang::Running(after) => after,
                            Hang::Halted(after) => {
                                state.domain = Some(DomainState::Paused);
                                after
                            }
                        };
                        // Under way from here on, whoever dies.
                        self.me().finish_later(request.clone(), after);
                    }
                }
                hang
            })
            .await?;
        if hang.is_none() {
            return Ok(());
        }
        tokio::time::sleep(LIMIT).await;
        let mut state = self.state();
        if state.shots.at_work {
            state.shots.late = true;
            return Err(HypervisorError::Deadline { operation: "take a snapshot".to_owned(), limit: LIMIT });
        }
        Ok(())
    }

    async fn revert_snapshot(
        &self,
        _id: VmId,
        name: &SnapshotName,
        to: RevertTo,
    ) -> Result<(), HypervisorError> {
        self.on_host("revert", |state| {
            let shot = state.shots.taken.iter().find(|shot| shot.name == name.as_str());
            state.plugs.config = shot.expect("no such snapshot").config.clone();
            state.plugs.live = state.plugs.config.clone();
            state.shots.reverts += 1;
            state.shots.current = Some(name.to_string());
            state.shots.frozen = None;
            match to {
                RevertTo::Running => {
                    state.shots.instance += 1;
                    state.domain = Some(DomainState::Running);
                }
                RevertTo::Off => state.domain = Some(DomainState::Shutoff),
            }
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        _id: VmId,
        name: &SnapshotName,
        children: bool,
    ) -> Result<(), HypervisorError> {
        self.on_host("delete a snapshot", |state| {
            let mut gone = vec![name.to_string()];
            while let Some(name) = gone.pop() {
                let parent = state
                    .shots
                    .taken
                    .iter()
                    .find(|shot| shot.name == name)
                    .and_then(|shot| shot.parent.clone());
                state.shots.taken.retain(|shot| shot.name != name);
                for child in state.shots.taken.iter_mut().filter(|shot| shot.parent.as_ref() == Some(&name)) {
                    if children {
                        gone.push(child.name.clone());
                    } else {
                        child.parent.clone_from(&parent);
                    }
                }
                if state.shots.current.as_ref() == Some(&name) {
                    state.shots.current = parent;
                }
            }
        })
        .await
    }

    async fn instance(&self, _id: VmId) -> Result<Option<u32>, HypervisorError> {
        let state = self.state();
        Ok((state.domain != Some(DomainState::Shutoff)).then_some(state.shots.instance))
    }
}

#[async_trait]
impl FileSystems for World {
    async fn can_freeze(&self, _id: VmId) -> Result<bool, HypervisorError> {
        Ok(self.state().shots.has_agent)
    }

    async fn freeze(&self, _id: VmId) -> Result<Freeze, HypervisorError> {
        self.on_host("freeze", |state| {
            let noted =
                state.bundle.iter().flat_map(|bundle| &bundle.operations).any(|operation| {
                    operation.change.as_ref().is_some_and(crate::vm::VmChange::may_be_frozen)
                });
            assert!(noted, "frozen before it was written down");
            state.shots.freezes += 1;
            state.shots.frozen.get_or_insert_with(tokio::time::Instant::now);
            Freeze::Frozen
        })
        .await
    }

    async fn thaw(&self, _id: VmId) -> Result<Thaw, HypervisorError> {
        self.on_host("thaw", |state| {
            match state.domain {
                None | Some(DomainState::Shutoff) => return Ok(Thaw::Off),
                Some(DomainState::Paused) => return Ok(Thaw::Halted),
                _ => {}
            }
            if state.shots.failing_thaws > 0 {
                state.shots.failing_thaws -= 1;
                let reason = "the agent is silent".to_owned();
                return Err(HypervisorError::Invalid { operation: "thaw".to_owned(), reason });
            }
            let since = state.shots.frozen.take();
            if let Some(since) = since {
                state.shots.longest = state.shots.longest.max(since.elapsed());
            }
            Ok(Thaw::Thawed(u32::from(since.is_some())))
        })
        .await?
    }
}
