//! What a VM is made of after its domain was put back: size and devices of the moment when the snapshot
//! was taken. Told by the domain itself, which cannot be wrong about it, and not by what was
//! noted then: others take snapshots, too, and change what is plugged in.

use std::path::Path;

use crate::{
    domain_xml::{Card, DiskKind, Hardware, InterfaceSource, extra_mac_address, mac_address},
    hypervisor::VolumePlace,
    reconcile::{apply, apply::Hands, change::ChangeError},
    store::VmBundle,
    vm::{
        DiscSource, DiskTarget, NetworkAttachment, NicSource, Plugged, PluggedDisk, PluggedInterface,
        PluggedMedium, ResourceKind, ResourceName, VmId, VmSpec, disc_file_name,
    },
};

/// The specification as it is true now. Asks for one volume a disk.
pub(super) async fn spec(hands: &Hands, bundle: &VmBundle) -> Result<VmSpec, ChangeError> {
    let id = bundle.record.id;
    let config = hands.hypervisor.hardware(id).await?.config;
    let (mut volumes, mut discs) = (Vec::new(), Vec::new());
    for disk in &config.disks {
        let Some(path) = disk.source.as_ref().filter(|path| !path.starts_with(&hands.settings.seeds_dir))
        else {
            continue;
        };
        let Ok(target) = disk.target.parse::<DiskTarget>() else { continue };
        if let Some(medium) = library_disc(path, &hands.settings.discs_dir) {
            discs.push(PluggedMedium { target, source: DiscSource::Library { medium } });
            continue;
        }
        if let Some(volume) = hands.hypervisor.volume_at(id, path).await? {
            volumes.push((target, disk.kind, volume));
        }
    }
    let mut spec = told(bundle, &config, volumes);
    spec.devices.media.extend(discs);
    Ok(spec)
}

/// The disc of the library that a file is, if it is one.
fn library_disc(path: &Path, dir: &Path) -> Option<ResourceName> {
    let name = path.strip_prefix(dir).ok()?.to_str()?.strip_suffix(".iso")?;
    name.parse().ok().filter(|medium| dir.join(disc_file_name(medium)) == path)
}

fn told(bundle: &VmBundle, config: &Hardware, volumes: Vec<(DiskTarget, DiskKind, VolumePlace)>) -> VmSpec {
    let (id, before) = (bundle.record.id, &bundle.record.spec);
    let mut spec = VmSpec { vcpus: config.vcpus, memory_mib: config.memory_mib, ..before.clone() };
    let root = apply::disk(id, before.pool.as_str());
    let is_ours = |volume: &VolumePlace| {
        let mut ours = bundle.resources.iter().filter(|resource| resource.kind == ResourceKind::Volume);
        ours.any(|resource| (&resource.place, &resource.name) == (&volume.pool, &volume.name))
    };
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
