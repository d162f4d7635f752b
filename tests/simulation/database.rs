//! What the simulated database holds, and the requests that people commit to it, each as the
//! transaction of the store does that it stands for.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use infinibay::{
    store::VmBundle,
    vm::{
        DesiredPower, HostId, IdentityChange, Milestone, Milestones, Operation, OperationError, OperationId,
        OperationKind, OperationStatus, UserId, VmChange, VmId, VmIntent, VmRecord, VmSpec,
    },
};

/// See the module.
#[derive(Debug, Default)]
pub struct Database {
    pub vms: BTreeMap<VmId, VmBundle>,
    /// Operations that are over.
    pub over: Vec<Operation>,
    /// Every VM that there ever was, in the order of their creation.
    pub order: Vec<VmId>,
    pub is_away: bool,
    /// When operations ended, by the run's time.
    pub ended: BTreeMap<OperationId, tokio::time::Instant>,
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub operation: OperationId,
    pub by: UserId,
    pub at: DateTime<Utc>,
}

const POWER: [OperationKind; 4] =
    [OperationKind::Start, OperationKind::Stop, OperationKind::Suspend, OperationKind::Save];
const HALTED: [OperationKind; 6] = [
    OperationKind::Start,
    OperationKind::Stop,
    OperationKind::Suspend,
    OperationKind::Save,
    OperationKind::Reboot,
    OperationKind::Reset,
];
const OFF: [OperationKind; 7] = [
    OperationKind::Start,
    OperationKind::Stop,
    OperationKind::Suspend,
    OperationKind::Save,
    OperationKind::Create,
    OperationKind::Reboot,
    OperationKind::Reset,
];

impl Database {
    pub fn create(&mut self, vm: VmId, host: HostId, spec: VmSpec, asked: Asked) {
        let record = VmRecord {
            id: vm,
            host,
            owner: asked.by,
            spec,
            intent: VmIntent {
                power: DesiredPower::Running,
                deleting: false,
                generation: 1,
                satisfied: 0,
                given_up: 0,
                asked_at: asked.at,
            },
            milestones: Milestones::default(),
            created_at: asked.at,
        };
        let operations = vec![operation(vm, OperationKind::Create, 1, None, asked)];
        self.vms.insert(
            vm,
            VmBundle {
                record,
                status: None,
                operations,
                resources: Vec::new(),
                install_report: None,
                seal: None,
            },
        );
        self.order.push(vm);
    }

    /// A copy of another VM.
    pub fn clone_vm(&mut self, vm: VmId, host: HostId, spec: VmSpec, power: DesiredPower, asked: Asked) {
        let installed = spec.installation().is_some();
        self.create(vm, host, spec, asked);
        let Some(bundle) = self.vms.get_mut(&vm) else { return };
        bundle.record.intent.power = power;
        // Of a system that an installer put onto the disk, nothing is left to be installed.
        for milestone in
            [Milestone::SystemInstalled, Milestone::BootReplaced].into_iter().filter(|_| installed)
        {
            bundle.record.milestones.pass(milestone, asked.at);
        }
        bundle.operations.iter_mut().for_each(|operation| operation.kind = OperationKind::Clone);
    }

    /// A VM is lent to its copy.
    pub fn lend(&mut self, vm: VmId, loan: VmChange, asked: Asked) {
        let Some(bundle) = self.vms.get(&vm) else { return };
        let generation = bundle.record.intent.generation;
        self.add(vm, operation(vm, loan.kind(), generation, Some(loan), asked));
    }

    /// A domain that somebody else made is taken under management, as it is.
    pub fn adopt(&mut self, vm: VmId, host: HostId, spec: VmSpec, power: DesiredPower, asked: Asked) {
        self.create(vm, host, spec, asked);
        let Some(bundle) = self.vms.get_mut(&vm) else { return };
        let record = &mut bundle.record;
        record.intent.power = power;
        record.intent.satisfied = 1;
        // Its first boot was long ago.
        use Milestone::{Defined, DiskCreated, FirstStarted, Installed, SeedScrubbed};
        for milestone in [DiskCreated, Defined, FirstStarted, Installed, SeedScrubbed] {
            record.milestones.pass(milestone, asked.at);
        }
        bundle.operations.clear();
        let change = VmChange::Identity(IdentityChange::Adopt);
        self.add(vm, operation(vm, change.kind(), 1, Some(change), asked));
    }

    /// False when it is refused.
    pub fn request_power(&mut self, vm: VmId, power: DesiredPower, asked: Asked) -> bool {
        let (kind, superseded): (_, &[OperationKind]) = match power {
            DesiredPower::Running | DesiredPower::ColdRunning => (OperationKind::Start, &POWER),
            DesiredPower::Paused => (OperationKind::Suspend, &HALTED),
            DesiredPower::Saved => (OperationKind::Save, &HALTED),
            DesiredPower::Stopped | DesiredPower::ForcedOff => (OperationKind::Stop, &OFF),
        };
        let Some(bundle) = self.vms.get_mut(&vm).filter(|bundle| !bundle.record.intent.deleting) else {
            return false;
        };
        let intent = &mut bundle.record.intent;
        intent.power = power;
        intent.generation += 1;
        intent.asked_at = asked.at;
        let generation = intent.generation;
        self.end(vm, OperationStatus::Superseded, None, asked.at, |open| superseded.contains(&open.kind));
        self.add(vm, operation(vm, kind, generation, None, asked));
        true
    }

    /// False when it is refused.
    pub fn request_delete(&mut self, vm: VmId, asked: Asked) -> bool {
        let may = |bundle: &VmBundle| !bundle.record.intent.deleting && !bundle.record.spec.is_adopted();
        let Some(bundle) = self.vms.get_mut(&vm).filter(|bundle| may(bundle)) else { return false };
        let intent = &mut bundle.record.intent;
        intent.deleting = true;
        intent.generation += 1;
        intent.asked_at = asked.at;
        let generation = intent.generation;
        self.end(vm, OperationStatus::Superseded, None, asked.at, |_| true);
        self.add(vm, operation(vm, OperationKind::Delete, generation, None, asked));
        true
    }

    /// False when it is refused.
    pub fn request_change(&mut self, vm: VmId, change: VmChange, asked: Asked) -> bool {
        let Some(bundle) = self.vms.get(&vm) else { return false };
        let open = bundle.operations.iter().any(|operation| operation.change.is_some());
        let refused = change.check(&bundle.record, bundle.status.as_ref()).is_err();
        if bundle.record.intent.deleting || open || refused {
            return false;
        }
        let generation = bundle.record.intent.generation;
        self.add(vm, operation(vm, change.kind(), generation, Some(change), asked));
        true
    }

    fn add(&mut self, vm: VmId, operation: Operation) {
        if let Some(bundle) = self.vms.get_mut(&vm) {
            bundle.operations.push(operation);
            bundle.operations.sort_by_key(|operation| (operation.created_at, operation.id));
        }
    }

    /// Ends the open operations that `which` names; gives them.
    pub fn end(
        &mut self,
        vm: VmId,
        status: OperationStatus,
        error: Option<&OperationError>,
        now: DateTime<Utc>,
        which: impl Fn(&Operation) -> bool,
    ) -> Vec<Operation> {
        let Some(bundle) = self.vms.get_mut(&vm) else { return Vec::new() };
        let (mut ended, open): (Vec<_>, Vec<_>) = bundle.operations.drain(..).partition(which);
        bundle.operations = open;
        for operation in &mut ended {
            operation.status = status;
            operation.error = error.cloned();
            operation.finished_at = Some(now);
            if status == OperationStatus::Succeeded {
                operation.progress = 100;
                "done".clone_into(&mut operation.stage);
            }
        }
        self.over.extend(ended.iter().cloned());
        self.ended.extend(ended.iter().map(|operation| (operation.id, tokio::time::Instant::now())));
        ended
    }

    pub fn open(&self, id: OperationId) -> Option<&Operation> {
        self.vms.values().flat_map(|bundle| &bundle.operations).find(|operation| operation.id == id)
    }

    pub fn operation(&self, id: OperationId) -> Option<Operation> {
        self.open(id).or_else(|| self.over.iter().find(|operation| operation.id == id)).cloned()
    }

    /// The VM whose file this is, by its name.
    pub fn whose(&self, file: &str) -> Option<VmId> {
        self.order.iter().copied().find(|vm| file.contains(&vm.to_string()))
    }

    /// What a controller does at its start.
    pub fn age_statuses(&mut self) {
        for bundle in self.vms.values_mut() {
            bundle.status = bundle.status.take().map(infinibay::vm::VmStatus::aged);
        }
    }
}

fn operation(
    vm: VmId,
    kind: OperationKind,
    generation: i64,
    change: Option<VmChange>,
    asked: Asked,
) -> Operation {
    Operation {
        id: asked.operation,
        vm,
        kind,
        status: OperationStatus::Pending,
        progress: 0,
        stage: "accepted".to_owned(),
        error: None,
        change,
        effect: None,
        generation,
        requested_by: asked.by,
        created_at: asked.at,
        finished_at: None,
    }
}
