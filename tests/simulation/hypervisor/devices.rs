//! What is plugged into a domain, and how large it is.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use infinibay::{
    domain_xml::{Card, DeviceName, DiskFacts, DiskKind, Hardware, NewDevice},
    hypervisor::{
        BlankVolume, Devices, DomainHardware, HypervisorError, Live, Unplugged, VolumeFacts, VolumePlace,
    },
    vm::{DeviceChange, DomainState, ResourceKind, SizeChange, VmChange, VmId},
};

use super::{invalid, not_found};
use crate::simulation::{
    controller::Ports,
    host::{POOL, Volume, volume_path},
    installers::Boot,
    world::State,
};

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
        DeviceName::Interface(mac) => hardware.cards.retain(|card| card.mac != *mac),
    }
}

impl State {
    /// The name of the volume at a path, if it is one of the pool's.
    fn volume_at(&mut self, path: &Path) -> Option<&mut Volume> {
        let name = path.file_name()?.to_str()?.to_owned();
        self.host.volumes.get_mut(&(POOL.to_owned(), name))
    }

    fn grow(&mut self, path: Option<PathBuf>, bytes: u64) -> Result<(), HypervisorError> {
        let volume = path.and_then(|path| self.volume_at(&path)).ok_or_else(|| not_found("grow"))?;
        volume.bytes = volume.bytes.max(bytes);
        Ok(())
    }
}

fn grows(change: &VmChange) -> bool {
    matches!(change, VmChange::Size(SizeChange::GrowDisk { .. }))
}

#[async_trait]
impl Devices for Ports {
    async fn hardware(&self, id: VmId) -> Result<DomainHardware, HypervisorError> {
        let seen = self.read(id, "hardware", move |state| {
            state.host.domains.get(&id).map(|domain| DomainHardware {
                config: domain.config.clone(),
                live: domain.state.is_active().then(|| domain.live.clone()),
                saved: domain.saved.is_some() && !domain.state.is_active(),
                has_snapshots: !domain.shots.is_empty(),
            })
        });
        seen.await?.ok_or_else(|| not_found("hardware"))
    }

    async fn resize(&self, id: VmId, vcpus: u32, memory_mib: u64) -> Result<(), HypervisorError> {
        let asked = |change: &VmChange| matches!(change, VmChange::Size(SizeChange::Resize { .. }));
        self.world.state().judge_asked(id, "resize", asked);
        self.call(id, "resize", move |world| {
            let mut state = world.state();
            let domain = state.domain("resize", id)?;
            // A guest that is not up does not follow its balloon.
            if memory_mib <= domain.live.max_memory_mib && domain.is_up {
                domain.live.memory_mib = memory_mib;
            }
            let config = &mut domain.config;
            (config.vcpus, config.max_vcpus) = (vcpus, vcpus);
            (config.memory_mib, config.max_memory_mib) = (memory_mib, memory_mib);
            Ok(())
        })
        .await
    }

    async fn create_blank(&self, id: VmId, volume: BlankVolume) -> Result<PathBuf, HypervisorError> {
        let attaches =
            |change: &VmChange| matches!(change, VmChange::Device(DeviceChange::AttachDisk { .. }));
        let is_root = volume.name == format!("infinibay-{id}.qcow2");
        if !is_root {
            self.world.state().judge_asked(id, "create_blank", attaches);
        }
        self.call(id, "create_blank", move |world| {
            let mut state = world.state();
            state.has_row(id, ResourceKind::Volume, &volume.name);
            if is_root {
                state.host.once_had_volume.insert(id);
            }
            let path = volume_path(&volume.pool, &volume.name);
            let blank = Volume {
                vm: Some(id),
                whole: true,
                installed: false,
                has_system: false,
                spoiled: false,
                bytes: volume.capacity_bytes,
            };
            let made = state.host.volumes.entry((volume.pool, volume.name)).or_insert(blank);
            if made.vm != Some(id) {
                state.violate(format_args!("{} is somebody else's", path.display()));
            }
            Ok(path)
        })
        .await
    }

    async fn volume(&self, id: VmId, pool: &str, name: &str) -> Result<Option<VolumeFacts>, HypervisorError> {
        let key = (pool.to_owned(), name.to_owned());
        self.read(id, "volume", move |state| {
            let format = if key.0 == POOL { "qcow2" } else { "iso" };
            state.host.volumes.get(&key).map(|volume| VolumeFacts {
                path: volume_path(&key.0, &key.1),
                capacity_bytes: volume.bytes,
                format: Some(format.to_owned()),
                is_file: true,
            })
        })
        .await
    }

    async fn volume_at(&self, id: VmId, path: &Path) -> Result<Option<VolumePlace>, HypervisorError> {
        let path = path.to_owned();
        self.read(id, "volume_at", move |state| {
            let mut all = state.host.volumes.iter();
            let found = all.find(|((pool, name), _)| volume_path(pool, name) == path);
            found.map(|((pool, name), volume)| VolumePlace {
                pool: pool.clone(),
                name: name.clone(),
                capacity_bytes: volume.bytes,
            })
        })
        .await
    }

    async fn grow_volume(&self, id: VmId, pool: &str, name: &str, bytes: u64) -> Result<(), HypervisorError> {
        self.world.state().judge_asked(id, "grow_volume", grows);
        let path = volume_path(pool, name);
        self.call(id, "grow_volume", move |world| {
            let mut state = world.state();
            let live = state.host.domains.get(&id).filter(|domain| domain.state.is_active());
            if live.is_some_and(|it| it.live.disks.iter().any(|disk| disk.source.as_ref() == Some(&path))) {
                // qemu-img would not get its lock.
                return Err(invalid("grow_volume", "the volume is in use"));
            }
            state.grow(Some(path), bytes)
        })
        .await
    }

    async fn grow_disk(&self, id: VmId, target: &str, bytes: u64) -> Result<(), HypervisorError> {
        self.world.state().judge_asked(id, "grow_disk", grows);
        let target = target.to_owned();
        self.call(id, "grow_disk", move |world| {
            let mut state = world.state();
            let domain = state.domain("grow_disk", id)?;
            if !domain.state.is_active() {
                return Err(invalid("grow_disk", "the domain is not running"));
            }
            let path = domain.live.disk(&target).and_then(|disk| disk.source.clone());
            state.grow(path, bytes)
        })
        .await
    }

    async fn plug(&self, id: VmId, device: NewDevice) -> Result<Live, HypervisorError> {
        self.world.state().judge_asked(id, "plug", |change| matches!(change, VmChange::Device(_)));
        self.call(id, "plug", move |world| {
            let mut state = world.state();
            if let NewDevice::Disk { path, .. } = &device {
                let whole = state.volume_at(path).is_some_and(|volume| volume.whole);
                if !whole && !state.watch.robbed.contains(&id) && !state.watch.haunted.contains(&id) {
                    state.violate(format_args!("{} was plugged in, and is not there", path.display()));
                }
            }
            let full = state.chance.one_in(8);
            let domain = state.domain("plug", id)?;
            add(&mut domain.config, &device);
            if !domain.state.is_active() {
                return Ok(Live::Done);
            }
            if full {
                return Ok(Live::Refused("no room".to_owned()));
            }
            add(&mut domain.live, &device);
            Ok(Live::Done)
        })
        .await
    }

    async fn unplug(&self, id: VmId, device: DeviceName) -> Result<Unplugged, HypervisorError> {
        self.world.state().judge_asked(id, "unplug", |change| matches!(change, VmChange::Device(_)));
        self.call(id, "unplug", move |world| {
            let mut state = world.state();
            let domain = state.domain("unplug", id)?;
            let active = domain.state.is_active();
            if active && (domain.clings || !domain.is_up || domain.state != DomainState::Running) {
                return Ok(Unplugged::Kept(None));
            }
            if active {
                remove(&mut domain.live, &device);
            }
            remove(&mut domain.config, &device);
            Ok(Unplugged::Gone)
        })
        .await
    }

    async fn set_medium(
        &self,
        id: VmId,
        target: &str,
        medium: Option<PathBuf>,
    ) -> Result<Live, HypervisorError> {
        self.world.state().judge_asked(id, "set_medium", |change| matches!(change, VmChange::Device(_)));
        let target = target.to_owned();
        self.call(id, "set_medium", move |world| {
            let mut state = world.state();
            let domain = state.domain("set_medium", id)?;
            for hardware in [&mut domain.config, &mut domain.live] {
                for drive in hardware.disks.iter_mut().filter(|disk| disk.target == target) {
                    drive.is_empty = medium.is_none();
                    drive.source.clone_from(&medium);
                }
            }
            Ok(Live::Done)
        })
        .await
    }

    async fn boot_from_disk(&self, id: VmId, media: Vec<PathBuf>) -> Result<(), HypervisorError> {
        self.call(id, "boot_from_disk", move |world| {
            let mut state = world.state();
            let has_system = state.host.root(id).is_some_and(|volume| volume.has_system);
            if !has_system && !state.watch.robbed.contains(&id) {
                state.violate(format_args!("an empty disk is booted from"));
            }
            let stuck = state.chance.one_in(8);
            let domain = state.domain("boot_from_disk", id)?;
            if !domain.persistent {
                return Err(invalid("boot_from_disk", "a transient domain"));
            }
            let is_one = |disk: &DiskFacts| disk.source.as_ref().is_some_and(|source| media.contains(source));
            domain.config.disks.retain(|disk| disk.kind != DiskKind::Drive || !is_one(disk));
            // A guest that reads of it does not let go of it before its next start.
            for drive in domain.live.disks.iter_mut().filter(|disk| !stuck && is_one(disk)) {
                (drive.source, drive.is_empty) = (None, true);
            }
            domain.boots = Boot::Disk;
            Ok(())
        })
        .await
    }
}
