//! Media in drives.

use super::{done, effect};
use crate::{
    domain_xml::{DiskFacts, DiskKind, NewDevice},
    hypervisor::DomainHardware,
    reconcile::{
        apply::Hands,
        change::{ChangeError, refused},
    },
    store::{ChangeOutcome, VmBundle},
    vm::{DiskTarget, PluggedMedium, ResourceName},
};

/// Where a medium goes.
enum Drive {
    Standing(DiskTarget),
    New(DiskTarget),
}

pub(super) async fn insert(
    hands: &Hands,
    bundle: &VmBundle,
    pool: &ResourceName,
    volume: &ResourceName,
    wanted: Option<&DiskTarget>,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let Some(medium) = hands.hypervisor.volume(id, pool.as_str(), volume.as_str()).await? else {
        return Err(refused("MEDIUM_NOT_FOUND", format!("pool {pool} has no volume {volume} any more")));
    };
    // Other VMs' seeds hold their secrets.
    if !medium.is_medium() || medium.path.starts_with(&hands.settings.seeds_dir) {
        return Err(refused("MEDIUM_UNUSABLE", format!("volume {volume} of pool {pool} is no medium")));
    }
    let now = hands.hypervisor.hardware(id).await?;
    let is_seed = |disk: &DiskFacts| {
        disk.source.as_ref().is_some_and(|path| path.starts_with(&hands.settings.seeds_dir))
    };
    let drive = match wanted {
        Some(target) => match now.config.disk(target.as_str()) {
            Some(disk) if disk.kind == DiskKind::Drive && !is_seed(disk) => Drive::Standing(target.clone()),
            Some(disk) if is_seed(disk) => {
                let words =
                    format!("drive {target} holds the medium of the VM's first boot; leave `drive` out");
                return Err(refused("WRONG_STATE", words));
            }
            _ => {
                let words = format!("the domain has no drive {target}; leave `drive` out to get one");
                return Err(refused("DEVICE_NOT_FOUND", words));
            }
        },
        None => choose(&now, &medium.path)
            .ok_or_else(|| refused("TOO_MANY_DEVICES", "every place for a drive is taken".to_owned()))?,
    };
    let (target, live) = match drive {
        Drive::Standing(target) => {
            let live = hands.hypervisor.set_medium(id, target.as_str(), Some(medium.path)).await?;
            (target, live)
        }
        Drive::New(target) => {
            let scsi = now.live.as_ref().unwrap_or(&now.config).has_virtio_scsi;
            let new = NewDevice::Drive { target: target.to_string(), scsi, medium: Some(medium.path) };
            (target, hands.hypervisor.plug(id, new).await?)
        }
    };
    let mut spec = bundle.record.spec.clone();
    spec.devices.media.retain(|other| other.target != target);
    spec.devices.media.push(PluggedMedium { target, pool: pool.clone(), volume: volume.clone() });
    Ok(done(effect(&live, now.saved), spec))
}

/// The drive that holds the medium already, an empty one, or a new one.
fn choose(now: &DomainHardware, path: &std::path::Path) -> Option<Drive> {
    let drives = || now.config.disks.iter().filter(|disk| disk.kind == DiskKind::Drive);
    let runs = |disk: &&DiskFacts| now.live.as_ref().is_none_or(|live| live.disk(&disk.target).is_some());
    let holds = drives().find(|disk| disk.source.as_deref() == Some(path));
    let empty = || drives().filter(runs).find(|disk| disk.is_empty);
    if let Some(target) = holds.or_else(empty).and_then(|disk| disk.target.parse().ok()) {
        return Some(Drive::Standing(target));
    }
    let taken = |target: &DiskTarget| {
        now.config.disk(target.as_str()).is_some()
            || now.live.as_ref().is_some_and(|live| live.disk(target.as_str()).is_some())
    };
    DiskTarget::drives().find(|target| !taken(target)).map(Drive::New)
}

pub(super) async fn eject(
    hands: &Hands,
    bundle: &VmBundle,
    target: &DiskTarget,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let now = hands.hypervisor.hardware(id).await?;
    let mut spec = bundle.record.spec.clone();
    spec.devices.media.retain(|other| other.target != *target);
    // A drive that somebody took out holds no medium.
    let effect = match now.config.disk(target.as_str()) {
        Some(disk) if disk.kind == DiskKind::Drive => {
            effect(&hands.hypervisor.set_medium(id, target.as_str(), None).await?, now.saved)
        }
        _ => crate::vm::Effect::Live,
    };
    Ok(done(effect, spec))
}
