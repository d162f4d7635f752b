//! What is plugged into a VM.

mod disk;
mod interface;
mod medium;

use super::ChangeError;
use crate::{
    hypervisor::Live,
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::{DeviceChange, Effect, VmSpec},
};

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: &DeviceChange,
) -> Result<ChangeOutcome, ChangeError> {
    match change {
        DeviceChange::AttachDisk { pool, volume, bytes } => {
            disk::attach(hands, bundle, pool, volume, *bytes).await
        }
        DeviceChange::DetachDisk { disk, delete_volume } => {
            disk::detach(hands, bundle, disk, *delete_volume).await
        }
        DeviceChange::InsertMedium { source, drive } => {
            medium::insert(hands, bundle, source, drive.as_ref()).await
        }
        DeviceChange::EjectMedium { drive } => medium::eject(hands, bundle, drive).await,
        DeviceChange::AttachInterface { source } => interface::attach(hands, bundle, source).await,
        DeviceChange::DetachInterface { mac } => interface::detach(hands, bundle, mac).await,
    }
}

/// A VM that is saved goes on as it was saved, whatever is configured.
fn effect(live: &Live, saved: bool) -> Effect {
    if *live == Live::Done && !saved { Effect::Live } else { Effect::NextBoot }
}

fn done(effect: Effect, spec: VmSpec) -> ChangeOutcome {
    ChangeOutcome { effect: Some(effect), spec: Some(spec), ..ChangeOutcome::default() }
}

/// What to say of a guest that does not let go. It is asked again until the budget ends. What the
/// hypervisor says of it may name things of the host, and is for the log.
fn kept(what: &str, words: Option<&str>) -> ChangeError {
    tracing::info!(what, words, "the guest does not let go");
    ChangeError::Waiting(format!(
        "the guest does not let go of {what}, which is still plugged in; stop using it in the guest, or stop the \
         VM, and ask again"
    ))
}
