//! What a VM is made of, as its domain tells it: size and devices. Asked where nothing that was noted
//! can be trusted: after its domain was put back to a snapshot's moment, since others take snapshots,
//! too, and change what is plugged in; and after the database was lost.

use std::path::{Path, PathBuf};

use super::apply;
use crate::{
    domain_xml::{Card, DiskKind, Hardware, InterfaceSource, extra_mac_address, mac_address},
    hypervisor::{Devices, HypervisorError, VolumePlace},
    vm::{
        DiscSource, DiskTarget, NetworkAttachment, NicSource, Plugged, PluggedDisk, PluggedInterface,
        PluggedMedium, ResourceName, VmId, VmSpec, disc_file_name,
    },
};

/// Directories whose files are no volumes of anybody's.
#[derive(Debug, Clone, Copy)]
pub struct Dirs<'a> {
    /// Seed media, which nobody plugged in.
    pub seeds: &'a Path,
    /// Discs of the library.
    pub discs: &'a Path,
}

/// What a domain tells.
#[derive(Debug)]
pub struct MadeOf {
    /// The specification as it is true now.
    pub spec: VmSpec,
    /// Files behind disks and drives that no active pool knows: they are not in the specification,
    /// unless they were before.
    pub unknown: Vec<(DiskTarget, PathBuf)>,
}

/// Looks at a VM whose specification was `before`. A disk is told of only if its volume `is_ours`:
/// what stands in the specification can be deleted by who may detach it. Asks for one volume a disk.
///
/// # Errors
/// The hypervisor could not be asked.
pub async fn made_of<H: Devices + ?Sized>(
    hypervisor: &H,
    id: VmId,
    before: &VmSpec,
    is_ours: impl Fn(&VolumePlace) -> bool + Send,
    dirs: Dirs<'_>,
) -> Result<MadeOf, HypervisorError> {
    let config = hypervisor.hardware(id).await?.config;
    let (mut volumes, mut discs, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for disk in &config.disks {
        let Some(path) = disk.source.as_ref().filter(|path| !path.starts_with(dirs.seeds)) else { continue };
        let Ok(target) = disk.target.parse::<DiskTarget>() else { continue };
        if let Some(medium) = library_disc(path, dirs.discs) {
            // A library's disc behind a disk is nothing that we plugged in.
            if disk.kind == DiskKind::Drive {
                discs.push(PluggedMedium { target, source: DiscSource::Library { medium } });
            }
            continue;
        }
        match hypervisor.volume_at(id, path).await? {
            Some(volume) => volumes.push((target, disk.kind, volume)),
            None => unknown.push((target, path.clone())),
        }
    }
    let mut spec = told(id, before, &config, volumes, is_ours);
    spec.devices.media.extend(discs);
    spec.devices.media.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(MadeOf { spec, unknown })
}

/// The disc of the library that a file is, if it is one.
fn library_disc(path: &Path, dir: &Path) -> Option<ResourceName> {
    let name = path.strip_prefix(dir).ok()?.to_str()?.strip_suffix(".iso")?;
    name.parse().ok().filter(|medium| dir.join(disc_file_name(medium)) == path)
}

fn told(
    id: VmId,
    before: &VmSpec,
    config: &Hardware,
    volumes: Vec<(DiskTarget, DiskKind, VolumePlace)>,
    is_ours: impl Fn(&VolumePlace) -> bool,
) -> VmSpec {
    let mut spec = VmSpec { vcpus: config.vcpus, memory_mib: config.memory_mib, ..before.clone() };
    let root = apply::disk(id, before.pool.as_str());
    let mut devices = Plugged::default();
    for (target, kind, volume) in volumes {
        let Ok(pool) = volume.pool.parse() else { continue };
        match kind {
            DiskKind::Disk if (&volume.pool, &volume.name) == (&root.place, &root.name) => {
                spec.disk_bytes = volume.capacity_bytes;
            }
            DiskKind::Disk if is_ours(&volume) => devices.disks.push(PluggedDisk {
                target,
                pool,
                volume: volume.name,
                bytes: volume.capacity_bytes,
            }),
            DiskKind::Drive => {
                let Ok(volume) = volume.name.parse() else { continue };
                let source = DiscSource::Volume { pool, volume };
                devices.media.push(PluggedMedium { target, source });
            }
            // Not ours: nobody could name it.
            DiskKind::Disk | DiskKind::Other => {}
        }
    }
    // One that stands on a file of somebody's, as on a snapshot outside of its volume.
    let stays = |disk: &&PluggedDisk| {
        devices.disks.iter().all(|other| other.target != disk.target)
            && config.disk(disk.target.as_str()).is_some_and(|it| it.kind == DiskKind::Disk)
    };
    let strayed: Vec<_> = before.devices.disks.iter().filter(stays).cloned().collect();
    devices.disks.extend(strayed);
    devices.disks.sort_by(|a, b| a.target.cmp(&b.target));
    let first = mac_address(id);
    devices.interfaces = config
        .cards
        .iter()
        .filter(|card| card.mac != first)
        .filter_map(|card| plugged(id, before, card))
        .collect();
    spec.devices = devices;
    if !before.is_adopted() {
        spec.network = match config.cards.iter().find(|card| card.mac == first) {
            None => NetworkAttachment::None,
            Some(card) => attachment(card).unwrap_or_else(|| match &before.network {
                NetworkAttachment::None => NetworkAttachment::User,
                known => known.clone(),
            }),
        };
    }
    spec
}

/// A card that we plugged in, now or once: others' have addresses of their own.
fn plugged(id: VmId, before: &VmSpec, card: &Card) -> Option<PluggedInterface> {
    let known = before.devices.interfaces.iter().find(|known| known.mac == card.mac);
    let most = u32::try_from(Plugged::MAX_INTERFACES).unwrap_or(u32::MAX);
    if known.is_none() && !(1..=most).any(|number| extra_mac_address(id, number) == card.mac) {
        return None;
    }
    let source = match &card.source {
        Some(InterfaceSource::Network(name)) => name.parse().ok().map(NicSource::Network),
        Some(InterfaceSource::Bridge(name)) => name.parse().ok().map(NicSource::Bridge),
        None => None,
    };
    let source = source.or_else(|| known.map(|known| known.source.clone()))?;
    Some(PluggedInterface { mac: card.mac.clone(), source })
}

fn attachment(card: &Card) -> Option<NetworkAttachment> {
    match &card.source {
        Some(InterfaceSource::Network(name)) => name.parse().ok().map(NetworkAttachment::Network),
        Some(InterfaceSource::Bridge(_)) | None => None,
    }
}
