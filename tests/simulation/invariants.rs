//! What must hold: some of it whenever the loop does something, the rest once everything has calmed
//! down.

use std::path::{Path, PathBuf};

use infinibay::{
    domain_xml::{DiskKind, read_hardware},
    vm::{
        AgentConnectivity, Condition, ConditionKind, ConditionStatus, DesiredPower, DeviceChange, DiscSource,
        DomainState, IdentityChange, Milestone, NoteFacts, OnPowerOff, Operation, OperationId, OperationKind,
        OperationStatus, Quiesced, Resource, ResourceKind, ResourceState, SettingChange, SizeChange,
        SnapshotChange, VmChange, VmId, VmPhase,
    },
};

use super::{
    clones::{lost_its_source, of_clone, shares},
    host::{Domain, File, MEDIA, POOL, volume_path},
    installers::{Boot, TOOLS},
    watch::Seen,
    world::State,
};

/// Judgements on what the loop does.
impl State {
    /// A fact is noted only if it is one.
    pub fn judge_milestone(&mut self, vm: VmId, milestone: Milestone) {
        let host = &self.host;
        let holds = match milestone {
            Milestone::DiskCreated => host.root(vm).is_some_and(|it| it.whole),
            Milestone::SeedWritten => host.once_had_seed.contains(&vm),
            Milestone::Defined => host.once_defined.contains(&vm),
            Milestone::FirstStarted => host.domains.get(&vm).is_none_or(|domain| domain.boot > 0),
            Milestone::SystemInstalled => host.root(vm).is_some_and(|it| it.has_system),
            Milestone::BootReplaced => {
                let fits = |domain: &Domain| domain.boots == Boot::Disk && !domain.holds_installer();
                host.domains.get(&vm).is_none_or(fits)
            }
            Milestone::FirstSeen | Milestone::Installed | Milestone::SeedScrubbed => {
                host.once_defined.contains(&vm)
            }
        };
        if !holds && !self.watch.robbed.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("{label} passes {milestone:?}, which is not so"));
        }
    }

    /// A domain is given whole disks, and its own.
    pub fn judge_disks(&mut self, vm: VmId, xml: &str) {
        let Ok(hardware) = read_hardware(xml) else { return };
        for disk in hardware.disks.iter().filter(|disk| disk.kind == DiskKind::Disk) {
            let Some(path) = &disk.source else { continue };
            let mut all = self.host.volumes.iter();
            let volume =
                all.find(|((pool, name), _)| volume_path(pool, name) == *path).map(|(_, it)| it.clone());
            let fits = volume.as_ref().is_some_and(|volume| volume.vm == Some(vm) && volume.whole);
            if !fits && !self.watch.robbed.contains(&vm) {
                let label = self.label(vm);
                self.violate(format_args!("{label} is defined with {}, which is {volume:?}", path.display()));
            }
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
        let (Some(domain), Some(change)) = (self.host.domains.get(&vm), change) else { return };
        let others = self.watch.robbed.contains(&vm) || self.watch.warped.contains(&vm);
        if !is_done(self, domain, id, &change) && !others {
            let label = self.label(vm);
            self.violate(format_args!("a change of {label} counts as done, and is not: {change:?}"));
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
                let path = Path::new(&row.place).join(&row.name);
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

/// Whether a change is what it is said to be.
fn is_done(state: &State, domain: &Domain, id: OperationId, change: &VmChange) -> bool {
    let config = &domain.config;
    let bytes = |path: &Path| {
        let mut volumes = state.host.volumes.iter();
        volumes.find(|((pool, name), _)| volume_path(pool, name) == path).map(|(_, volume)| volume.bytes)
    };
    let holds = |path: &Path| config.disks.iter().any(|it| it.source.as_deref() == Some(path));
    match change {
        VmChange::Guest(_) => domain.resets + domain.reboots_asked > 0,
        VmChange::Setting(SettingChange::Autostart(on)) => domain.autostart == *on,
        VmChange::Setting(SettingChange::Rename(name)) => domain.name == name.as_str(),
        VmChange::Lend(loan) => state.database.vms.get(&loan.to).is_none_or(|copy| {
            let clones = copy.operations.iter().any(|it| it.kind == OperationKind::Clone);
            !clones || copy.record.intent.deleting || copy.record.milestones.disk_created.is_some()
        }),
        VmChange::Setting(SettingChange::Policy { .. }) => true,
        VmChange::Size(SizeChange::Resize { vcpus, memory_mib }) => {
            vcpus.is_none_or(|it| it == config.vcpus) && memory_mib.is_none_or(|it| it == config.memory_mib)
        }
        VmChange::Size(SizeChange::GrowDisk { target, bytes: wanted }) => {
            let disk = config.disk(target.as_str()).or_else(|| domain.live.disk(target.as_str()));
            let path = disk.and_then(|disk| disk.source.as_deref());
            path.and_then(bytes).is_some_and(|bytes| bytes >= *wanted)
        }
        VmChange::Device(DeviceChange::AttachDisk { pool, volume, bytes: wanted }) => {
            let path = volume_path(pool.as_str(), volume);
            holds(&path) && bytes(&path) == Some(*wanted)
        }
        VmChange::Device(DeviceChange::DetachDisk { disk, delete_volume }) => {
            let path = volume_path(disk.pool.as_str(), &disk.volume);
            config.disk(disk.target.as_str()).is_none() && !(*delete_volume && bytes(&path).is_some())
        }
        VmChange::Device(DeviceChange::InsertMedium { source, .. }) => {
            disc_path(source).is_some_and(|path| holds(&path))
        }
        VmChange::Device(DeviceChange::EjectMedium { drive }) => {
            config.disk(drive.as_str()).is_none_or(|disk| disk.is_empty)
        }
        VmChange::Device(DeviceChange::AttachInterface { .. }) => !config.cards.is_empty(),
        VmChange::Device(DeviceChange::DetachInterface { mac }) => !config.has_card(mac),
        VmChange::Snapshot(SnapshotChange::Create(_)) => {
            let own = |tag: infinibay::vm::SnapshotTag| tag.operation == id;
            let mut shots = domain.shots.iter().filter(|shot| shot.tag.is_some_and(own));
            let shot = shots.next();
            // One that says that the file systems were at rest was taken while they were.
            shot.is_some_and(|it| it.at_rest || it.tag.is_none_or(|tag| tag.quiesced != Quiesced::Yes))
        }
        VmChange::Snapshot(SnapshotChange::Revert { .. }) => domain.reverts > 0,
        VmChange::Snapshot(SnapshotChange::Delete { name, .. }) => {
            domain.shots.iter().all(|shot| shot.name != name.as_str())
        }
        VmChange::Identity(IdentityChange::Adopt) => domain.note != NoteFacts::Absent,
        VmChange::Identity(IdentityChange::Release) => {
            domain.note == NoteFacts::Absent && (domain.channel.is_none() || domain.channel_goes)
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

fn ended(state: &State, vm: VmId, which: impl Fn(&Operation) -> bool) -> bool {
    state.database.over.iter().any(|it| it.vm == vm && which(it))
}

/// The domain goes on without us.
fn of_released(state: &State, vm: VmId) -> Vec<String> {
    let kept = state.host.domains.get(&vm).is_some_and(|domain| {
        domain.note != NoteFacts::Absent || (domain.channel.is_some() && !domain.channel_goes)
    });
    let gone = !state.host.domains.contains_key(&vm) && !state.watch.robbed.contains(&vm);
    let mut faults = Vec::new();
    if kept {
        faults.push("it was given back with what it was given".to_owned());
    }
    if gone {
        faults.push("it was to be given back, and is gone".to_owned());
    }
    if state.links.contains_key(&vm) {
        faults.push("its link is kept".to_owned());
    }
    faults
}

fn of_gone(state: &State, vm: VmId) -> Vec<String> {
    let released =
        |it: &Operation| it.kind == OperationKind::Release && it.status == OperationStatus::Succeeded;
    if ended(state, vm, released) {
        return of_released(state, vm);
    }
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
    // A guest that somebody halted while it may be frozen is let go when it goes on, however late.
    let domain = state.host.domains.get(&vm);
    let is_paused = domain.is_some_and(|domain| domain.state == DomainState::Paused);
    let rests = |open: &&Operation| {
        is_paused && open.change.as_ref().is_some_and(VmChange::may_be_frozen) && !intent.is_open()
    };
    for open in bundle.operations.iter().filter(|open| !rests(open)) {
        faults.push(format!("its {:?} is open at {:?}", open.kind, open.stage));
    }
    if intent.is_open() {
        faults.push(format!("generation {} ({:?}) is open", intent.generation, intent.power));
    }
    let robbed = state.watch.robbed.contains(&vm);
    let calm =
        state.database.over.iter().filter(|it| it.vm == vm && state.watch.asked_in_calm.contains(&it.id));
    for failed in calm.filter(|it| it.status == OperationStatus::Failed && !robbed) {
        if lost_its_source(failed) && bundle.record.milestones.disk_created.is_none() {
            continue;
        }
        faults.push(format!("its {:?} failed when nothing was wrong: {:?}", failed.kind, failed.error));
    }
    let domain = state.host.domains.get(&vm);
    let is_off = domain.is_none_or(|domain| domain.state == DomainState::Shutoff);
    let is_on = domain.is_some_and(|domain| domain.state.is_active());
    if intent.is_given_up() {
        let mut told = state.database.over.iter().filter(|it| it.vm == vm);
        // Who asked for an installation may have been told of its end before; it is told for ever.
        let failed =
            |it: &Condition| it.kind == ConditionKind::InstallProgressing && it.reason == "InstallFailed";
        let stands = bundle.status.as_ref().is_some_and(|status| status.conditions.iter().any(failed));
        if !told.any(|it| it.generation == intent.generation && it.error.is_some()) && !stands {
            faults.push("a request was given up, and nobody was told".to_owned());
        }
    } else if !state.watch.disturbed.contains_key(&vm) {
        let fits = match intent.power {
            DesiredPower::Running | DesiredPower::ColdRunning => is_on,
            DesiredPower::Paused => domain.is_some_and(|it| it.state == DomainState::Paused),
            DesiredPower::Saved => is_off && domain.is_some_and(|it| it.saved.is_some()),
            DesiredPower::Stopped | DesiredPower::ForcedOff => is_off,
        };
        if !fits {
            faults.push(format!(
                "{:?} was asked for, and it is {:?}",
                intent.power,
                domain.map(|it| it.state)
            ));
        }
    }
    faults.extend(of_things(state, vm));
    faults.extend(of_hardware(state, vm));
    faults.extend(shares(state, vm));
    faults.extend(state.of_installed(vm));
    faults.extend(of_clone(state, vm));
    faults.extend(of_guest(state, vm));
    faults.extend(of_words(state, vm));
    faults
}

/// The specification agrees with the domain, unless somebody changed that, or was told that a change
/// could not be ended.
fn of_hardware(state: &State, vm: VmId) -> Vec<String> {
    let Some(domain) = state.host.domains.get(&vm) else { return Vec::new() };
    let others = state.watch.robbed.contains(&vm) || state.watch.warped.contains(&vm);
    let told = ended(state, vm, |it| it.change.is_some() && it.status != OperationStatus::Succeeded);
    if others || told || domain.is_foreign {
        return Vec::new();
    }
    let (spec, config) = (&state.database.vms[&vm].record.spec, &domain.config);
    let mut faults = Vec::new();
    if (spec.vcpus, spec.memory_mib) != (config.vcpus, config.memory_mib) {
        faults.push(format!(
            "it is to have {} processors and {} MiB, and has {} and {}",
            spec.vcpus, spec.memory_mib, config.vcpus, config.memory_mib
        ));
    }
    if spec.name.as_str() != domain.name {
        faults.push(format!("it is to be called {}, and is {}", spec.name, domain.name));
    }
    // What was put back is put back with what it had then.
    if domain.reverts > 0 {
        return faults;
    }
    let wanted: Vec<_> =
        spec.devices.disks.iter().map(|it| volume_path(it.pool.as_str(), &it.volume)).collect();
    let disks = config.disks.iter().filter(|it| it.kind == DiskKind::Disk && it.target != "vda");
    let mut found: Vec<_> = disks.filter_map(|it| it.source.clone()).collect();
    let mut sorted = wanted;
    sorted.sort();
    found.sort();
    if sorted != found {
        faults.push(format!("it is to have {sorted:?}, and has {found:?}"));
    }
    for medium in &spec.devices.media {
        let path = disc_path(&medium.source);
        let drive = config.disk(medium.target.as_str());
        if drive.and_then(|disk| disk.source.as_ref()) != path.as_ref() {
            faults.push(format!("{} is to hold {path:?}, and is {drive:?}", medium.target));
        }
    }
    let is_medium = |path: &&PathBuf| path.starts_with(format!("/{MEDIA}")) || *path == Path::new(TOOLS);
    let held = config.disks.iter().filter_map(|it| it.source.as_ref()).filter(is_medium);
    if held.count() != spec.devices.media.len() {
        faults.push("it holds media that nobody notes".to_owned());
    }
    if let Some(card) = spec.devices.interfaces.iter().find(|card| !config.has_card(&card.mac)) {
        faults.push(format!("its card {} is not there", card.mac));
    }
    faults
}

/// No guest is left frozen, unless somebody was told; one that is to be kept running is.
fn of_guest(state: &State, vm: VmId) -> Vec<String> {
    let Some(domain) = state.host.domains.get(&vm) else { return Vec::new() };
    let bundle = &state.database.vms[&vm];
    let mut faults = Vec::new();
    let code = |it: &Operation| it.error.as_ref().is_some_and(|error| error.code == "THAW_FAILED");
    if domain.is_frozen && domain.state == DomainState::Running && !ended(state, vm, code) {
        faults.push("its file systems are frozen".to_owned());
    }
    let intent = &bundle.record.intent;
    let wants = intent.power.is_on() && !intent.is_open() && !intent.is_given_up();
    let corrects = bundle.record.spec.keeping.on_power_off == OnPowerOff::Correct;
    // By itself, or by somebody.
    let off = domain.state == DomainState::Shutoff && matches!(domain.reason, 1 | 2 | 5 | 7);
    let loops = |condition: &Condition| {
        condition.kind == ConditionKind::DriftedFromIntent && condition.reason == "BootLoop"
    };
    let tired = bundle.status.as_ref().is_some_and(|status| status.conditions.iter().any(loops));
    let robbed = state.watch.robbed.contains(&vm);
    if wants && corrects && off && !tired && !robbed {
        faults.push("it is to be kept running, and is off".to_owned());
    }
    faults
}

/// Rows, milestones and things agree.
fn of_things(state: &State, vm: VmId) -> Vec<String> {
    let bundle = &state.database.vms[&vm];
    let milestones = &bundle.record.milestones;
    let mut faults = Vec::new();
    let has_row = |kind| bundle.resources.iter().any(|row| row.kind == kind);
    let is_named =
        |name: &str| bundle.resources.iter().any(|row| row.kind == ResourceKind::Volume && row.name == name);
    for ((pool, name), volume) in state.host.volumes.iter().filter(|(_, volume)| volume.vm == Some(vm)) {
        if !is_named(name) {
            faults.push(format!("no row names its volume {pool}/{name}"));
        }
        if milestones.disk_created.is_some() && !volume.whole {
            faults.push("its disk is half made".to_owned());
        }
    }
    let robbed = state.watch.robbed.contains(&vm);
    // One who was told that a disk could not be taken out asks again, which ends what was begun.
    let detaching = |name: &str| {
        ended(state, vm, |it| {
            it.status == OperationStatus::Failed
                && matches!(
                    &it.change,
                    Some(VmChange::Device(DeviceChange::DetachDisk { disk, .. })) if disk.volume == name
                )
        })
    };
    let made = bundle.resources.iter().filter(|row| row.state == ResourceState::Created && !robbed);
    for row in made.filter(|row| !detaching(&row.name)) {
        let there = match row.kind {
            ResourceKind::Volume => state.host.volumes.contains_key(&(POOL.to_owned(), row.name.clone())),
            ResourceKind::Seed => state.host.files.contains_key(&Path::new(&row.place).join(&row.name)),
            _ => true,
        };
        if !there {
            faults.push(format!("a row names {}, which is not there", row.name));
        }
    }
    for (path, file) in &state.host.files {
        let kind = match file {
            File::Seed { vm: whose, .. } | File::Installer { vm: whose } if *whose == vm => {
                ResourceKind::Seed
            }
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
        let token = bundle.record.spec.installation().is_some_and(|it| it.token.is_some());
        let secret = bundle.record.spec.unattended.password_hash.is_some() || token;
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
        Some(_) if domain.is_some_and(|domain| domain.saved.is_some()) => &[VmPhase::Saved, VmPhase::Failed],
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

/// The file of a volume, or of a disc of the library.
fn disc_path(source: &DiscSource) -> Option<PathBuf> {
    match source {
        DiscSource::Volume { pool, volume } => Some(volume_path(pool.as_str(), volume.as_str())),
        DiscSource::Library { medium } => Some(PathBuf::from(format!("/discs/{medium}.iso"))),
    }
}
