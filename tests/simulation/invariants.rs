//! What must hold: some of it whenever the loop does something, the rest once everything has calmed
//! down.

use infinibay::vm::{
    AgentConnectivity, ConditionStatus, DesiredPower, DomainState, Milestone, OperationId, OperationKind,
    OperationStatus, Resource, ResourceKind, ResourceState, SettingChange, VmChange, VmId, VmPhase,
};

use super::{
    host::{File, POOL},
    watch::Seen,
    world::State,
};

/// Judgements on what the loop does.
impl State {
    /// A fact is noted only if it is one.
    pub fn judge_milestone(&mut self, vm: VmId, milestone: Milestone) {
        let host = &self.host;
        let holds = match milestone {
            Milestone::DiskCreated => host.volumes.values().any(|it| it.vm == Some(vm) && it.whole),
            Milestone::SeedWritten => host.once_had_seed.contains(&vm),
            Milestone::Defined => host.once_defined.contains(&vm),
            Milestone::FirstStarted => host.domains.get(&vm).is_none_or(|domain| domain.boot > 0),
            // Nothing is installed from a disc here.
            Milestone::SystemInstalled | Milestone::BootReplaced => false,
            Milestone::FirstSeen | Milestone::Installed | Milestone::SeedScrubbed => {
                host.once_defined.contains(&vm)
            }
        };
        if !holds && !self.watch.robbed.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("{label} passes {milestone:?}, which is not so"));
        }
    }

    /// The power of a generation counts as reached only if the loop was shown that it is.
    pub fn judge_satisfaction(&mut self, vm: VmId, generation: i64, shown: &[(u64, Seen)]) {
        let Some(bundle) = self.database.vms.get(&vm) else { return };
        let intent = bundle.record.intent;
        if intent.generation != generation || intent.deleting {
            return;
        }
        let fits: &[Seen] = match intent.power {
            DesiredPower::Running | DesiredPower::ColdRunning | DesiredPower::Paused => &[Seen::Active],
            DesiredPower::Stopped | DesiredPower::ForcedOff | DesiredPower::Saved => {
                &[Seen::Off, Seen::Absent]
            }
        };
        if !shown.iter().any(|(_, seen)| fits.contains(seen)) {
            let label = self.label(vm);
            self.violate(format_args!("{label} counts as {:?}, and was shown as {shown:?}", intent.power));
        }
    }

    /// A change counts as done only if it is.
    pub fn judge_change(&mut self, vm: VmId, id: OperationId) {
        let change = self.database.open(id).and_then(|operation| operation.change.clone());
        let Some(domain) = self.host.domains.get(&vm) else { return };
        let holds = match change {
            Some(VmChange::Setting(SettingChange::Autostart(on))) => domain.autostart == on,
            Some(VmChange::Guest(_)) => domain.resets > 0,
            _ => true,
        };
        if !holds && !self.watch.robbed.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("a change of {label} counts as done, and is not"));
        }
    }

    /// A row goes only after its thing.
    pub fn judge_release(&mut self, row: &Resource) {
        let vm = Some(row.vm);
        let left = match row.kind {
            ResourceKind::Volume => {
                let key = (row.place.clone(), row.name.clone());
                self.host.volumes.get(&key).is_some_and(|volume| volume.vm == vm)
            }
            _ => {
                let path = std::path::Path::new(&row.place).join(&row.name);
                self.host.files.get(&path).is_some_and(|file| file.vm() == vm)
            }
        };
        if left {
            let label = self.label(row.vm);
            self.violate(format_args!("the row of {} of {label} goes, and the thing is there", row.name));
        }
    }

    /// A VM is forgotten only when nothing is left of it.
    pub fn judge_end(&mut self, vm: VmId) {
        let left = self.host.left_of(vm);
        if !left.is_empty() {
            let label = self.label(vm);
            self.violate(format_args!("{label} is forgotten, and this is left: {}", left.join(", ")));
        }
    }
}

/// What is not yet as it has to be once everything is calm; empty when all is.
pub fn unsettled(state: &State) -> Vec<String> {
    let mut faults = Vec::new();
    for vm in &state.database.order {
        let label = state.label(*vm);
        let found = if state.database.vms.contains_key(vm) { of_vm(state, *vm) } else { of_gone(state, *vm) };
        faults.extend(found.into_iter().map(|fault| format!("{label}: {fault}")));
    }
    faults
}

/// Requests for power or an end that are not met or given up.
pub fn open_requests(state: &State) -> Vec<String> {
    let open = state.database.vms.iter().filter(|(_, bundle)| {
        let intent = &bundle.record.intent;
        intent.deleting || intent.is_open()
    });
    open.map(|(vm, bundle)| format!("{}: {:?}", state.label(*vm), bundle.record.intent)).collect()
}

fn of_gone(state: &State, vm: VmId) -> Vec<String> {
    let mut faults: Vec<String> = state.host.left_of(vm);
    let mut ends = state.database.over.iter().filter(|it| it.vm == vm && it.kind == OperationKind::Delete);
    match ends.next() {
        Some(end) if end.status == OperationStatus::Succeeded => {}
        other => faults.push(format!("its deletion ended as {other:?}")),
    }
    if state.links.contains_key(&vm) {
        faults.push("its link is kept".to_owned());
    }
    faults
}

fn of_vm(state: &State, vm: VmId) -> Vec<String> {
    let bundle = &state.database.vms[&vm];
    let intent = &bundle.record.intent;
    let mut faults = Vec::new();
    if intent.deleting {
        faults.push(format!("it is not deleted: {:?}", state.host.left_of(vm)));
        return faults;
    }
    for open in &bundle.operations {
        faults.push(format!("its {:?} is open at {:?}", open.kind, open.stage));
    }
    if intent.is_open() {
        faults.push(format!("generation {} ({:?}) is open", intent.generation, intent.power));
    }
    let robbed = state.watch.robbed.contains(&vm);
    let calm =
        state.database.over.iter().filter(|it| it.vm == vm && state.watch.asked_in_calm.contains(&it.id));
    for failed in calm.filter(|it| it.status == OperationStatus::Failed && !robbed) {
        faults.push(format!("its {:?} failed when nothing was wrong: {:?}", failed.kind, failed.error));
    }
    let domain = state.host.domains.get(&vm);
    let is_off = domain.is_none_or(|domain| domain.state == DomainState::Shutoff);
    let is_on = domain.is_some_and(|domain| domain.state.is_active());
    if intent.is_given_up() {
        let mut told = state.database.over.iter().filter(|it| it.vm == vm);
        if !told.any(|it| it.generation == intent.generation && it.error.is_some()) {
            faults.push("a request was given up, and nobody was told".to_owned());
        }
    } else if !state.watch.disturbed.contains_key(&vm) {
        let fits = if intent.power == DesiredPower::Running { is_on } else { is_off };
        if !fits {
            faults.push(format!(
                "{:?} was asked for, and it is {:?}",
                intent.power,
                domain.map(|it| it.state)
            ));
        }
    }
    faults.extend(of_things(state, vm));
    faults.extend(of_words(state, vm));
    faults
}

/// Rows, milestones and things agree.
fn of_things(state: &State, vm: VmId) -> Vec<String> {
    let bundle = &state.database.vms[&vm];
    let milestones = &bundle.record.milestones;
    let mut faults = Vec::new();
    let has_row = |kind| bundle.resources.iter().any(|row| row.kind == kind);
    for ((pool, name), volume) in state.host.volumes.iter().filter(|(_, volume)| volume.vm == Some(vm)) {
        if !has_row(ResourceKind::Volume) {
            faults.push(format!("no row names its volume {pool}/{name}"));
        }
        if milestones.disk_created.is_some() && !volume.whole {
            faults.push("its disk is half made".to_owned());
        }
    }
    let robbed = state.watch.robbed.contains(&vm);
    for row in bundle.resources.iter().filter(|row| row.state == ResourceState::Created && !robbed) {
        let there = match row.kind {
            ResourceKind::Volume => state.host.volumes.contains_key(&(POOL.to_owned(), row.name.clone())),
            ResourceKind::Seed => {
                state.host.files.contains_key(&std::path::Path::new(&row.place).join(&row.name))
            }
            _ => true,
        };
        if !there {
            faults.push(format!("a row names {}, which is not there", row.name));
        }
    }
    for (path, file) in &state.host.files {
        let kind = match file {
            File::Seed { vm: whose, .. } if *whose == vm => ResourceKind::Seed,
            File::Other { vm: whose } if *whose == vm && path.starts_with("/console") => {
                ResourceKind::ConsoleLog
            }
            _ => continue,
        };
        if !has_row(kind) {
            faults.push(format!("no row names {}", path.display()));
        }
    }
    if state.host.domains.contains_key(&vm) && milestones.defined.is_none() {
        faults.push("it has a domain that nobody noted".to_owned());
    }
    if milestones.defined.is_some() && !state.host.domains.contains_key(&vm) && !robbed {
        faults.push("its domain is gone".to_owned());
    }
    // Nothing can be tidied up on a VM that is not there.
    let has_seed = milestones.seed_written.is_some();
    if has_seed && milestones.installed.is_some() && state.host.domains.contains_key(&vm) {
        let scrubbed = state.host.files.values().all(|file| *file != File::Seed { vm, scrubbed: false });
        let secret = bundle.record.spec.unattended.password_hash.is_some();
        if milestones.seed_scrubbed.is_none() || !scrubbed || secret {
            faults.push("its secrets are kept".to_owned());
        }
    }
    faults
}

/// What people are told is so.
fn of_words(state: &State, vm: VmId) -> Vec<String> {
    let bundle = &state.database.vms[&vm];
    let Some(status) = &bundle.status else { return vec!["nothing is told of it".to_owned()] };
    let mut faults = Vec::new();
    let domain = state.host.domains.get(&vm);
    let defined = bundle.record.milestones.defined.is_some();
    let fits: &[VmPhase] = match domain.map(|domain| domain.state) {
        None if defined => &[VmPhase::Missing],
        None => &[VmPhase::Failed, VmPhase::Stopped],
        Some(DomainState::Running) => &[VmPhase::Running, VmPhase::Installing],
        Some(DomainState::Paused) => &[VmPhase::Paused],
        Some(DomainState::Crashed) => &[VmPhase::Crashed],
        Some(_) => &[VmPhase::Stopped, VmPhase::Failed, VmPhase::Crashed],
    };
    if !fits.contains(&status.phase) {
        faults.push(format!("it is told to be {:?}, and is {:?}", status.phase, domain.map(|it| it.state)));
    }
    if domain.is_some_and(|domain| domain.state != DomainState::Paused) {
        let online = status.agent == AgentConnectivity::Online;
        if online != state.speaks(vm) {
            faults.push(format!("its agent is told to be {:?}", status.agent));
        }
    }
    let blind = status.conditions.iter().any(|condition| {
        condition.kind == infinibay::vm::ConditionKind::HypervisorReachable
            && condition.status != ConditionStatus::True
    });
    if blind {
        faults.push("libvirt is told to be away".to_owned());
    }
    faults
}
