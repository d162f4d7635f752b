//! A VM's snapshots.
//!
//! **Never left frozen.** That the guest's file systems may be frozen is written into the operation's
//! row before they are, and stands there until they were thawed. While it stands, the plan puts
//! [`thaw`] before everything else: beside a call that hangs, after a crash, past the change's time.
//! A snapshot that is found when they had been thawed before it was surely there is taken again.

mod frost;

pub(in crate::reconcile) use frost::thaw;

use super::ChangeError;
use crate::{
    failpoint::failpoint,
    hypervisor::{HypervisorError, RevertTo, SnapshotRequest, VolumePlace},
    reconcile::{
        apply::Hands,
        made_of::{Dirs, made_of},
    },
    store::{ChangeOutcome, VmBundle},
    vm::{
        Before, DesiredPower, DomainObservation, DomainState, Effect, MAX_SNAPSHOTS, NewSnapshot, Operation,
        OperationId, Quiesce, Quiesced, ResourceKind, SnapshotChange, SnapshotName, SnapshotState,
        SnapshotTag, VmChange, VmId, VmSpec,
    },
};

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: &SnapshotChange,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let Some(operation) = bundle.operations.iter().find(|operation| operation.change.is_some()) else {
        return Ok(ChangeOutcome::default());
    };
    match change {
        SnapshotChange::Create(new) => create(hands, bundle, operation, new).await,
        SnapshotChange::Revert { name, before } => revert(hands, bundle, operation, name, *before).await,
        SnapshotChange::Delete { name, children } => {
            hands.hypervisor.delete_snapshot(id, name, *children).await?;
            Ok(live())
        }
    }
}

fn live() -> ChangeOutcome {
    ChangeOutcome { effect: Some(Effect::Live), ..ChangeOutcome::default() }
}

async fn create(
    hands: &Hands,
    bundle: &VmBundle,
    operation: &Operation,
    new: &NewSnapshot,
) -> Result<ChangeOutcome, ChangeError> {
    let (hypervisor, id) = (&hands.hypervisor, bundle.record.id);
    let state = domain_state(hands, id).await?;
    if let Some(found) = hypervisor.snapshot(id, &new.name).await? {
        let Some(tag) = found.tag.filter(|tag| tag.operation == operation.id) else {
            return Err(exists(&new.name));
        };
        // Of one that is off since, nobody but its end let go of the file systems.
        let held = new.frost.held || (new.frost.may_be_frozen && !state.is_active());
        if tag.quiesced != Quiesced::Yes || held {
            return Ok(live());
        }
        // Taken, and thawed before that was known.
        hypervisor.delete_snapshot(id, &new.name, false).await?;
        failpoint!("retake-snapshot.deleted");
    }
    if hypervisor.snapshot_names(id).await?.len() >= MAX_SNAPSHOTS {
        return Err(too_many());
    }
    let running = state.is_active();
    if running && bundle.record.spec.firmware.is_uefi() {
        return Err(refused("SNAPSHOT_UNSUPPORTED", SnapshotChange::NO_LIVE_UEFI.to_owned()));
    }
    let memory = new.memory.unwrap_or(running);
    if memory && !running {
        let words = "the guest powered off before its memory could be kept; ask without `memory`";
        return Err(refused("WRONG_STATE", words.to_owned()));
    }
    let request = |quiesced| SnapshotRequest {
        name: new.name.clone(),
        description: new.description.clone(),
        tag: SnapshotTag { operation: operation.id, memory, quiesced },
    };
    if memory || !running {
        take(hands, id, request(Quiesced::NotNeeded)).await?;
        return Ok(live());
    }
    match frost::freeze(hands, id, operation.id, new, state).await? {
        Quiesced::Yes => {
            let taken = take(hands, id, request(Quiesced::Yes)).await;
            if let Err(ChangeError::Hypervisor(
                HypervisorError::Deadline { .. } | HypervisorError::Unreachable { .. },
            )) = &taken
            {
                // Still under way, or perhaps so: the plan thaws beside it.
                return taken.map(|()| live());
            }
            frost::melt(hands, id, operation.id, new).await?;
            taken.map(|()| live())
        }
        quiesced if new.quiesce == Quiesce::Required => {
            let why = quiesced.reason().unwrap_or("it cannot be told why");
            let words = format!("no snapshot was taken, because the file systems were not at rest: {why}");
            Err(refused("QUIESCE_FAILED", words))
        }
        quiesced => {
            take(hands, id, request(quiesced)).await?;
            Ok(live())
        }
    }
}

async fn take(hands: &Hands, id: VmId, request: SnapshotRequest) -> Result<(), ChangeError> {
    hands.hypervisor.create_snapshot(id, request).await.map_err(unless_impossible)?;
    failpoint!("create-snapshot.taken");
    Ok(())
}

async fn revert(
    hands: &Hands,
    bundle: &VmBundle,
    operation: &Operation,
    name: &SnapshotName,
    before: Option<Before>,
) -> Result<ChangeOutcome, ChangeError> {
    let (hypervisor, id) = (&hands.hypervisor, bundle.record.id);
    let found = hypervisor.snapshot(id, name).await?.ok_or_else(|| missing(name))?;
    let (to, power) = match found.state {
        SnapshotState::Running => (RevertTo::Running, DesiredPower::Running),
        SnapshotState::Shutoff | SnapshotState::Disk => (RevertTo::Off, DesiredPower::Stopped),
    };
    // The domain's configuration goes back too.
    let outcome = async || {
        let spec = made_of_now(hands, bundle).await?;
        Ok(ChangeOutcome { power: Some(power), spec: Some(spec), ..live() })
    };
    let instance = hypervisor.instance(id).await?;
    match before {
        // Done before a crash: done again, it would take from the guest what it did since.
        Some(before) if to == RevertTo::Running && found.current && instance > before.instance => {
            return outcome().await;
        }
        Some(_) => {}
        None => {
            let change = SnapshotChange::Revert { name: name.clone(), before: Some(Before { instance }) };
            hands.store.note_change(operation.id, &VmChange::Snapshot(change)).await?;
            failpoint!("revert-snapshot.noted");
        }
    }
    match hypervisor.revert_snapshot(id, name, to).await {
        Ok(()) => outcome().await,
        Err(HypervisorError::NotFound { .. }) => Err(missing(name)),
        Err(error) => Err(unless_impossible(error)),
    }
}

/// What the VM is made of after its domain was put back.
async fn made_of_now(hands: &Hands, bundle: &VmBundle) -> Result<VmSpec, ChangeError> {
    let is_ours = |volume: &VolumePlace| {
        let mut ours = bundle.resources.iter().filter(|resource| resource.kind == ResourceKind::Volume);
        ours.any(|resource| (&resource.place, &resource.name) == (&volume.pool, &volume.name))
    };
    let dirs = Dirs { seeds: &hands.settings.seeds_dir, discs: &hands.settings.discs_dir };
    let record = &bundle.record;
    Ok(made_of(&*hands.hypervisor, record.id, &record.spec, is_ours, dirs).await?.spec)
}

/// As it is now: what the plan saw may be over.
async fn domain_state(hands: &Hands, id: VmId) -> Result<DomainState, ChangeError> {
    match hands.hypervisor.observe(id).await? {
        DomainObservation::Present(facts) => Ok(facts.state),
        _ => Err(HypervisorError::NotFound { operation: format!("observe domain {id}") }.into()),
    }
}

/// What libvirt or a disk can never do is not tried again.
fn unless_impossible(error: HypervisorError) -> ChangeError {
    match error {
        HypervisorError::Refused { ref source, .. } if is_impossible(source) => refused(
            "SNAPSHOT_UNSUPPORTED",
            format!("libvirt cannot do that with this VM: {}", source.message()),
        ),
        error => error.into(),
    }
}

fn is_impossible(error: &virt::error::Error) -> bool {
    use virt::error::ErrorNumber;
    matches!(
        error.code().known(),
        Some(
            ErrorNumber::NoSupport
                | ErrorNumber::ArgumentUnsupported
                | ErrorNumber::ConfigUnsupported
                | ErrorNumber::OperationUnsupported
        )
    )
}

fn refused(code: &'static str, message: String) -> ChangeError {
    ChangeError::Refused { code, message }
}

fn exists(name: &SnapshotName) -> ChangeError {
    refused("SNAPSHOT_EXISTS", format!("the VM has a snapshot {name:?}; choose another name"))
}

fn missing(name: &SnapshotName) -> ChangeError {
    refused("SNAPSHOT_NOT_FOUND", format!("the VM has no snapshot {name:?}"))
}

fn too_many() -> ChangeError {
    refused("TOO_MANY_SNAPSHOTS", format!("the VM has {MAX_SNAPSHOTS} snapshots; delete some first"))
}

/// Writes down how far bringing the file systems to rest has come.
async fn note(hands: &Hands, operation: OperationId, new: NewSnapshot) -> Result<(), ChangeError> {
    let change = VmChange::Snapshot(SnapshotChange::Create(new));
    Ok(hands.store.note_change(operation, &change).await?)
}
