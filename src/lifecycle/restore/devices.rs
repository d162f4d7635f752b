//! What is plugged into a VM that is restored, as its domain has it. Whoever may use libvirt can
//! write that, too: a disk becomes the VM's only by the name of its volume, which nobody else's has,
//! and a disc only if it is one of the library's, where it is held as long as it is in the drive.

use std::collections::HashSet;

use super::Places;
use crate::{
    hypervisor::{Devices, HypervisorError, VolumePlace},
    reconcile::{Dirs, MadeOf, made_of},
    store::FoundVm,
    vm::{DiscSource, Plugged, Resource, ResourceKind, ResourceName, ResourceState, VmId},
};

/// A restored VM with all that is plugged into it; `library`: the discs that are ready.
///
/// # Errors
/// The hypervisor could not be asked; within it, why the VM cannot be restored, for people.
pub async fn with_devices<H: Devices + ?Sized>(
    hypervisor: &H,
    mut found: FoundVm,
    places: Places<'_>,
    library: &HashSet<ResourceName>,
) -> Result<Result<FoundVm, String>, HypervisorError> {
    let id = found.vm.id;
    let is_ours = move |volume: &VolumePlace| id.is_extra_disk(&volume.name);
    let dirs = Dirs { seeds: places.seeds_dir, discs: places.discs_dir };
    let MadeOf { spec, unknown } = made_of(hypervisor, id, &found.vm.spec, is_ours, dirs).await?;
    // Forgotten, it would outlive the VM's deletion and nobody could detach it.
    let ours = |path: &std::path::Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| id.is_extra_disk(name))
    };
    if let Some((target, path)) = unknown.iter().find(|(target, path)| target.is_disk() && ours(path)) {
        return Ok(Err(format!(
            "no active pool has its disk {target} ({}); start the pool, or detach the disk from the domain",
            path.display()
        )));
    }
    found.vm.spec.devices = chosen(&found, spec.devices, library);
    let resources: Vec<_> = found.vm.spec.devices.disks.iter().map(|disk| volume(id, disk)).collect();
    for resource in resources {
        let is_known = |known: &Resource| (&known.place, &known.name) == (&resource.place, &resource.name);
        if !found.resources.iter().any(is_known) {
            found.resources.push(resource);
        }
    }
    Ok(Ok(found))
}

/// Without discs that nobody could name, and without those that a set-up under way put in.
fn chosen(found: &FoundVm, mut plugged: Plugged, library: &HashSet<ResourceName>) -> Plugged {
    let spec = &found.vm.spec;
    let open = spec.installation().filter(|_| found.milestones.installed.is_none() && !spec.is_adopted());
    let of_installer = |name: &ResourceName| {
        open.is_some_and(|it| {
            it.disc.medium == *name || it.drivers.as_ref().is_some_and(|drivers| drivers.medium == *name)
        })
    };
    plugged.media.retain(|medium| match &medium.source {
        DiscSource::Library { medium } => library.contains(medium) && !of_installer(medium),
        DiscSource::Volume { volume, .. } => volume.as_str().to_ascii_lowercase().ends_with(".iso"),
    });
    plugged
}

fn volume(vm: VmId, disk: &crate::vm::PluggedDisk) -> Resource {
    Resource {
        vm,
        kind: ResourceKind::Volume,
        place: disk.pool.to_string(),
        name: disk.volume.clone(),
        state: ResourceState::Created,
    }
}
