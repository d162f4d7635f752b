//! Media in drives.

use std::path::PathBuf;

use super::{done, effect};
use crate::{
    domain_xml::{DiskFacts, DiskKind, NewDevice},
    hypervisor::DomainHardware,
    reconcile::{
        apply::Hands,
        change::{ChangeError, refused},
    },
    store::{ChangeOutcome, VmBundle},
    vm::{DiscSource, DiskTarget, PluggedMedium, VmId, disc_file_name},
};

/// Where a medium goes.
enum Drive {
    Standing(DiskTarget),
    New(DiskTarget),
}

pub(super) async fn insert(
    hands: &Hands,
    bundle: &VmBundle,
    source: &DiscSource,
    wanted: Option<&DiskTarget>,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let path = path_of(hands, id, source).await?;
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
        None => choose(&now, &path)
            .ok_or_else(|| refused("TOO_MANY_DEVICES", "every place for a drive is taken".to_owned()))?,
    };
    let (target, live) = match drive {
        Drive::Standing(target) => {
            // The very disc may be put in again: a crash came before that was noted.
            if now.config.disk(target.as_str()).is_none_or(|disk| disk.source.as_ref() != Some(&path)) {
                let_go(bundle, &target, now.saved)?;
            }
            let live = hands.hypervisor.set_medium(id, target.as_str(), Some(path)).await?;
            (target, live)
        }
        Drive::New(target) => {
            let scsi = now.live.as_ref().unwrap_or(&now.config).has_virtio_scsi;
            let new = NewDevice::Drive { target: target.to_string(), scsi, medium: Some(path) };
            (target, hands.hypervisor.plug(id, new).await?)
        }
    };
    let mut spec = bundle.record.spec.clone();
    spec.devices.media.retain(|other| other.target != target);
    spec.devices.media.push(PluggedMedium { target, source: source.clone() });
    Ok(done(effect(&live, now.saved), spec))
}

/// The file that a medium is.
async fn path_of(hands: &Hands, id: VmId, source: &DiscSource) -> Result<PathBuf, ChangeError> {
    match source {
        DiscSource::Volume { pool, volume } => {
            let Some(medium) = hands.hypervisor.volume(id, pool.as_str(), volume.as_str()).await? else {
                let words = format!("pool {pool} has no volume {volume} any more");
                return Err(refused("MEDIUM_NOT_FOUND", words));
            };
            // Other VMs' seeds hold their secrets.
            if !medium.is_medium() || medium.path.starts_with(&hands.settings.seeds_dir) {
                let words = format!("volume {volume} of pool {pool} is no medium");
                return Err(refused("MEDIUM_UNUSABLE", words));
            }
            Ok(medium.path)
        }
        // Its row is held since this was asked for; its file may be gone all the same.
        DiscSource::Library { medium } => {
            let path = hands.settings.discs_dir.join(disc_file_name(medium));
            match hands.files.has_file(&path).await? {
                true => Ok(path),
                false => {
                    let words = format!(
                        "the file of {medium} is gone from the directory of media; delete the medium and import it again"
                    );
                    Err(refused("MEDIUM_UNUSABLE", words))
                }
            }
        }
    }
}

/// Memory that was saved with a disc of the library in a drive needs that disc again: it stays
/// named, so that nobody deletes it.
fn let_go(bundle: &VmBundle, target: &DiskTarget, saved: bool) -> Result<(), ChangeError> {
    match bundle.record.spec.devices.library_disc(target) {
        Some(name) if saved => {
            let words = format!("the VM's memory is saved with {name} in drive {target}; start the VM first");
            Err(refused("WRONG_STATE", words))
        }
        _ => Ok(()),
    }
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
    let_go(bundle, target, now.saved)?;
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
