//! A guest's file systems, brought to rest for a snapshot and let go again.

use super::{ChangeError, note};
use crate::{
    failpoint::failpoint,
    hypervisor::{Freeze, HypervisorError, Thaw},
    reconcile::apply::Hands,
    store::VmBundle,
    vm::{DomainState, Frost, NewSnapshot, OperationId, Quiesce, Quiesced, SnapshotChange, VmChange, VmId},
};

/// How often a snapshot is taken with frozen file systems that then turn out to have been thawed
/// too early, or perhaps so.
const TRIES: u32 = 2;

/// Brings the file systems to rest, if they can be; that they may be is noted first.
pub(super) async fn freeze(
    hands: &Hands,
    id: VmId,
    operation: OperationId,
    new: &NewSnapshot,
    state: DomainState,
) -> Result<Quiesced, ChangeError> {
    if new.quiesce == Quiesce::Never {
        return Ok(Quiesced::NotAsked);
    }
    if new.frost.spoiled >= TRIES {
        return Ok(Quiesced::Late);
    }
    let runs = matches!(state, DomainState::Running | DomainState::Blocked);
    if !runs || !hands.hypervisor.can_freeze(id).await? {
        return Ok(Quiesced::NoAgent);
    }
    note(hands, operation, with(new, Frost { may_be_frozen: true, held: false, ..new.frost })).await?;
    failpoint!("freeze.noted");
    let freeze = hands.hypervisor.freeze(id).await?;
    failpoint!("freeze.frozen");
    match freeze {
        Freeze::Frozen => Ok(Quiesced::Yes),
        Freeze::Doubtful => {
            melt(hands, id, operation, new).await?;
            Ok(Quiesced::Failed)
        }
    }
}

/// Lets them go, and notes it: what comes next may take its time.
pub(super) async fn melt(
    hands: &Hands,
    id: VmId,
    operation: OperationId,
    new: &NewSnapshot,
) -> Result<(), ChangeError> {
    match hands.hypervisor.thaw(id).await? {
        Thaw::Thawed(_) | Thaw::Off => {}
        Thaw::Halted => return Err(halted(id)),
    }
    failpoint!("melt.thawed");
    note(hands, operation, with(new, Frost { may_be_frozen: false, held: true, ..new.frost })).await?;
    failpoint!("melt.noted");
    Ok(())
}

/// The step that comes before everything else while the file systems may be frozen.
pub(in crate::reconcile) async fn thaw(hands: &Hands, bundle: &VmBundle) -> Result<(), ChangeError> {
    let id = bundle.record.id;
    let asked = bundle.operations.iter().find_map(|operation| match &operation.change {
        Some(VmChange::Snapshot(SnapshotChange::Create(new))) => Some((operation.id, new)),
        _ => None,
    });
    let Some((operation, new)) = asked else { return Ok(()) };
    // Looked for first. If that cannot be told now, it counts as not there: it may be taken any
    // moment, of file systems that are at work again.
    let taken = hands.hypervisor.snapshot(id, &new.name).await.ok().flatten();
    let taken = taken.and_then(|snapshot| snapshot.tag).is_some_and(|tag| tag.operation == operation);
    let held = match hands.hypervisor.thaw(id).await? {
        Thaw::Thawed(count) => taken && count > 0,
        Thaw::Off => taken,
        Thaw::Halted => return Err(halted(id)),
    };
    failpoint!("thaw.thawed");
    let spoiled = new.frost.spoiled.saturating_add(u32::from(!held));
    note(hands, operation, with(new, Frost { may_be_frozen: false, held, spoiled })).await?;
    failpoint!("thaw.noted");
    Ok(())
}

fn with(new: &NewSnapshot, frost: Frost) -> NewSnapshot {
    NewSnapshot { frost, ..new.clone() }
}

/// Not a failure: there is nobody to thaw them until the processors go on.
fn halted(id: VmId) -> ChangeError {
    let operation = format!("thaw the file systems of domain {id}, whose processors are halted");
    HypervisorError::Deadline { operation, limit: std::time::Duration::ZERO }.into()
}
