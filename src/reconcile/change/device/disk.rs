//! Disks beside the first.

use super::{done, effect, kept};
use crate::{
    domain_xml::{DeviceName, DiskKind, Hardware, NewDevice},
    failpoint::failpoint,
    hypervisor::{BlankVolume, DomainHardware, HypervisorError, Unplugged},
    reconcile::{
        apply::Hands,
        change::{ChangeError, refused, size::unsupported},
    },
    store::{ChangeOutcome, VmBundle},
    vm::{DiskTarget, Effect, PluggedDisk, Resource, ResourceKind, ResourceName, ResourceState, VmId, chain},
};

fn resource(vm: VmId, pool: &ResourceName, volume: &str) -> Resource {
    Resource {
        vm,
        kind: ResourceKind::Volume,
        place: pool.to_string(),
        name: volume.to_owned(),
        state: ResourceState::Creating,
    }
}

pub(super) async fn attach(
    hands: &Hands,
    bundle: &VmBundle,
    pool: &ResourceName,
    volume: &str,
    bytes: u64,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let now = hands.hypervisor.hardware(id).await?;
    let free = free_target(bundle, &now);
    let row = resource(id, pool, volume);
    hands.store.reserve_resource(&row).await?;
    failpoint!("attach-disk.reserved");
    let blank = BlankVolume { pool: row.place.clone(), name: row.name.clone(), capacity_bytes: bytes };
    let path = match hands.hypervisor.create_blank(id, blank).await {
        Ok(path) => path,
        Err(error) => return Err(undo(hands, &row, error.into()).await),
    };
    failpoint!("attach-disk.made");
    hands.store.resource_created(&row).await?;
    failpoint!("attach-disk.noted");
    // Plugged in before a crash could note it.
    let known = now.config.disks.iter().find(|disk| disk.source.as_ref() == Some(&path));
    let Some(target) = known.and_then(|disk| disk.target.parse().ok()).or(free) else {
        let full = refused("TOO_MANY_DEVICES", "every place for a disk is taken".to_owned());
        return Err(undo(hands, &row, full).await);
    };
    let new = NewDevice::Disk { target: target.to_string(), path: path.clone() };
    let live = match hands.hypervisor.plug(id, new).await {
        Ok(live) => live,
        Err(error @ HypervisorError::Refused { .. }) => {
            let now = hands.hypervisor.hardware(id).await?;
            let holds =
                |hardware: &Hardware| hardware.disks.iter().any(|disk| disk.source.as_ref() == Some(&path));
            if holds(&now.config) || now.live.as_ref().is_some_and(holds) {
                return Err(error.into());
            }
            return Err(undo(hands, &row, error.into()).await);
        }
        // Found out before anything was configured.
        Err(error @ HypervisorError::Unfit { .. }) => return Err(undo(hands, &row, error.into()).await),
        Err(error) => return Err(error.into()),
    };
    let mut spec = bundle.record.spec.clone();
    let plugged = PluggedDisk { target, pool: pool.clone(), volume: volume.to_owned(), bytes };
    spec.devices.disks.push(plugged);
    Ok(done(effect(&live, now.saved), spec))
}

/// Takes back what was made for a disk that cannot be: only where libvirt refused, and never
/// where it is not known what happened.
async fn undo(hands: &Hands, row: &Resource, error: ChangeError) -> ChangeError {
    let refusal = match error {
        ChangeError::Hypervisor(error @ HypervisorError::Refused { .. }) => {
            tracing::warn!(vm = %row.vm, volume = row.name, error = chain(&error), "a disk cannot be attached");
            let words = format!("libvirt refused to {error}; the log of this host tells why");
            refused("HYPERVISOR_REFUSED", words)
        }
        refusal @ ChangeError::Refused { .. } => refusal,
        error => return error,
    };
    if let Err(error) = hands.hypervisor.delete_volume(row.vm, &row.place, &row.name).await {
        return error.into();
    }
    failpoint!("undo-disk.deleted");
    if let Err(error) = hands.store.release_resource(row).await {
        return error.into();
    }
    failpoint!("undo-disk.released");
    refusal
}

fn free_target(bundle: &VmBundle, now: &DomainHardware) -> Option<DiskTarget> {
    let taken = |target: &DiskTarget| {
        *target == DiskTarget::root()
            || bundle.record.spec.devices.disk(target).is_some()
            || now.config.disk(target.as_str()).is_some()
            || now.live.as_ref().is_some_and(|live| live.disk(target.as_str()).is_some())
    };
    DiskTarget::disks().find(|target| !taken(target))
}

pub(super) async fn detach(
    hands: &Hands,
    bundle: &VmBundle,
    disk: &PluggedDisk,
    delete_volume: bool,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let target = disk.target.as_str();
    // Asked for when another disk was there: changes may have ended between the look and the request.
    let known = bundle.record.spec.devices.disk(&disk.target);
    if known.is_none_or(|known| (&known.pool, &known.volume) != (&disk.pool, &disk.volume)) {
        return Err(refused("DEVICE_NOT_FOUND", format!("that disk is not at {target} any more")));
    }
    let now = hands.hypervisor.hardware(id).await?;
    if now.saved {
        let words = "the VM's memory is saved with this disk in use; start the VM first";
        return Err(refused("WRONG_STATE", words.to_owned()));
    }
    if delete_volume {
        let path = hands.hypervisor.volume_path(id, disk.pool.as_str(), &disk.volume).await?;
        let plugged =
            now.live.as_ref().and_then(|live| live.disk(target)).or_else(|| now.config.disk(target));
        let other =
            plugged.is_some_and(|it| it.kind != DiskKind::Disk || (path.is_some() && it.source != path));
        if now.has_snapshots || other {
            let words = format!(
                "a snapshot of the VM needs the volume of {target}; delete the VM's snapshots first, or detach \
                 the disk without deleting its volume"
            );
            return Err(refused("WRONG_STATE", words));
        }
    }
    let name = DeviceName::Disk(target.to_owned());
    match hands.hypervisor.unplug(id, name).await.map_err(|error| unsupported(error, "unplug a disk"))? {
        Unplugged::Gone => {}
        Unplugged::Kept(words) => return Err(kept(&format!("disk {target}"), words.as_deref())),
    }
    failpoint!("detach-disk.unplugged");
    if delete_volume {
        let row = resource(id, &disk.pool, &disk.volume);
        hands.hypervisor.delete_volume(id, &row.place, &row.name).await?;
        failpoint!("detach-disk.deleted");
        hands.store.release_resource(&row).await?;
        failpoint!("detach-disk.released");
    }
    let mut spec = bundle.record.spec.clone();
    spec.devices.disks.retain(|other| other.target != disk.target);
    Ok(done(Effect::Live, spec))
}
