//! A second VM, whose disks the first one is to be a copy of, and copies that take their time and go on
//! when whoever asked for them is gone.

use std::{collections::BTreeSet, path::PathBuf};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::{State, World, epoch, operation, spec};
use crate::{
    hypervisor::{Copied, Copies, Copying, HypervisorError, VolumeCopy},
    reconcile::ports::Clock,
    store::VmBundle,
    vm::{
        DesiredPower, DomainAbout, DomainFacts, DomainState, HostId, LendChange, Milestones, Operation,
        OperationKind, OperationStatus, Origin, PluggedDisk, Resource, ResourceKind, ResourceState, UserId,
        VmChange, VmId, VmIntent, VmRecord,
    },
};

/// How long one copy takes.
const TAKES: TimeDelta = TimeDelta::seconds(7);

/// A copy that libvirt makes.
#[derive(Debug, Clone)]
struct Job {
    copy: VolumeCopy,
    end: DateTime<Utc>,
}

#[derive(Debug, Default)]
pub(super) struct Lending {
    pub(super) bundle: Option<VmBundle>,
    /// What is told of VMs that are not.
    pub(super) nobody: Option<VmBundle>,
    id: Option<VmId>,
    domain: Option<DomainState>,
    /// What libvirt makes, whoever is there to hear of it.
    job: Option<Job>,
    /// Other copies have all places, and this one waits for its turn.
    is_crowded: bool,
    waiting: Option<VolumeCopy>,
    /// Whether that was begun by the process that runs now.
    is_ours: bool,
    /// It was written to while it was read.
    spoiled: bool,
    /// Volumes that are not whole.
    torn: BTreeSet<String>,
    /// Copies that were begun.
    begun: u32,
}

impl Lending {
    pub(super) fn domain(&self) -> Option<(VmId, DomainFacts)> {
        let facts = DomainFacts {
            name: "lender".to_owned(),
            state: self.domain?,
            reason: 1,
            persistent: true,
            managed_save: false,
            channel: None,
            interfaces: Vec::new(),
            waiting: Vec::new(),
            about: DomainAbout::default(),
        };
        Some((self.id?, facts))
    }

    pub(super) fn start(&mut self) {
        self.domain = Some(DomainState::Running);
        self.spoiled = self.job.is_some();
    }

    pub(super) fn undefine(&mut self) {
        assert_eq!(self.domain, Some(DomainState::Shutoff), "undefined while it runs");
        self.domain = None;
    }

    /// What libvirt reads or writes it lets nobody delete.
    pub(super) fn is_touched(&self, name: &str, now: DateTime<Utc>) -> bool {
        let job = self.job.as_ref().filter(|job| now < job.end);
        job.is_some_and(|job| job.copy.name == name || job.copy.from_name == name)
    }

    pub(super) fn check_defined(&self, xml: &str) {
        for torn in &self.torn {
            assert!(!xml.contains(torn.as_str()), "a disk that is not whole is given to a guest");
        }
    }

    /// The process that asked is gone.
    pub(super) fn forget(&mut self) {
        self.is_ours = false;
        self.waiting = None;
    }
}

fn volume(vm: VmId, name: String) -> Resource {
    let (kind, place) = (ResourceKind::Volume, "default".to_owned());
    Resource { vm, kind, place, name, state: ResourceState::Created }
}

fn extra(vm: VmId) -> PluggedDisk {
    PluggedDisk {
        target: "vdb".parse().unwrap(),
        pool: "default".parse().unwrap(),
        volume: vm.extra_disk_name(),
        bytes: 1 << 20,
    }
}

impl World {
    /// A host on which somebody just asked for a copy of a VM that is off, with two disks.
    pub(in crate::reconcile::simulation) fn with_clone() -> std::sync::Arc<Self> {
        let world = Self::with_vm();
        let (from, owner, at) = (VmId::generate(), UserId::generate(), Some(epoch()));
        let mut lender = spec();
        lender.name = "lender".parse().unwrap();
        lender.devices.disks = vec![extra(from)];
        let volumes = [from.disk_name(), lender.devices.disks[0].volume.clone()];
        let mut loan = operation(from, owner, OperationKind::Lend, 1);
        loan.change = Some(VmChange::Lend(LendChange { to: world.vm, still: false }));
        let intent = VmIntent {
            power: DesiredPower::Stopped,
            deleting: false,
            generation: 1,
            satisfied: 1,
            given_up: 0,
            asked_at: epoch(),
        };
        let record = VmRecord {
            id: from,
            host: HostId::generate(),
            owner,
            spec: lender,
            intent,
            milestones: Milestones {
                disk_created: at,
                seed_written: at,
                defined: at,
                first_started: at,
                first_seen: at,
                installed: at,
                seed_scrubbed: at,
                ..Milestones::default()
            },
            created_at: epoch(),
        };
        {
            let mut state = world.state();
            state.volumes.extend(volumes.clone());
            state.lending = Lending {
                bundle: Some(VmBundle {
                    record,
                    status: None,
                    operations: vec![loan],
                    resources: volumes.map(|name| volume(from, name)).to_vec(),
                    install_report: None,
                    seal: None,
                }),
                id: Some(from),
                domain: Some(DomainState::Shutoff),
                ..Lending::default()
            };
            let bundle = state.bundle.as_mut().expect("the VM is there");
            bundle.record.intent.power = DesiredPower::Stopped;
            bundle.record.spec.origin = Origin::Cloned { from };
            bundle.record.spec.devices.disks = vec![extra(world.vm)];
            bundle.operations[0].kind = OperationKind::Clone;
        }
        world
    }

    pub(in crate::reconcile::simulation) fn lender(&self) -> VmId {
        self.state().lending.id.expect("a lender")
    }

    pub(in crate::reconcile::simulation) fn lender_state(&self) -> Option<DomainState> {
        self.state().lending.domain
    }

    /// Somebody else starts the VM that is copied.
    pub(in crate::reconcile::simulation) fn start_lender_outside(&self) {
        self.state().lending.start();
    }

    fn ask_lender(&self, kind: OperationKind, change: impl FnOnce(&mut VmIntent), ends: bool) {
        let mut state = self.state();
        let bundle = state.lending.bundle.as_mut().expect("the lender is there");
        change(&mut bundle.record.intent);
        bundle.record.intent.generation += 1;
        let asked = operation(bundle.record.id, bundle.record.owner, kind, bundle.record.intent.generation);
        let superseded = if ends { std::mem::take(&mut bundle.operations) } else { Vec::new() };
        bundle.operations.push(asked);
        let over = |operation| Operation { status: OperationStatus::Superseded, ..operation };
        state.finished.extend(superseded.into_iter().map(over));
    }

    pub(in crate::reconcile::simulation) fn delete_lender(&self) {
        self.ask_lender(OperationKind::Delete, |intent| intent.deleting = true, true);
    }

    pub(in crate::reconcile::simulation) fn power_lender_on(&self) {
        self.ask_lender(OperationKind::Start, |intent| intent.power = DesiredPower::Running, false);
    }

    /// Whether the lender is lent to nobody.
    pub(in crate::reconcile::simulation) fn is_free(&self) -> bool {
        let state = self.state();
        let mut open = state.lending.bundle.iter().flat_map(|bundle| &bundle.operations);
        !open.any(|operation| operation.kind == OperationKind::Lend)
    }

    pub(in crate::reconcile::simulation) fn is_lender_gone(&self) -> bool {
        self.state().lending.bundle.is_none()
    }

    /// All places are taken by copies of others.
    pub(in crate::reconcile::simulation) fn crowd(&self) {
        self.state().lending.is_crowded = true;
    }

    /// Whether a copy waits for its turn.
    pub(in crate::reconcile::simulation) fn copy_waits(&self) -> bool {
        self.state().lending.waiting.is_some()
    }

    /// How many copies were begun, and how many volumes are not whole.
    pub(in crate::reconcile::simulation) fn copies(&self) -> (u32, usize) {
        let state = self.state();
        (state.lending.begun, state.lending.torn.len())
    }
}

/// What time has done.
fn settle(state: &mut State, now: DateTime<Utc>) {
    let Lending { job, is_ours, torn, .. } = &mut state.lending;
    if let Some(ended) = job.as_ref().filter(|job| now >= job.end) {
        torn.remove(&ended.copy.name);
        if !*is_ours {
            *job = None;
        }
    }
}

#[async_trait]
impl Copies for World {
    async fn copy_volume(&self, id: VmId, copy: VolumeCopy) -> Result<Copied, HypervisorError> {
        assert!(copy.name.contains(&id.to_string()), "a volume without its VM's id");
        let now = self.now();
        self.on_host("copy volume", |state| {
            settle(state, now);
            if state.lending.waiting.is_some() {
                return Ok(Copied::UnderWay);
            }
            let path = PathBuf::from("/pool").join(&copy.name);
            match (&state.lending.job, state.lending.is_ours) {
                (Some(job), true) if now < job.end => return Ok(Copied::UnderWay),
                (Some(job), true) if job.copy == copy => {
                    assert!(!state.lending.spoiled, "a copy counts that was read of a running VM");
                    state.lending.job = None;
                    return Ok(Copied::Whole(path));
                }
                (Some(_), false) => {
                    let (operation, limit) = ("copy volume".to_owned(), std::time::Duration::ZERO);
                    return Err(HypervisorError::Deadline { operation, limit });
                }
                _ => {}
            }
            let rows = state.bundle.iter().flat_map(|bundle| &bundle.resources);
            let row = rows.into_iter().find(|row| row.name == copy.name);
            assert!(
                row.is_some_and(|row| row.state == ResourceState::Creating),
                "a copy was begun without a row, or over one that is whole"
            );
            assert!(state.volumes.contains(&copy.from_name), "what is not there is copied");
            assert_eq!(state.lending.domain, Some(DomainState::Shutoff), "a VM is copied that is not off");
            if state.lending.is_crowded {
                state.lending.waiting = Some(copy);
                return Ok(Copied::UnderWay);
            }
            state.volumes.insert(copy.name.clone());
            state.lending.torn.insert(copy.name.clone());
            state.lending.begun += 1;
            (state.lending.is_ours, state.lending.spoiled) = (true, false);
            state.lending.job = Some(Job { copy, end: now + TAKES });
            Ok(Copied::UnderWay)
        })
        .await?
    }

    async fn withdraw_copy(&self, id: VmId) {
        let waiting = &mut self.state().lending.waiting;
        *waiting = waiting.take().filter(|copy| !copy.name.contains(&id.to_string()));
    }

    async fn copying(&self, id: VmId) -> Copying {
        let now = self.now();
        let mut state = self.state();
        settle(&mut state, now);
        let lending = &state.lending;
        if lending.waiting.as_ref().is_some_and(|copy| copy.name.contains(&id.to_string())) {
            return Copying::UnderWay(None);
        }
        let job = lending.job.as_ref().filter(|job| lending.is_ours && now < job.end);
        match job.filter(|job| job.copy.name.contains(&id.to_string())) {
            Some(job) => {
                let left = (job.end - now).num_seconds() * 100 / TAKES.num_seconds();
                Copying::UnderWay(u8::try_from(100 - left).ok())
            }
            None => Copying::Nothing,
        }
    }
}
