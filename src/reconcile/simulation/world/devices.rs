//! Devices, simulated.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{State, World};
use crate::{
    domain_xml::{Card, DeviceName, DiskFacts, DiskKind, Hardware, NewDevice},
    hypervisor::{
        BlankVolume, Devices, DomainHardware, HypervisorError, Live, Unplugged, VolumeFacts, VolumePlace,
    },
    vm::{DomainState, VmId, VmSpec},
};

/// What is configured and what runs.
#[derive(Debug, Default)]
pub(super) struct Plugs {
    pub(super) config: Hardware,
    /// Of the last start.
    pub(super) live: Hardware,
    /// The guest lets go of nothing.
    pub(super) clings: bool,
    /// The driver has no room in a running domain.
    pub(super) full: bool,
}

impl Plugs {
    /// As a domain is made.
    pub(super) fn of(spec: &VmSpec) -> Self {
        let config = Hardware {
            vcpus: spec.vcpus,
            max_vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            max_memory_mib: spec.memory_mib,
            ..Hardware::default()
        };
        Self { config, ..Self::default() }
    }

    /// Whether a volume is in use.
    pub(super) fn holds(&self, volume: &str) -> bool {
        let path = path(volume);
        let mut all = self.config.disks.iter().chain(&self.live.disks);
        all.any(|disk| disk.source.as_ref() == Some(&path))
    }
}

pub(super) fn path(volume: &str) -> PathBuf {
    PathBuf::from("/pool").join(volume)
}

fn add(hardware: &mut Hardware, device: &NewDevice) {
    let (target, kind, source) = match device {
        NewDevice::Disk { target, path } => (target, DiskKind::Disk, Some(path.clone())),
        NewDevice::Drive { target, medium, .. } => (target, DiskKind::Drive, medium.clone()),
        NewDevice::Interface { mac, source } => {
            if !hardware.has_card(mac) {
                hardware.cards.push(Card { mac: mac.clone(), source: Some(source.clone()) });
            }
            return;
        }
    };
    if hardware.disk(target).is_none() {
        let is_empty = source.is_none();
        hardware.disks.push(DiskFacts { target: target.clone(), kind, source, is_empty });
    }
}

fn remove(hardware: &mut Hardware, device: &DeviceName) {
    match device {
        DeviceName::Disk(target) => hardware.disks.retain(|disk| disk.target != *target),
        DeviceName::Interface(mac) => hardware.cards.retain(|known| known.mac != *mac),
    }
}

fn runs(state: &State) -> bool {
    state.domain.is_some_and(DomainState::is_active)
}

impl World {
    /// The guest lets go of nothing, or of everything.
    pub(in crate::reconcile::simulation) fn set_clinging(&self, clings: bool) {
        self.state().plugs.clings = clings;
    }

    /// Nothing can be plugged into the running domain.
    pub(in crate::reconcile::simulation) fn set_full(&self, full: bool) {
        self.state().plugs.full = full;
    }

    /// What is configured, and what runs.
    pub(in crate::reconcile::simulation) fn hardware_now(&self) -> (Hardware, Option<Hardware>) {
        let state = self.state();
        (state.plugs.config.clone(), runs(&state).then(|| state.plugs.live.clone()))
    }
}

#[async_trait]
impl Devices for World {
    async fn hardware(&self, _id: VmId) -> Result<DomainHardware, HypervisorError> {
        let (config, live) = self.hardware_now();
        Ok(DomainHardware { config, live, saved: false, has_snapshots: false })
    }

    async fn resize(&self, _id: VmId, vcpus: u32, memory_mib: u64) -> Result<(), HypervisorError> {
        self.on_host("resize", |state| {
            let live = &mut state.plugs.live;
            live.memory_mib = if memory_mib <= live.max_memory_mib { memory_mib } else { live.memory_mib };
            let config = &mut state.plugs.config;
            (config.vcpus, config.max_vcpus) = (vcpus, vcpus);
            (config.memory_mib, config.max_memory_mib) = (memory_mib, memory_mib);
        })
        .await
    }

    async fn create_blank(&self, id: VmId, volume: BlankVolume) -> Result<PathBuf, HypervisorError> {
        assert!(volume.name.contains(&id.to_string()), "a volume without its VM's id");
        self.on_host("create volume", |state| {
            let mut rows = state.bundle.iter().flat_map(|bundle| &bundle.resources);
            assert!(rows.any(|row| row.name == volume.name), "a volume was made before its row");
            state.volumes.insert(volume.name.clone());
            path(&volume.name)
        })
        .await
    }

    async fn volume(
        &self,
        _id: VmId,
        _pool: &str,
        name: &str,
    ) -> Result<Option<VolumeFacts>, HypervisorError> {
        let facts = || VolumeFacts {
            path: path(name),
            capacity_bytes: 1 << 20,
            format: Some("iso".to_owned()),
            is_file: true,
        };
        Ok(self.state().volumes.contains(name).then(facts))
    }

    async fn volume_at(&self, _id: VmId, path: &Path) -> Result<Option<VolumePlace>, HypervisorError> {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let place = VolumePlace { pool: "default".to_owned(), name, capacity_bytes: 1 << 20 };
        Ok(self.state().volumes.contains(&place.name).then_some(place))
    }

    async fn grow_volume(&self, _id: VmId, _: &str, name: &str, _: u64) -> Result<(), HypervisorError> {
        self.on_host("grow volume", |state| {
            assert!(!runs(state), "a volume was changed under its running domain");
            assert!(state.volumes.contains(name), "a volume that is not there was grown");
        })
        .await
    }

    async fn grow_disk(&self, _id: VmId, target: &str, _: u64) -> Result<(), HypervisorError> {
        self.on_host("grow disk", |state| {
            assert!(state.plugs.live.disk(target).is_some(), "a disk that is not there was grown");
        })
        .await
    }

    async fn plug(&self, _id: VmId, device: NewDevice) -> Result<Live, HypervisorError> {
        self.on_host("plug", |state| {
            if let NewDevice::Disk { path, .. } = &device {
                let name = path.file_name().expect("a name").to_string_lossy();
                assert!(state.volumes.contains(name.as_ref()), "a disk without its volume was plugged in");
            }
            add(&mut state.plugs.config, &device);
            if runs(state) && state.plugs.full {
                return Live::Refused("no room".to_owned());
            }
            if runs(state) {
                add(&mut state.plugs.live, &device);
            }
            Live::Done
        })
        .await
    }

    async fn unplug(&self, _id: VmId, device: DeviceName) -> Result<Unplugged, HypervisorError> {
        self.on_host("unplug", |state| {
            if runs(state) && state.plugs.clings {
                return Unplugged::Kept(None);
            }
            remove(&mut state.plugs.live, &device);
            remove(&mut state.plugs.config, &device);
            Unplugged::Gone
        })
        .await
    }

    async fn set_medium(
        &self,
        _id: VmId,
        target: &str,
        medium: Option<PathBuf>,
    ) -> Result<Live, HypervisorError> {
        self.on_host("set medium", |state| {
            for hardware in [&mut state.plugs.config, &mut state.plugs.live] {
                for drive in hardware.disks.iter_mut().filter(|disk| disk.target == target) {
                    drive.is_empty = medium.is_none();
                    drive.source.clone_from(&medium);
                }
            }
            Live::Done
        })
        .await
    }
}
