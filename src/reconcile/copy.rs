//! Making a VM as a copy: its disks, and the devices that its domain is defined with.
//!
//! A disk's row stays `Creating` until its copy was seen to end well. Whatever stands under the name of
//! one that is `Creating` is what broke off, and is made anew.

use super::apply::{self, Hands, StepError};
use crate::{
    domain_xml::{InterfaceSource, NewDevice, add_device},
    failpoint::failpoint,
    hypervisor::{Copied, VolumeCopy},
    store::VmBundle,
    vm::{
        DiskTarget, LendChange, Milestone, NicSource, OperationId, Resource, ResourceKind, ResourceState,
        VmChange, VmId, VmSpec,
    },
};

/// A VM's disks, each with its place, volume and size in bytes.
fn disks(id: VmId, spec: &VmSpec) -> Vec<(DiskTarget, Resource, u64)> {
    let root = (DiskTarget::root(), apply::disk(id, spec.pool.as_str()), spec.disk_bytes);
    let plugged = spec.devices.disks.iter().map(|disk| {
        let volume = Resource {
            vm: id,
            kind: ResourceKind::Volume,
            place: disk.pool.to_string(),
            name: disk.volume.clone(),
            state: ResourceState::Creating,
        };
        (disk.target.clone(), volume, disk.bytes)
    });
    std::iter::once(root).chain(plugged).collect()
}

fn is_made(bundle: &VmBundle, volume: &Resource) -> bool {
    bundle.resources.iter().any(|made| {
        let same = (made.kind, &made.place, &made.name) == (volume.kind, &volume.place, &volume.name);
        same && made.state == ResourceState::Created
    })
}

/// Begins the next copy, or takes down that one has ended. The plan waits in between.
pub(super) async fn copy_disks(hands: &Hands, bundle: &VmBundle) -> Result<(), StepError> {
    let record = &bundle.record;
    let Some(from) = record.spec.cloned_from() else { return Ok(()) };
    // Gone since the plan looked: it looks again.
    let Some(lender) = hands.store.load_vm(from).await? else { return Ok(()) };
    let theirs = disks(from, &lender.record.spec);
    for (target, volume, capacity_bytes) in disks(record.id, &record.spec) {
        if is_made(bundle, &volume) {
            continue;
        }
        let Some((_, original, _)) = theirs.iter().find(|(place, ..)| *place == target) else {
            return Err(StepError::DiskGone { pool: volume.place, name: volume.name });
        };
        hands.store.reserve_resource(&volume).await?;
        failpoint!("copy-disks.reserved");
        let copy = VolumeCopy {
            from_pool: original.place.clone(),
            from_name: original.name.clone(),
            pool: volume.place.clone(),
            name: volume.name.clone(),
            capacity_bytes,
        };
        match hands.hypervisor.copy_volume(record.id, copy).await? {
            Copied::UnderWay => {
                failpoint!("copy-disks.begun");
                return Ok(());
            }
            Copied::Whole(_) => hands.store.resource_created(&volume).await?,
        }
        failpoint!("copy-disks.noted");
    }
    hands.store.pass_milestone(record.id, Milestone::DiskCreated, hands.clock.now()).await?;
    failpoint!("copy-disks.passed");
    Ok(())
}

/// Writes down that the lender is off: from then on it is copied from. The plan has just seen it, and
/// nobody but this VM's own task would start it.
pub(super) async fn lend(hands: &Hands, bundle: &VmBundle, id: OperationId) -> Result<(), StepError> {
    let asked = bundle.operations.iter().find(|operation| operation.id == id);
    let Some(Some(VmChange::Lend(loan))) = asked.map(|operation| &operation.change) else { return Ok(()) };
    let change = VmChange::Lend(LendChange { still: true, ..*loan });
    hands.store.note_change(id, &change).await?;
    failpoint!("lend.noted");
    Ok(())
}

/// The domain's XML with the disks and cards that the VM has beside its first ones. (Only a copy has any
/// before its domain is defined.)
pub(super) async fn plug(hands: &Hands, bundle: &VmBundle, xml: String) -> Result<String, StepError> {
    let (id, spec) = (bundle.record.id, &bundle.record.spec);
    let mut devices = Vec::new();
    for disk in &spec.devices.disks {
        let path = hands.hypervisor.volume_path(id, disk.pool.as_str(), &disk.volume).await?;
        let Some(path) = path else {
            return Err(StepError::DiskGone { pool: disk.pool.to_string(), name: disk.volume.clone() });
        };
        devices.push(NewDevice::Disk { target: disk.target.to_string(), path });
    }
    devices.extend(spec.devices.interfaces.iter().map(|card| NewDevice::Interface {
        mac: card.mac.clone(),
        source: match &card.source {
            NicSource::Network(name) => InterfaceSource::Network(name.to_string()),
            NicSource::Bridge(name) => InterfaceSource::Bridge(name.to_string()),
        },
    }));
    devices.iter().try_fold(xml, |xml, device| Ok(add_device(&xml, device)?.xml))
}
