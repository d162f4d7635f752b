//! A simulated host: store, hypervisor, files, links and clock, all behind one mutex and one
//! gate.

mod clone;
mod console;
mod devices;
mod guest;
mod identity;
mod installer;
mod snapshots;
mod storage;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, broadcast};

use self::snapshots::Shots;
pub(super) use self::{installer::Manners, snapshots::Hang};
use crate::{
    hypervisor::{
        DomainType, HostFacts, HostObservation, Hypervisor, HypervisorError, HypervisorEvent, Lease,
        OverlayVolume, Reboots,
    },
    reconcile::{
        observation::InstallSigns,
        ports::{Clock, Files, FilesError, LoopLinks, LoopStore, Randomness, SeedPlace},
    },
    store::{ChangeOutcome, StoreError, VmBundle},
    vm::{
        Base, ChannelFacts, DesiredPower, DomainAbout, DomainFacts, DomainObservation, DomainState, Firmware,
        FirstBoot, HostId, IdentityChange, Image, ImageFormat, InstallerBoot, LinkCounters, LinkEnd,
        LinkObservation, LinkSeal, Milestone, Milestones, NetworkAttachment, NoteFacts, OpenLink, Operation,
        OperationError, OperationId, OperationKind, OperationStatus, Origin, OsFamily, PowerKeeping,
        Provisioning, Resource, ResourceState, SealKey, SocketObservation, Unattended, UserId, VmChange,
        VmId, VmIntent, VmNote, VmRecord, VmSpec, VmStatus,
    },
};

/// Where the world ends: before or after the n-th effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    Before(u32),
    After(u32),
}

#[derive(Debug, Default)]
struct State {
    bundle: Option<VmBundle>,
    lending: clone::Lending,
    finished: Vec<Operation>,
    domain: Option<DomainState>,
    /// libvirt's reason for the state.
    reason: i32,
    name: Option<String>,
    saved: bool,
    /// Saving takes longer than a call is waited for.
    slow: bool,
    /// Until then a call is under way that nobody waits for.
    late_until: Option<DateTime<Utc>>,
    volumes: BTreeSet<String>,
    pool_is_silent: bool,
    pool_is_full: bool,
    files: BTreeSet<PathBuf>,
    links: HashMap<VmId, PathBuf>,
    scrubbed: bool,
    starts: u32,
    resets: u32,
    reboots_asked: u32,
    name_taken: bool,
    reboots: Reboots,
    autostart: bool,
    plugs: devices::Plugs,
    note: NoteFacts,
    notes: u32,
    reachable: bool,
    /// So many looks at domains fail, although the hypervisor is there.
    blind_looks: u32,
    deaf: bool,
    stuck: bool,
    faults: Vec<bool>,
    effects: u32,
    crash: Option<Crash>,
    shots: Shots,
    installer: installer::Installer,
}

pub(super) struct World {
    state: Mutex<State>,
    crashed: Notify,
    events: broadcast::Sender<HypervisorEvent>,
    origin: tokio::time::Instant,
    vm: VmId,
    me: Weak<World>,
}

fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

impl World {
    /// A host on which somebody just asked for a VM.
    pub(super) fn with_vm() -> Arc<Self> {
        let vm = VmId::generate();
        let owner = UserId::generate();
        let record = VmRecord {
            id: vm,
            host: HostId::generate(),
            owner,
            spec: spec(),
            intent: VmIntent {
                power: DesiredPower::Running,
                deleting: false,
                generation: 1,
                satisfied: 0,
                given_up: 0,
                asked_at: epoch(),
            },
            milestones: Milestones::default(),
            created_at: epoch(),
        };
        let operations = vec![operation(vm, owner, OperationKind::Create, 1)];
        let bundle = VmBundle {
            record,
            status: None,
            operations,
            resources: Vec::new(),
            install_report: None,
            seal: None,
        };
        let state = State { bundle: Some(bundle), reachable: true, ..State::default() };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            state: Mutex::new(state),
            crashed: Notify::new(),
            events: broadcast::channel(64).0,
            origin: tokio::time::Instant::now(),
            vm,
        })
    }

    /// For what goes on after its caller is gone.
    fn me(&self) -> Arc<Self> {
        self.me.upgrade().expect("a world that is used is there")
    }

    /// A host on which somebody just asked to adopt a domain that runs.
    pub(super) fn with_adopted() -> Arc<Self> {
        let world = Self::with_vm();
        {
            let mut state = world.state();
            state.domain = Some(DomainState::Running);
            state.note = NoteFacts::Absent;
            let bundle = state.bundle.as_mut().expect("the VM is there");
            bundle.record.spec.origin = Origin::Adopted { macs: Vec::new() };
            bundle.record.intent.satisfied = 1;
            let at = Some(epoch());
            bundle.record.milestones = Milestones {
                disk_created: at,
                defined: at,
                first_started: at,
                installed: at,
                seed_scrubbed: at,
                ..Milestones::default()
            };
            let change = VmChange::Identity(IdentityChange::Adopt);
            bundle.operations[0].kind = change.kind();
            bundle.operations[0].change = Some(change);
        }
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every effect passes here, and may be the last thing that happens.
    async fn effect<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (count, crash) = {
            let mut state = self.state();
            state.effects += 1;
            (state.effects, state.crash)
        };
        if crash == Some(Crash::Before(count)) {
            self.end().await;
        }
        let result = work(&mut self.state());
        if crash == Some(Crash::After(count)) {
            self.end().await;
        }
        result
    }

    async fn end(&self) {
        self.crashed.notify_one();
        std::future::pending::<()>().await;
    }

    /// An effect of the hypervisor, which may be away or fail.
    async fn on_host<T>(&self, name: &str, work: impl FnOnce(&mut State) -> T) -> Result<T, HypervisorError> {
        self.effect(|state| {
            if !state.reachable {
                return Err(HypervisorError::Unreachable { operation: name.to_owned(), source: None });
            }
            if state.faults.pop() == Some(true) {
                return Err(HypervisorError::Invalid {
                    operation: name.to_owned(),
                    reason: "a fault".to_owned(),
                });
            }
            Ok(work(state))
        })
        .await
    }

    async fn on_bundle(&self, vm: VmId, work: impl FnOnce(&mut VmBundle)) -> Result<(), StoreError> {
        self.effect(|state| state.bundle_of(vm).as_mut().map(work)).await;
        Ok(())
    }

    /// On whichever has it.
    async fn on_operation(
        &self,
        id: OperationId,
        work: impl FnOnce(&mut Operation),
    ) -> Result<(), StoreError> {
        self.effect(|state| {
            let all = state.bundle.iter_mut().chain(&mut state.lending.bundle);
            all.flat_map(|bundle| &mut bundle.operations).find(|operation| operation.id == id).map(work)
        })
        .await;
        Ok(())
    }

    pub(super) fn crash_at(&self, crash: Crash) {
        let mut state = self.state();
        state.effects = 0;
        state.crash = Some(crash);
    }

    pub(super) fn never_crash(&self) {
        self.state().crash = None;
        self.state().shots.forget_late();
        self.state().lending.forget();
        // The process took its links with it.
        self.state().links.clear();
    }

    pub(super) async fn crashed(&self) {
        self.crashed.notified().await;
    }

    pub(super) fn vm(&self) -> VmId {
        self.vm
    }

    /// The next looks at domains fail.
    pub(super) fn blind(&self, looks: u32) {
        self.state().blind_looks = looks;
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.state().reachable = reachable;
        let event = if reachable { HypervisorEvent::Connected } else { HypervisorEvent::Disconnected };
        let _ = self.events.send(event);
    }

    /// The domain is in this state, whoever brought it there.
    pub(super) fn set_domain(&self, domain: DomainState, reason: i32) {
        {
            let mut state = self.state();
            state.domain = Some(domain);
            state.reason = reason;
        }
        let _ = self.events.send(HypervisorEvent::Domain(self.vm));
    }

    pub(super) fn save_slowly(&self) {
        self.state().slow = true;
    }

    /// libvirt tells reboots, from now on.
    pub(super) fn tell_reboots(&self) {
        self.state().reboots.told_since = Some(self.now());
    }

    pub(super) fn reboots_asked(&self) -> u32 {
        self.state().reboots_asked
    }

    pub(super) fn is_saved(&self) -> bool {
        self.state().saved
    }

    /// Somebody asks for a VM under the name that ours is about to get.
    pub(super) fn take_new_name(&self) {
        self.state().name_taken = true;
    }

    pub(super) fn names(&self) -> (String, String) {
        let state = self.state();
        let stored = state.bundle.as_ref().map(|bundle| bundle.record.spec.name.to_string());
        (state.name.clone().unwrap_or_else(|| "simulated".to_owned()), stored.unwrap_or_default())
    }

    pub(super) fn set_policy(&self, keeping: PowerKeeping) {
        if let Some(bundle) = &mut self.state().bundle {
            bundle.record.spec.keeping = keeping;
        }
    }

    /// Its processors halt again as soon as they go on, as where a disk is full.
    pub(super) fn set_stuck(&self, stuck: bool) {
        self.state().stuck = stuck;
    }

    pub(super) fn set_deaf(&self, deaf: bool) {
        self.state().deaf = deaf;
    }

    pub(super) fn set_faults(&self, faults: Vec<bool>) {
        self.state().faults = faults;
    }

    pub(super) fn lose_domain(&self) {
        self.state().domain = None;
        let _ = self.events.send(HypervisorEvent::Domain(self.vm));
    }

    pub(super) fn ask_delete(&self) {
        self.ask(OperationKind::Delete, |intent| intent.deleting = true);
    }

    pub(super) fn ask_power(&self, power: DesiredPower) {
        let kind = match power {
            DesiredPower::Running | DesiredPower::ColdRunning => OperationKind::Start,
            DesiredPower::Stopped | DesiredPower::ForcedOff => OperationKind::Stop,
            DesiredPower::Paused => OperationKind::Suspend,
            DesiredPower::Saved => OperationKind::Save,
        };
        self.ask(kind, |intent| intent.power = power);
    }

    pub(super) fn ask_change(&self, change: VmChange) {
        let mut state = self.state();
        let bundle = state.bundle.as_mut().expect("the VM is there");
        let generation = bundle.record.intent.generation;
        let mut asked = operation(self.vm, bundle.record.owner, change.kind(), generation);
        asked.change = Some(change);
        asked.created_at = self.now();
        bundle.operations.push(asked);
    }

    pub(super) fn is_autostarted(&self) -> bool {
        self.state().autostart
    }

    pub(super) fn resets(&self) -> u32 {
        self.state().resets
    }

    fn ask(&self, kind: OperationKind, change: impl FnOnce(&mut VmIntent)) {
        let now = self.now();
        let mut state = self.state();
        let bundle = state.bundle.as_mut().expect("the VM is there");
        change(&mut bundle.record.intent);
        bundle.record.intent.generation += 1;
        bundle.record.intent.asked_at = now;
        let asked = operation(self.vm, bundle.record.owner, kind, bundle.record.intent.generation);
        let superseded = std::mem::take(&mut bundle.operations);
        bundle.operations.push(asked);
        state.finished.extend(
            superseded
                .into_iter()
                .map(|operation| Operation { status: OperationStatus::Superseded, ..operation }),
        );
    }

    pub(super) fn status(&self) -> Option<VmStatus> {
        self.state().bundle.as_ref().and_then(|bundle| bundle.status.clone())
    }

    /// Those that are over (but not superseded) and those that are open.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let state = self.state();
        let all = state.bundle.iter().chain(&state.lending.bundle);
        let open = all.flat_map(|bundle| bundle.operations.clone());
        let over = state
            .finished
            .iter()
            .filter(|operation| operation.status != OperationStatus::Superseded)
            .cloned();
        open.chain(over).collect()
    }

    pub(super) fn spec(&self) -> VmSpec {
        self.state().bundle.as_ref().expect("the VM is there").record.spec.clone()
    }

    pub(super) fn volumes(&self) -> usize {
        self.state().volumes.len()
    }

    pub(super) fn starts(&self) -> u32 {
        self.state().starts
    }

    pub(super) fn domain_state(&self) -> Option<DomainState> {
        self.state().domain
    }

    pub(super) fn is_scrubbed(&self) -> bool {
        let state = self.state();
        let noted =
            state.bundle.as_ref().is_some_and(|bundle| bundle.record.milestones.seed_scrubbed.is_some());
        state.scrubbed && noted
    }

    /// Whether the domain says what the VM is.
    pub(super) fn is_noted(&self) -> bool {
        let state = self.state();
        state.bundle.as_ref().is_some_and(|bundle| {
            let note = VmNote::of(&bundle.record, &bundle.resources);
            // At its definition, and when it was installed; once more where a crash came between.
            assert!(state.notes <= 3, "the domain is noted in again and again");
            state.note == NoteFacts::Present(note.digest())
        })
    }

    /// How often the domain was told what it is, beside its definition.
    pub(super) fn notes(&self) -> u32 {
        self.state().notes
    }

    /// Whether nothing of ours stands in the domain.
    pub(super) fn is_unmarked(&self) -> bool {
        self.state().note == NoteFacts::Absent
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state().bundle.is_none()
    }

    pub(super) fn nothing_is_left(&self) -> bool {
        let state = self.state();
        state.bundle.is_none() && state.domain.is_none() && state.volumes.is_empty() && state.files.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        format!("{:#?}", self.state())
    }
}

impl State {
    fn bundle_of(&mut self, vm: VmId) -> &mut Option<VmBundle> {
        let is_lender = self.lending.bundle.as_ref().is_some_and(|bundle| bundle.record.id == vm);
        let known = self.bundle.as_ref().is_some_and(|bundle| bundle.record.id == vm);
        match (is_lender, known) {
            (true, _) => &mut self.lending.bundle,
            (_, true) => &mut self.bundle,
            _ => &mut self.lending.nobody,
        }
    }
}

fn operation(vm: VmId, by: UserId, kind: OperationKind, generation: i64) -> Operation {
    Operation {
        id: OperationId::generate(),
        vm,
        kind,
        status: OperationStatus::Pending,
        progress: 0,
        stage: String::new(),
        error: None,
        change: None,
        effect: None,
        generation,
        requested_by: by,
        created_at: epoch(),
        finished_at: None,
    }
}

fn spec() -> VmSpec {
    VmSpec {
        name: "simulated".parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: PathBuf::from("/images/debian/disk.qcow2"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::None,
        unattended: Unattended::default(),
        keeping: PowerKeeping::default(),
        devices: Default::default(),
        origin: Origin::Created,
    }
}

fn facts(domain: DomainState, state: &State) -> DomainFacts {
    DomainFacts {
        name: state.name.clone().unwrap_or_else(|| "simulated".to_owned()),
        state: domain,
        reason: state.reason,
        persistent: true,
        managed_save: state.saved,
        channel: Some(ChannelFacts { path: PathBuf::from("/sockets/a.sock"), guest_connected: None }),
        interfaces: Vec::new(),
        waiting: Vec::new(),
        about: DomainAbout { note: state.note.clone(), ..DomainAbout::default() },
    }
}

impl Clock for World {
    fn now(&self) -> DateTime<Utc> {
        epoch() + TimeDelta::from_std(self.origin.elapsed()).unwrap()
    }
}

impl Randomness for World {
    fn jitter(&self) -> f64 {
        0.5
    }
}

impl LoopLinks for World {
    fn open(&self, vm: VmId, path: &Path, _: Option<&SealKey>) {
        self.state().links.insert(vm, path.to_owned());
    }

    fn close(&self, vm: VmId, _: LinkEnd) {
        self.state().links.remove(&vm);
    }

    fn observe(&self, vm: VmId) -> LinkObservation {
        let now = self.now();
        let state = self.state();
        if !state.links.contains_key(&vm) {
            return LinkObservation::None;
        }
        if state.domain != Some(DomainState::Running) || state.installer.is_speechless() {
            return LinkObservation::Connecting {
                since: now,
                last_error: None,
                seal: LinkSeal::Unused,
                counters: LinkCounters::default(),
            };
        }
        LinkObservation::Open(OpenLink {
            since: now,
            last_message_at: Some(now),
            greeted_at: Some(now),
            version: Some("1".to_owned()),
            platform: None,
            capabilities: Vec::new(),
            reported_state: None,
            actions: None,
            skew: None,
            first_boot: FirstBoot::Finished { errors: Vec::new() },
            seal: LinkSeal::Unused,
            counters: LinkCounters::default(),
        })
    }

    fn request_metrics(&self, _vm: VmId) {}
}

#[async_trait]
impl Files for World {
    async fn write_seed(
        &self,
        _vm: VmId,
        _spec: &VmSpec,
        _seal: Option<&SealKey>,
        place: SeedPlace<'_>,
    ) -> Result<(), FilesError> {
        let path = place.dir.join(place.name);
        self.effect(|state| state.files.insert(path)).await;
        Ok(())
    }

    async fn scrub_seed(&self, _vm: VmId, _spec: &VmSpec, _place: SeedPlace<'_>) -> Result<(), FilesError> {
        self.effect(|state| state.scrubbed = true).await;
        Ok(())
    }

    async fn write_installer(
        &self,
        vm: VmId,
        spec: &VmSpec,
        _seal: Option<&SealKey>,
        dir: &Path,
    ) -> Result<InstallerBoot, FilesError> {
        let boot = installer::boot(vm, spec, dir);
        // One effect each: a crash may come between any two.
        for file in installer::files_of(&boot) {
            self.effect(|state| state.write_installer_file(file)).await;
        }
        Ok(boot)
    }

    async fn installer_boot(&self, vm: VmId, spec: &VmSpec, dir: &Path) -> Result<InstallerBoot, FilesError> {
        Ok(installer::boot(vm, spec, dir))
    }

    async fn shred(&self, dir: &Path, name: &str) -> Result<(), FilesError> {
        let path = dir.join(name);
        self.effect(|state| {
            assert!(!state.installer.is_at_work(), "an installer's files were removed while it works");
            state.files.remove(&path);
            state.scrubbed = true;
        })
        .await;
        Ok(())
    }

    async fn install_signs(&self, _console: &Path, _disk: Option<&Path>) -> InstallSigns {
        self.state().installer.signs()
    }

    async fn remove(&self, dir: &Path, name: &str) -> Result<(), FilesError> {
        let path = dir.join(name);
        self.effect(|state| state.files.remove(&path)).await;
        Ok(())
    }

    async fn has_file(&self, path: &Path) -> Result<bool, FilesError> {
        Ok(self.state().files.contains(path))
    }

    async fn inspect_socket(&self, path: &Path) -> SocketObservation {
        if self.state().files.contains(path) {
            SocketObservation::Present
        } else {
            SocketObservation::Missing
        }
    }

    async fn remove_socket(&self, path: &Path) -> Result<(), FilesError> {
        self.effect(|state| state.files.remove(path)).await;
        Ok(())
    }
}

#[async_trait]
impl LoopStore for World {
    async fn load_host(&self) -> Result<Vec<VmBundle>, StoreError> {
        let state = self.state();
        Ok(state.bundle.iter().chain(&state.lending.bundle).cloned().collect())
    }

    async fn load_vm(&self, vm: VmId) -> Result<Option<VmBundle>, StoreError> {
        Ok(self.state().bundle_of(vm).clone())
    }

    async fn pass_milestone(
        &self,
        vm: VmId,
        milestone: Milestone,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.on_bundle(vm, |bundle| bundle.record.milestones.pass(milestone, at)).await
    }

    async fn satisfy(&self, vm: VmId, generation: i64) -> Result<(), StoreError> {
        self.on_bundle(vm, |bundle| {
            let intent = &mut bundle.record.intent;
            intent.satisfied = intent.satisfied.max(generation);
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
        let ended = self.effect(|state| {
            let Some(bundle) = state.bundle_of(vm) else { return Vec::new() };
            bundle.record.intent.satisfied = bundle.record.intent.satisfied.max(generation);
            bundle.record.intent.given_up = generation;
            let (over, open): (Vec<_>, Vec<_>) = bundle.operations.drain(..).partition(|operation| {
                operation.generation <= generation && operation.kind != OperationKind::Delete
            });
            bundle.operations = open;
            let failed = over.into_iter().map(|operation| Operation {
                status: OperationStatus::Failed,
                error: Some(error.clone()),
                finished_at: Some(now),
                ..operation
            });
            let failed: Vec<_> = failed.collect();
            state.finished.extend(failed.clone());
            failed
        });
        Ok(ended.await)
    }

    async fn save_status(&self, vm: VmId, status: &VmStatus) -> Result<(), StoreError> {
        self.on_bundle(vm, |bundle| bundle.status = Some(status.clone())).await
    }

    async fn progress_operation(
        &self,
        id: OperationId,
        progress: i32,
        stage: &str,
    ) -> Result<Option<Operation>, StoreError> {
        self.on_operation(id, |operation| {
            operation.status = OperationStatus::Running;
            operation.progress = progress;
            stage.clone_into(&mut operation.stage);
        })
        .await?;
        self.operation(id).await
    }

    async fn finish_operation(
        &self,
        id: OperationId,
        status: OperationStatus,
        error: Option<OperationError>,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        self.effect(|state| {
            for bundle in state.bundle.iter_mut().chain(&mut state.lending.bundle) {
                let (mut ended, open) = bundle.operations.drain(..).partition(|operation| operation.id == id);
                bundle.operations = open;
                let ended: &mut Vec<Operation> = &mut ended;
                for operation in &mut *ended {
                    operation.status = status;
                    operation.error.clone_from(&error);
                    operation.finished_at = Some(now);
                }
                state.finished.append(ended);
            }
        })
        .await;
        self.operation(id).await
    }

    async fn note_change(&self, id: OperationId, change: &VmChange) -> Result<(), StoreError> {
        self.on_operation(id, |operation| operation.change = Some(change.clone())).await
    }

    async fn finish_change(
        &self,
        vm: VmId,
        id: OperationId,
        outcome: &ChangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        self.effect(|state| {
            let name_taken = state.name_taken;
            let (mut finished, Some(bundle)) = (Vec::new(), state.bundle_of(vm).as_mut()) else {
                return Ok(());
            };
            let renamed = outcome.spec.as_ref().is_some_and(|spec| spec.name != bundle.record.spec.name);
            if renamed && name_taken {
                return Err(StoreError::NameTaken);
            }
            let (ended, open): (Vec<_>, Vec<_>) =
                bundle.operations.drain(..).partition(|operation| operation.id == id);
            bundle.operations = open;
            for operation in ended {
                if let Some(spec) = &outcome.spec {
                    bundle.record.spec = spec.clone();
                }
                let power = outcome.power;
                if let Some(power) = power.filter(|_| bundle.record.intent.generation == operation.generation)
                {
                    bundle.record.intent.power = power;
                }
                finished.push(Operation {
                    status: OperationStatus::Succeeded,
                    effect: outcome.effect,
                    finished_at: Some(now),
                    ..operation
                });
            }
            state.finished.append(&mut finished);
            if outcome.released {
                state.bundle = None;
            }
            Ok(())
        })
        .await?;
        self.operation(id).await
    }

    async fn reserve_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        self.on_bundle(resource.vm, |bundle| {
            let same = |other: &Resource| other.kind == resource.kind && other.name == resource.name;
            if !bundle.resources.iter().any(same) {
                bundle.resources.push(resource.clone());
            }
        })
        .await
    }

    async fn resource_created(&self, resource: &Resource) -> Result<(), StoreError> {
        self.on_bundle(resource.vm, |bundle| {
            for made in bundle.resources.iter_mut().filter(|other| other.name == resource.name) {
                made.state = ResourceState::Created;
            }
        })
        .await
    }

    async fn release_resource(&self, resource: &Resource) -> Result<(), StoreError> {
        self.on_bundle(resource.vm, |bundle| {
            bundle.resources.retain(|other| (other.kind, &other.name) != (resource.kind, &resource.name));
        })
        .await
    }

    async fn forget_secrets(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.on_bundle(vm, |bundle| {
            bundle.record.spec.unattended = bundle.record.spec.unattended.without_secrets();
            bundle.record.milestones.pass(Milestone::SeedScrubbed, now);
        })
        .await
    }

    async fn finish_delete(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.effect(|state| {
            let Some(bundle) = state.bundle_of(vm).take() else { return };
            state.finished.extend(bundle.operations.into_iter().map(|operation| Operation {
                status: OperationStatus::Succeeded,
                finished_at: Some(now),
                ..operation
            }));
        })
        .await;
        Ok(())
    }

    async fn user_name(&self, _user: UserId) -> Result<Option<String>, StoreError> {
        Ok(Some("ana".to_owned()))
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let state = self.state();
        let all = state.bundle.iter().chain(&state.lending.bundle);
        let open = all.flat_map(|bundle| &bundle.operations);
        Ok(open.chain(&state.finished).find(|operation| operation.id == id).cloned())
    }
}

#[async_trait]
impl Hypervisor for World {
    async fn observe_all(&self) -> Result<HostObservation, HypervisorError> {
        let late = self.is_busy(self.vm);
        let now = self.now();
        let mut state = self.state();
        state.work_on_installation(now);
        if !late && state.late_until.take().is_some() {
            state.domain = Some(DomainState::Shutoff);
            (state.reason, state.saved) = (5, true);
        }
        let blind = state.blind_looks > 0;
        state.blind_looks = state.blind_looks.saturating_sub(1);
        if blind || !state.reachable {
            return Err(HypervisorError::Unreachable { operation: "observe".to_owned(), source: None });
        }
        let ours = state.domain.map(|domain| (self.vm, facts(domain, &state)));
        let domains = ours.into_iter().chain(state.lending.domain()).collect();
        Ok(HostObservation { domains })
    }

    async fn observe(&self, id: VmId) -> Result<DomainObservation, HypervisorError> {
        let mut host = self.observe_all().await?;
        Ok(host.domains.remove(&id).map_or(DomainObservation::Absent, DomainObservation::Present))
    }

    fn is_reachable(&self) -> bool {
        self.state().reachable
    }

    fn is_busy(&self, _id: VmId) -> bool {
        let now = self.now();
        self.is_taking_late() || self.state().late_until.is_some_and(|end| now < end)
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }

    async fn domain_type(&self) -> Result<DomainType, HypervisorError> {
        Ok(DomainType::Test)
    }

    async fn define(&self, id: VmId, xml: String) -> Result<(), HypervisorError> {
        self.on_host("define", |state| {
            assert!(xml.contains(&id.to_string()), "the domain is not the VM's");
            state.lending.check_defined(&xml);
            if state.domain.is_none() {
                let spec = state.bundle.as_ref().map(|bundle| &bundle.record.spec);
                state.plugs = spec.map(devices::Plugs::of).unwrap_or_default();
                state.domain = Some(DomainState::Shutoff);
            }
            state.note = crate::domain_xml::read_facts(&xml).expect("a domain").about.note;
            state.installer.defined(&xml);
        })
        .await
    }

    async fn start(&self, id: VmId) -> Result<(), HypervisorError> {
        let now = self.now();
        self.on_host("start", |state| {
            if id != self.vm {
                return state.lending.start();
            }
            if state.domain != Some(DomainState::Running) {
                state.plugs.live = state.plugs.config.clone();
                state.starts += 1;
                state.shots.boot();
                state.installer.started(now);
                // QEMU makes the socket and the console's log.
                state.files.insert(PathBuf::from(format!("/console/vm-{}.log", self.vm)));
                state.files.insert(PathBuf::from("/sockets").join(self.vm.socket_name()));
            }
            state.domain = Some(DomainState::Running);
            (state.reason, state.saved) = (1, false);
        })
        .await
    }

    async fn request_shutdown(&self, _id: VmId) -> Result<(), HypervisorError> {
        self.on_host("shutdown", |state| {
            if !state.deaf && state.domain == Some(DomainState::Running) {
                state.domain = Some(DomainState::Shutoff);
                state.reason = 1;
            }
        })
        .await
    }

    async fn resume(&self, _id: VmId) -> Result<(), HypervisorError> {
        self.on_host("resume", |state| {
            if !state.stuck {
                state.domain = Some(DomainState::Running);
            }
        })
        .await
    }

    async fn destroy(&self, _id: VmId) -> Result<(), HypervisorError> {
        // The socket stays, as after a killed QEMU.
        self.on_host("destroy", |state| {
            assert!(state.domain.is_some(), "an absent domain was destroyed");
            state.domain = Some(DomainState::Shutoff);
            // What wrote its memory has nothing to write any more.
            state.late_until = None;
        })
        .await
    }

    async fn undefine(&self, id: VmId) -> Result<(), HypervisorError> {
        self.on_host("undefine", |state| {
            if id != self.vm {
                return state.lending.undefine();
            }
            assert_eq!(state.domain, Some(DomainState::Shutoff), "undefined while it runs");
            state.domain = None;
            state.shots = Shots::default();
        })
        .await
    }

    async fn create_overlay(&self, id: VmId, volume: OverlayVolume) -> Result<PathBuf, HypervisorError> {
        assert!(volume.name.contains(&id.to_string()), "a volume without its VM's id");
        let path = PathBuf::from("/pool").join(&volume.name);
        self.on_host("create volume", |state| {
            let reserved: HashSet<_> = state
                .bundle
                .iter()
                .flat_map(|bundle| &bundle.resources)
                .map(|resource| &resource.name)
                .collect();
            assert!(reserved.contains(&volume.name), "a volume was made before its row");
            state.volumes.insert(volume.name.clone());
        })
        .await?;
        Ok(path)
    }

    async fn volume_path(
        &self,
        _id: VmId,
        _pool: &str,
        name: &str,
    ) -> Result<Option<PathBuf>, HypervisorError> {
        Ok(self.state().volumes.contains(name).then(|| PathBuf::from("/pool").join(name)))
    }

    async fn delete_volume(&self, _id: VmId, _pool: &str, name: &str) -> Result<(), HypervisorError> {
        let now = self.now();
        if self.state().lending.is_touched(name, now) {
            let operation = "delete volume".to_owned();
            return Err(HypervisorError::Invalid { operation, reason: "it is in use".to_owned() });
        }
        self.on_host("delete volume", |state| {
            let used = state.domain.is_some() && state.plugs.holds(name);
            let is_root = name == format!("infinibay-{}.qcow2", self.vm);
            assert!(!(used || is_root && state.domain.is_some()), "a disk was removed under its domain");
            state.volumes.remove(name);
        })
        .await
    }

    async fn host(&self) -> Result<HostFacts, HypervisorError> {
        Ok(HostFacts::default())
    }

    async fn leases(&self, _network: &str) -> Result<Vec<Lease>, HypervisorError> {
        Ok(Vec::new())
    }

    async fn domain_named(&self, _name: &str) -> Result<Option<VmId>, HypervisorError> {
        Ok(None)
    }
}
