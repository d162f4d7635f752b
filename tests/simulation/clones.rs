//! VMs that are made as copies of others: asked for as the store's transaction does it, and judged.

use std::time::Duration;

use infinibay::{
    domain_xml::{DiskKind, extra_mac_address},
    vm::{
        Base, DesiredPower, DomainState, LendChange, Operation, OperationId, OperationKind, OperationStatus,
        Origin, Plugged, PluggedDisk, PluggedInterface, PowerKeeping, Provisioning, Unattended, VmChange,
        VmId, VmPhase, VmRecord, VmSpec,
    },
};

use uuid::Uuid;

use super::{
    database::Asked,
    host::{POOL, volume_path},
    world::State,
};

/// A VM that has run for this long is seen to run.
const LONG: Duration = Duration::from_secs(120);

/// A VM's disks are its own, as are its cards; a medium may be in many drives.
pub fn shares(state: &State, vm: VmId) -> Vec<String> {
    let Some(domain) = state.host.domains.get(&vm) else { return Vec::new() };
    let mut faults = Vec::new();
    for (other, theirs) in state.host.domains.iter().filter(|(other, _)| **other != vm) {
        let both = [&theirs.config, &theirs.live];
        for disk in domain.config.disks.iter().filter(|disk| disk.kind == DiskKind::Disk) {
            let used = both.iter().flat_map(|it| &it.disks).any(|it| it.source == disk.source);
            if used && disk.source.is_some() {
                faults.push(format!("it shares {:?} with {}", disk.source, state.label(*other)));
            }
        }
        if let Some(card) = domain.config.cards.iter().find(|card| theirs.config.has_card(&card.mac)) {
            faults.push(format!("it shares the card {} with {}", card.mac, state.label(*other)));
        }
    }
    faults
}

/// What has to be so of a copy once everything is calm.
pub fn of_clone(state: &State, vm: VmId) -> Vec<String> {
    let bundle = &state.database.vms[&vm];
    let Some(from) = bundle.record.spec.cloned_from() else { return Vec::new() };
    let mut ends = state.database.over.iter().filter(|it| it.vm == vm && it.kind == OperationKind::Clone);
    let Some(end) = ends.next() else { return Vec::new() };
    let mut faults = Vec::new();
    let robbed = state.watch.robbed.contains(&vm);
    if end.status == OperationStatus::Succeeded {
        for (pool, name) in disks(vm, &bundle.record.spec) {
            let detached = !bundle.resources.iter().any(|row| row.name == name);
            let whole = state.host.volumes.get(&(pool, name.clone())).is_some_and(|volume| volume.whole);
            if !whole && !detached && !robbed {
                faults.push(format!("it counts as copied, and {name} is not"));
            }
        }
    }
    let mut codes = state.database.over.iter().filter(|it| it.vm == vm).filter_map(code);
    let source = state.database.vms.get(&from);
    let gone = source.is_none_or(|source| source.record.intent.deleting);
    if codes.any(|code| code == "SOURCE_DELETED") && !gone {
        faults.push("what it is a copy of is said to be deleted, and is not".to_owned());
    }
    let kept = |it: &Operation| {
        let lent = matches!(&it.change, Some(VmChange::Lend(loan)) if loan.to == vm);
        lent && it.status == OperationStatus::Succeeded
    };
    // Whatever ends the copying ends the loan, too; who asks for power after that is told of the loan.
    if code(end) == Some("SOURCE_CHANGED") && state.database.over.iter().any(kept) {
        faults.push("what it is a copy of is said to have changed, and lent itself to the end".to_owned());
    }
    faults
}

fn code(operation: &Operation) -> Option<&str> {
    operation.error.as_ref().map(|error| error.code.as_str())
}

/// Whether an operation failed because a copy has lost what it is a copy of: nothing but its deletion
/// can be asked of it then.
pub fn lost_its_source(operation: &Operation) -> bool {
    matches!(code(operation), Some("SOURCE_DELETED" | "SOURCE_CHANGED"))
}

/// The places and names of a VM's disks.
fn disks(vm: VmId, spec: &VmSpec) -> Vec<(String, String)> {
    let root = (spec.pool.to_string(), format!("infinibay-{vm}.qcow2"));
    let others = spec.devices.disks.iter().map(|disk| (disk.pool.to_string(), disk.volume.clone()));
    std::iter::once(root).chain(others).collect()
}

/// What the copy is made of.
fn spec_of(source: &VmRecord, vm: VmId, number: usize) -> VmSpec {
    let spec = &source.spec;
    let reads = matches!(&spec.base, Base::Image(image) if image.provisioning == Provisioning::CloudInit);
    let mut base = spec.base.clone();
    if let Base::Installation(installation) = &mut base {
        installation.token = None;
    }
    let disks = (0..).zip(&spec.devices.disks).map(|(index, disk)| PluggedDisk {
        volume: format!("infinibay-{vm}-c{index}.qcow2"),
        ..disk.clone()
    });
    let cards = (1..).zip(&spec.devices.interfaces).map(|(index, card)| PluggedInterface {
        mac: extra_mac_address(vm, index),
        source: card.source.clone(),
    });
    VmSpec {
        name: format!("simulated-{number}").parse().expect("a name"),
        base,
        unattended: if reads { spec.unattended.without_secrets() } else { Unattended::default() },
        origin: Origin::Cloned { from: source.id },
        devices: Plugged { disks: disks.collect(), media: Vec::new(), interfaces: cards.collect() },
        keeping: PowerKeeping { autostart: false, ..spec.keeping },
        ..spec.clone()
    }
}

impl State {
    /// False when it is refused.
    pub fn request_clone(&mut self, from: VmId, vm: VmId, power: DesiredPower, asked: Asked) -> bool {
        let Some(source) = self.database.vms.get(&from) else { return false };
        let record = source.record.clone();
        let loan = VmChange::Lend(LendChange { to: vm, still: false });
        let open = source.operations.iter().any(|operation| operation.change.is_some());
        let refused = loan.check(&record, source.status.as_ref()).is_err();
        if record.intent.deleting || record.spec.is_adopted() || open || refused || !self.has_its_disks(from)
        {
            return false;
        }
        let spec = spec_of(&record, vm, self.database.order.len());
        // Its id is made of the copy's: nothing else is drawn for it.
        let operation = OperationId(Uuid::from_u128(!asked.operation.uuid().as_u128()));
        let lent = Asked { operation, ..asked };
        self.database.clone_vm(vm, self.host_id, spec, power, asked);
        self.database.lend(from, loan, lent);
        true
    }

    /// A copy of other disks than the domain has would be no copy.
    fn has_its_disks(&self, vm: VmId) -> bool {
        let (Some(bundle), Some(domain)) = (self.database.vms.get(&vm), self.host.domains.get(&vm)) else {
            return false;
        };
        let mut ours: Vec<_> = disks(vm, &bundle.record.spec);
        let mut theirs: Vec<_> = domain
            .config
            .disks
            .iter()
            .filter(|disk| disk.kind == DiskKind::Disk)
            .filter_map(|disk| disk.source.clone())
            .collect();
        let whole = ours.iter().all(|key| self.host.volumes.get(key).is_some_and(|volume| volume.whole));
        ours.sort();
        let mut ours: Vec<_> = ours.iter().map(|(pool, name)| volume_path(pool, name)).collect();
        ours.sort();
        theirs.sort();
        whole && ours == theirs
    }

    /// Whether a VM lends itself to another, or did of late.
    pub fn is_lent(&self, from: VmId, to: VmId) -> bool {
        self.is_asked(from, |change| matches!(change, VmChange::Lend(loan) if loan.to == to && loan.still))
    }

    /// One that could be copied now, if there is any.
    pub fn lenders(&self) -> Vec<VmId> {
        let may = |vm: &&VmId| {
            let bundle = &self.database.vms[*vm];
            let phase = bundle.status.as_ref().map(|status| status.phase);
            phase == Some(VmPhase::Stopped) && !bundle.record.spec.is_adopted()
        };
        self.database.vms.keys().filter(may).copied().collect()
    }

    /// The loop starts a VM: not while it is copied from for somebody who counts on that. False when
    /// the disk is locked.
    pub fn judge_loan(&mut self, vm: VmId) -> bool {
        let copies: Vec<_> =
            self.host.copies.iter().filter(|it| it.at_work && it.from == Some(vm)).cloned().collect();
        for copy in &copies {
            let needed = self.database.vms.get(&copy.vm).is_some_and(|bundle| {
                let clones = bundle.operations.iter().any(|it| it.kind == OperationKind::Clone);
                clones && !bundle.record.intent.deleting && bundle.record.milestones.disk_created.is_none()
            });
            let lent = self.database.vms.get(&vm).is_some_and(|bundle| {
                let is_loan = |it: &Operation| {
                    matches!(&it.change, Some(VmChange::Lend(loan)) if loan.to == copy.vm && loan.still)
                };
                bundle.operations.iter().any(is_loan)
            });
            let own = copy.life == self.life && copy.ended.is_none();
            if needed && lent && own && !self.watch.haunted.contains(&vm) {
                let (label, other) = (self.label(vm), self.label(copy.vm));
                self.violate(format_args!("{label} is started while {other} is copied from it"));
            }
        }
        copies.is_empty()
    }

    /// A copy counts as whole: not if it was read of a VM that has been running for long.
    pub fn judge_copied(&mut self, vm: VmId, name: &str) {
        let Some(from) = self.database.vms.get(&vm).and_then(|it| it.record.spec.cloned_from()) else {
            return;
        };
        let key = (POOL.to_owned(), name.to_owned());
        let volume = self.host.volumes.get(&key);
        let torn = volume.is_some_and(|volume| !volume.whole);
        let spoiled = volume.is_some_and(|volume| volume.spoiled);
        let long =
            self.host.domains.get(&from).is_some_and(|domain| {
                domain.state == DomainState::Running && domain.started.elapsed() > LONG
            });
        if torn || (spoiled && long) {
            let label = self.label(vm);
            self.violate(format_args!("{name} of {label} counts as copied: torn {torn}, spoiled {spoiled}"));
        }
    }
}
