//! Processors, memory, the size of a disk.

use std::time::Duration;

use chrono::TimeDelta;

use super::{ChangeError, refused};
use crate::{
    hypervisor::{DomainHardware, HypervisorError},
    reconcile::apply::{self, Hands},
    store::{ChangeOutcome, VmBundle},
    vm::{DiskTarget, Effect, ResourceKind, SizeChange, VmChange},
};

/// How long a guest is given to hand memory over, or to take it.
const BALLOON_GRACE: Duration = Duration::from_secs(15);

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: &SizeChange,
) -> Result<ChangeOutcome, ChangeError> {
    match change {
        SizeChange::Resize { vcpus, memory_mib } => resize(hands, bundle, *vcpus, *memory_mib).await,
        SizeChange::GrowDisk { target, bytes } => grow(hands, bundle, target, *bytes).await,
    }
}

async fn resize(
    hands: &Hands,
    bundle: &VmBundle,
    vcpus: Option<u32>,
    memory_mib: Option<u64>,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let mut spec = bundle.record.spec.clone();
    // What nobody asked to be changed stays as it is configured, by whomever.
    let before = hands.hypervisor.hardware(id).await?.config;
    spec.vcpus = vcpus.unwrap_or(before.vcpus);
    spec.memory_mib = memory_mib.unwrap_or(before.memory_mib);
    hands.hypervisor.resize(id, spec.vcpus, spec.memory_mib).await?;
    let asked = Asked { vcpus: vcpus.is_some(), memory: memory_mib.is_some() };
    let effect = resized(&hands.hypervisor.hardware(id).await?, asked);
    if effect == Resized::GuestIsAsked && is_young(hands, bundle) {
        return Err(ChangeError::Waiting("the guest has not changed its memory yet".to_owned()));
    }
    let effect = if effect == Resized::Live { Effect::Live } else { Effect::NextBoot };
    Ok(ChangeOutcome { effect: Some(effect), spec: Some(spec), ..ChangeOutcome::default() })
}

/// What was asked to be changed: the rest may differ for other reasons, such as a guest that never
/// handed over the memory that it was begun with.
#[derive(Debug, Clone, Copy)]
struct Asked {
    vcpus: bool,
    memory: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resized {
    Live,
    /// All is done but the guest's part.
    GuestIsAsked,
    NextBoot,
}

/// What came of a new size, by what is configured and what runs.
fn resized(now: &DomainHardware, asked: Asked) -> Resized {
    let config = &now.config;
    match &now.live {
        None if now.saved => Resized::NextBoot,
        None => Resized::Live,
        Some(live) if asked.vcpus && live.vcpus != config.vcpus => Resized::NextBoot,
        Some(live) if !asked.memory || live.memory_mib == config.memory_mib => Resized::Live,
        Some(live) if live.max_memory_mib >= config.memory_mib => Resized::GuestIsAsked,
        Some(_) => Resized::NextBoot,
    }
}

fn is_young(hands: &Hands, bundle: &VmBundle) -> bool {
    let mut open = bundle.operations.iter();
    let asked = open.find(|operation| matches!(operation.change, Some(VmChange::Size(_))));
    let grace = TimeDelta::from_std(BALLOON_GRACE).unwrap_or(TimeDelta::MAX);
    // A clock that went back since makes nobody young again.
    asked.is_some_and(|operation| {
        (TimeDelta::zero()..grace).contains(&(hands.clock.now() - operation.created_at))
    })
}

async fn grow(
    hands: &Hands,
    bundle: &VmBundle,
    target: &DiskTarget,
    bytes: u64,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let mut spec = bundle.record.spec.clone();
    let (pool, name) = match spec.devices.disk(target) {
        Some(disk) => (disk.pool.to_string(), disk.volume.clone()),
        None => {
            let root = apply::disk(id, spec.pool.as_str());
            (root.place, root.name)
        }
    };
    let now = hands.hypervisor.hardware(id).await?;
    let Some(disk) = now.live.as_ref().unwrap_or(&now.config).disk(target.as_str()) else {
        return Err(refused("DEVICE_NOT_FOUND", format!("the domain has no disk {target}")));
    };
    if now.saved {
        let words = "the VM's memory is saved with the disk as it is; start the VM first";
        return Err(refused("WRONG_STATE", words.to_owned()));
    }
    let grown = if now.live.is_some() {
        hands.hypervisor.grow_disk(id, target.as_str(), bytes).await
    } else {
        let ours = bundle.resources.iter().any(|resource| {
            resource.kind == ResourceKind::Volume && (&resource.place, &resource.name) == (&pool, &name)
        });
        let path = hands.hypervisor.volume_path(id, &pool, &name).await?;
        if !ours || path.is_none() || path != disk.source {
            let words = format!(
                "disk {target} does not stand on the volume that was made for it: a snapshot may stand \
                 between; delete the VM's snapshots, or grow the disk while the VM runs"
            );
            return Err(refused("WRONG_STATE", words));
        }
        hands.hypervisor.grow_volume(id, &pool, &name, bytes).await
    };
    if let (Err(HypervisorError::Refused { source, .. }), true) = (&grown, now.has_snapshots) {
        tracing::warn!(vm = %id, %target, error = %source, "a disk with snapshots cannot be grown");
        let words =
            format!("libvirt refuses to grow disk {target} while the VM has snapshots; delete them first");
        return Err(refused("WRONG_STATE", words));
    }
    grown.map_err(|error| unsupported(error, "grow a disk"))?;
    match spec.devices.disks.iter_mut().find(|disk| disk.target == *target) {
        Some(disk) => disk.bytes = disk.bytes.max(bytes),
        None => spec.disk_bytes = spec.disk_bytes.max(bytes),
    }
    Ok(ChangeOutcome { effect: Some(Effect::Live), spec: Some(spec), ..ChangeOutcome::default() })
}

/// What a driver cannot do at all, it cannot do when it is asked again.
pub(super) fn unsupported(error: HypervisorError, what: &str) -> ChangeError {
    if error.is_unsupported() {
        let words =
            format!("this hypervisor cannot {what} as the VM is; stop the VM, or start it, and try again");
        return refused("NOT_SUPPORTED", words);
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain_xml::Hardware;

    #[test]
    fn what_came_of_a_size_is_told_as_it_is() {
        let size = |vcpus, max_vcpus, memory_mib, max_memory_mib| Hardware {
            vcpus,
            max_vcpus,
            memory_mib,
            max_memory_mib,
            ..Hardware::default()
        };
        let config = size(2, 2, 512, 512);
        for (live, saved, expected) in [
            (None, false, Resized::Live),
            (None, true, Resized::NextBoot),
            (Some(size(2, 2, 512, 512)), false, Resized::Live),
            (Some(size(2, 4, 512, 1024)), false, Resized::Live),
            (Some(size(1, 1, 512, 512)), false, Resized::NextBoot),
            (Some(size(1, 1, 256, 512)), false, Resized::NextBoot),
            (Some(size(2, 2, 256, 256)), false, Resized::NextBoot),
            (Some(size(2, 2, 1024, 1024)), false, Resized::GuestIsAsked),
        ] {
            let words = format!("{live:?}");
            let now = DomainHardware { config: config.clone(), live, saved, has_snapshots: false };
            assert_eq!(resized(&now, Asked { vcpus: true, memory: true }), expected, "{words}");
        }
        // What nobody spoke of may be as it is.
        let live = Some(size(1, 1, 1024, 1024));
        let now = DomainHardware { config, live, saved: false, has_snapshots: false };
        assert_eq!(resized(&now, Asked { vcpus: true, memory: false }), Resized::NextBoot);
        assert_eq!(resized(&now, Asked { vcpus: false, memory: true }), Resized::GuestIsAsked);
        let now = DomainHardware { config: size(1, 1, 512, 512), ..now };
        assert_eq!(resized(&now, Asked { vcpus: true, memory: false }), Resized::Live);
    }
}
