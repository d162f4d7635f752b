//! Requests about what a VM is made of: its size, its disks, media and network cards. What people
//! wrote is checked here as far as it can be without waiting for anybody but libvirt.

use super::{Lifecycle, LifecycleError, request};
use crate::{
    access::{Action, Actor, Target, authorize},
    domain_xml::mac_address,
    hypervisor::HostFacts,
    vm::{
        BridgeName, DeviceChange, DiscSource, DiskTarget, Medium, MediumId, MediumKind, MediumState,
        NetworkAttachment, NicSource, Operation, Plugged, ResourceName, SizeChange, SpecError, VmChange,
        VmId, VmRecord, VmSpec, parse_mac,
    },
};

/// Disks are made in whole MiB: every format can hold that.
const GRAIN: u64 = 1 << 20;

fn invalid(field: &'static str, reason: impl std::fmt::Display) -> LifecycleError {
    LifecycleError::Invalid { field, reason: reason.to_string() }
}

/// Bytes of a disk, rounded up to whole MiB.
fn disk_bytes(bytes: i64) -> Result<u64, LifecycleError> {
    let rounded = u64::try_from(bytes).ok().and_then(|bytes| bytes.checked_next_multiple_of(GRAIN));
    rounded.filter(|bytes| (GRAIN..=VmSpec::MAX_DISK_BYTES).contains(bytes)).ok_or_else(|| {
        invalid("bytes", format_args!("must be between {GRAIN} and {}", VmSpec::MAX_DISK_BYTES))
    })
}

fn name(field: &'static str, text: &str) -> Result<ResourceName, LifecycleError> {
    text.parse().map_err(|error| invalid(field, error))
}

fn target(field: &'static str, text: &str, disk: bool) -> Result<DiskTarget, LifecycleError> {
    let target: DiskTarget = text.parse().map_err(|error| invalid(field, error))?;
    match target.is_disk() == disk {
        true => Ok(target),
        false => Err(invalid(
            field,
            if disk { "a disk is called vda to vdz" } else { "a drive is called sda to sdz" },
        )),
    }
}

fn check_pool(host: &HostFacts, pool: &ResourceName) -> Result<(), LifecycleError> {
    match host.pools.iter().any(|known| known.name == pool.as_str()) {
        true => Ok(()),
        false => Err(LifecycleError::PoolNotFound(pool.to_string())),
    }
}

/// A medium to be put into a drive, as a client wrote it: nothing checked yet.
#[derive(Debug, Clone, Default)]
pub struct InsertMedium {
    /// A disc of the library, by name or id: this, or `pool` and `volume`.
    pub medium: Option<String>,
    /// The pool of a volume.
    pub pool: Option<String>,
    /// The volume, whose name ends in `.iso`.
    pub volume: Option<String>,
    /// Which drive; an empty one, or a new one, when absent.
    pub drive: Option<String>,
}

type Accepted = Result<(VmRecord, Operation), LifecycleError>;

impl Lifecycle {
    /// Asks for other processors, memory (MiB) or both.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn resize(
        &self,
        actor: &Actor,
        vm: VmId,
        vcpus: Option<i64>,
        memory_mib: Option<i64>,
    ) -> Accepted {
        let mut spec = self.controlled(actor, vm).await?.spec;
        if vcpus.is_none() && memory_mib.is_none() {
            return Err(invalid("vcpus", "give vcpus, memoryMib or both"));
        }
        let vcpus = vcpus.map(|given| {
            let error = SpecError::Vcpus { max: VmSpec::MAX_VCPUS, given };
            u32::try_from(given).map_err(|_| request::spec_error(error))
        });
        let memory_mib = memory_mib.map(|given| {
            let (min, max) = (VmSpec::MIN_MEMORY_MIB, VmSpec::MAX_MEMORY_MIB);
            let error = SpecError::Memory { min, max, given };
            u64::try_from(given).map_err(|_| request::spec_error(error))
        });
        let (vcpus, memory_mib) = (vcpus.transpose()?, memory_mib.transpose()?);
        spec.vcpus = vcpus.unwrap_or(spec.vcpus);
        spec.memory_mib = memory_mib.unwrap_or(spec.memory_mib);
        spec.check().map_err(request::spec_error)?;
        self.change(actor, vm, VmChange::Size(SizeChange::Resize { vcpus, memory_mib })).await
    }

    /// Asks for a larger disk.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn grow_disk(&self, actor: &Actor, vm: VmId, disk: &str, bytes: i64) -> Accepted {
        let spec = self.controlled(actor, vm).await?.spec;
        let target = target("target", disk, true)?;
        let bytes = disk_bytes(bytes)?;
        let now = match spec.devices.disk(&target) {
            Some(disk) => disk.bytes,
            None if target == DiskTarget::root() => spec.disk_bytes,
            None => return Err(LifecycleError::DeviceNotFound(format!("disk {target}"))),
        };
        if bytes <= now {
            return Err(invalid(
                "bytes",
                format_args!("the disk has {now} bytes already; a disk can only grow"),
            ));
        }
        self.change(actor, vm, VmChange::Size(SizeChange::GrowDisk { target, bytes })).await
    }

    /// Asks for one more disk.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn attach_disk(&self, actor: &Actor, vm: VmId, pool: Option<&str>, bytes: i64) -> Accepted {
        let spec = self.controlled(actor, vm).await?.spec;
        let pool = pool.map_or(Ok(spec.pool), |pool| name("pool", pool))?;
        let bytes = disk_bytes(bytes)?;
        if spec.devices.disks.len() + 1 >= DiskTarget::disks().count() {
            return Err(LifecycleError::TooManyDevices("disks"));
        }
        check_pool(&self.hypervisor.host().await.map_err(LifecycleError::Hypervisor)?, &pool)?;
        let volume = vm.extra_disk_name();
        self.change(actor, vm, VmChange::Device(DeviceChange::AttachDisk { pool, volume, bytes })).await
    }

    /// Asks for a disk to go, with its volume or without.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn detach_disk(&self, actor: &Actor, vm: VmId, disk: &str, delete_volume: bool) -> Accepted {
        let spec = self.controlled(actor, vm).await?.spec;
        let target = target("target", disk, true)?;
        if target == DiskTarget::root() {
            return Err(invalid("target", "the disk that a VM was made with stays as long as the VM"));
        }
        let Some(disk) = spec.devices.disk(&target).cloned() else {
            return Err(LifecycleError::DeviceNotFound(format!("disk {target}")));
        };
        self.change(actor, vm, VmChange::Device(DeviceChange::DetachDisk { disk, delete_volume })).await
    }

    /// Asks for a medium to be put into a drive.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn insert_medium(&self, actor: &Actor, vm: VmId, asked: InsertMedium) -> Accepted {
        self.controlled(actor, vm).await?;
        let drive = asked.drive.map(|drive| target("target", &drive, false)).transpose()?;
        let source = match (asked.medium, asked.pool, asked.volume) {
            (Some(medium), None, None) => self.library_disc(actor, &medium).await?,
            (None, Some(pool), Some(volume)) => self.volume(vm, &pool, &volume).await?,
            _ => return Err(invalid("medium", "give either medium, or pool and volume")),
        };
        self.change(actor, vm, VmChange::Device(DeviceChange::InsertMedium { source, drive })).await
    }

    /// A disc of the library, by its name or its id. Whether it is still ready when the change is
    /// stored, the store decides.
    async fn library_disc(&self, actor: &Actor, named: &str) -> Result<DiscSource, LifecycleError> {
        let missing = || {
            let shown = named.chars().filter(|c| !c.is_control()).take(ResourceName::MAX_CHARS);
            LifecycleError::NoMedium(shown.collect())
        };
        authorize(actor, Action::ViewImages).map_err(|_| missing())?;
        let Ok(name) = named.parse() else { return Err(missing()) };
        let mut found = self.store.medium(self.host, &name).await.map_err(LifecycleError::Store)?;
        if found.is_none()
            && let Ok(id) = named.parse()
        {
            let by_id = self.store.medium_by_id(self.host, MediumId(id)).await;
            found = by_id.map_err(LifecycleError::Store)?;
        }
        // Who may not manage media sees those that are ready.
        let sees_all = authorize(actor, Action::ManageMedia).is_ok();
        let ready = |medium: &Medium| medium.state == MediumState::Ready;
        let medium = found.filter(|medium| sees_all || ready(medium)).ok_or_else(missing)?;
        match medium.kind {
            MediumKind::DiskImage => Err(LifecycleError::NoDisc(medium.name)),
            MediumKind::Installation if !ready(&medium) => Err(LifecycleError::MediumNotReady(
                medium.name.to_string(),
                "is not ready; wait until its import has succeeded",
            )),
            MediumKind::Installation => Ok(DiscSource::Library { medium: medium.name }),
        }
    }

    /// A disc that is a volume of a pool, and nobody's disk.
    async fn volume(&self, vm: VmId, pool: &str, volume: &str) -> Result<DiscSource, LifecycleError> {
        let (pool, volume) = (name("pool", pool)?, name("volume", volume)?);
        if !volume.as_str().to_ascii_lowercase().ends_with(".iso") {
            return Err(invalid("volume", "a medium is a volume whose name ends in .iso"));
        }
        check_pool(&self.hypervisor.host().await.map_err(LifecycleError::Hypervisor)?, &pool)?;
        let missing =
            || LifecycleError::MediumNotFound { pool: pool.to_string(), volume: volume.to_string() };
        let owner = self.store.volume_owner(pool.as_str(), volume.as_str()).await;
        if owner.map_err(LifecycleError::Store)?.is_some() {
            // Whose it is, is nobody's business.
            return Err(missing());
        }
        let found = self.hypervisor.volume(vm, pool.as_str(), volume.as_str()).await;
        let medium = found.map_err(LifecycleError::Hypervisor)?.ok_or_else(missing)?;
        if !medium.is_medium() {
            let format = medium.format.as_deref().unwrap_or("unknown");
            return Err(invalid("volume", format_args!("is of format {format}, not an ISO image in a file")));
        }
        Ok(DiscSource::Volume { pool, volume })
    }

    /// Asks for a medium to be taken out.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn eject_medium(&self, actor: &Actor, vm: VmId, drive: &str) -> Accepted {
        let spec = self.controlled(actor, vm).await?.spec;
        let drive = target("target", drive, false)?;
        if !spec.devices.media.iter().any(|medium| medium.target == drive) {
            return Err(LifecycleError::DeviceNotFound(format!("medium in drive {drive}")));
        }
        self.change(actor, vm, VmChange::Device(DeviceChange::EjectMedium { drive })).await
    }

    /// Asks for one more network card, on a network or, by an admin, on a bridge.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn attach_interface(
        &self,
        actor: &Actor,
        vm: VmId,
        network: Option<&str>,
        bridge: Option<&str>,
    ) -> Accepted {
        let spec = self.controlled(actor, vm).await?.spec;
        let first = usize::from(spec.network != NetworkAttachment::None);
        if spec.devices.interfaces.len() + first >= Plugged::MAX_INTERFACES {
            return Err(LifecycleError::TooManyDevices("network cards"));
        }
        let source = match (network, bridge) {
            (Some(network), None) => {
                let network = name("network", network)?;
                let host = self.hypervisor.host().await.map_err(LifecycleError::Hypervisor)?;
                super::check_network(&host, &network)?;
                NicSource::Network(network)
            }
            (None, Some(bridge)) => {
                if authorize(actor, Action::UseBridge).is_err() {
                    return Err(LifecycleError::Forbidden("a bridge of the host is for admins to choose"));
                }
                let bridge: BridgeName = bridge.parse().map_err(|error| invalid("bridge", error))?;
                check_bridge(&bridge).await?;
                NicSource::Bridge(bridge)
            }
            _ => return Err(invalid("network", "give either network or bridge")),
        };
        self.change(actor, vm, VmChange::Device(DeviceChange::AttachInterface { source })).await
    }

    /// Asks for a network card to go.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn detach_interface(&self, actor: &Actor, vm: VmId, mac: &str) -> Accepted {
        let spec = self.controlled(actor, vm).await?.spec;
        let mac = parse_mac(mac).map_err(|error| invalid("mac", error))?;
        let is_first = spec.network != NetworkAttachment::None && mac == mac_address(vm);
        if !is_first && !spec.devices.interfaces.iter().any(|card| card.mac == mac) {
            return Err(LifecycleError::DeviceNotFound(format!("network card {mac}")));
        }
        self.change(actor, vm, VmChange::Device(DeviceChange::DetachInterface { mac })).await
    }

    /// The VM, if this one may change it.
    async fn controlled(&self, actor: &Actor, vm: VmId) -> Result<VmRecord, LifecycleError> {
        let found = self.store.vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = found.as_ref().map(|view| view.record.owner);
        authorize(actor, Action::ControlVm(Target { vm, owner }))
            .map_err(|denied| LifecycleError::denied(denied, vm))?;
        found.map(|view| view.record).ok_or(LifecycleError::NotFound(vm))
    }
}

/// A domain on a bridge that is not there would not start.
async fn check_bridge(bridge: &BridgeName) -> Result<(), LifecycleError> {
    let directory = format!("/sys/class/net/{bridge}/bridge");
    match tokio::fs::symlink_metadata(&directory).await {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid("bridge", format_args!("the host has no bridge {bridge}"))),
    }
}
