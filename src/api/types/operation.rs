//! Operations.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::vm::{Effect, Operation, OperationKind, OperationStatus};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "OperationKind", name = "OperationKind")]
pub(crate) enum OperationKindName {
    /// Make a VM and bring it to a running, installed, reporting state.
    Create,
    /// Power on.
    Start,
    /// Power off.
    Stop,
    /// Remove every trace.
    Delete,
    /// Halt the processors; memory stays.
    Suspend,
    /// Write memory to disk and power off; the next start goes on from there.
    Save,
    /// Have the guest boot anew.
    Reboot,
    /// Press the reset button.
    Reset,
    /// Set whether the host starts it at its own boot.
    SetAutostart,
    /// Give it another name.
    Rename,
    /// Set how its power is kept.
    SetPolicy,
    /// Change processors or memory.
    Resize,
    /// Make a disk larger.
    GrowDisk,
    /// Plug a disk in.
    AttachDisk,
    /// Unplug a disk.
    DetachDisk,
    /// Put a medium into a drive, or take it out.
    ChangeMedium,
    /// Plug a network card in.
    AttachInterface,
    /// Unplug a network card.
    DetachInterface,
    /// Take a snapshot.
    CreateSnapshot,
    /// Go back to a snapshot.
    RevertSnapshot,
    /// Forget a snapshot.
    DeleteSnapshot,
    /// Make a VM as a full copy of another one.
    Clone,
    /// Keep still while another VM is made as a copy of this one.
    Lend,
    /// Take a domain that others made under management.
    Adopt,
    /// Give an adopted domain back.
    Release,
}

/// When a change that was carried out takes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Effect", name = "ChangeEffect")]
pub(crate) enum ChangeEffect {
    /// It holds already.
    Live,
    /// The running guest goes on as before; it holds when the VM is powered off and started again.
    NextBoot,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "OperationStatus", name = "OperationStatus")]
pub(crate) enum OperationStatusName {
    /// Stored, not looked at yet.
    Pending,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Given up; `error` says why.
    Failed,
    /// A later request took its place.
    Superseded,
}

/// Why an operation failed.
#[derive(Debug, SimpleObject)]
#[graphql(name = "OperationError")]
pub(crate) struct OperationErrorObject {
    /// Stable, for programs.
    code: String,
    /// For people.
    message: String,
}

/// A change that takes time, from request to outcome.
#[derive(Debug, SimpleObject)]
#[graphql(name = "Operation")]
pub(crate) struct OperationObject {
    /// Its id.
    id: Uuid,
    /// The VM it changes. The VM may be gone.
    vm_id: Uuid,
    /// What was asked for.
    kind: OperationKindName,
    /// Where it stands.
    status: OperationStatusName,
    /// 0 to 100.
    progress: i32,
    /// What is happening now, in a few words. Of one that succeeded `done`, or what begins with `forced: `
    /// where the guest was asked and did not follow, and was made to.
    stage: String,
    /// Of a change that succeeded: when it takes hold.
    effect: Option<ChangeEffect>,
    /// Only of a failed one.
    error: Option<OperationErrorObject>,
    /// Who asked.
    requested_by: Uuid,
    /// When.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl From<Operation> for OperationObject {
    fn from(operation: Operation) -> Self {
        let error = operation.error;
        Self {
            id: operation.id.uuid(),
            vm_id: operation.vm.uuid(),
            kind: operation.kind.into(),
            status: operation.status.into(),
            progress: operation.progress,
            stage: operation.stage,
            effect: operation.effect.map(Into::into),
            error: error.map(|error| OperationErrorObject { code: error.code, message: error.message }),
            requested_by: operation.requested_by.uuid(),
            created_at: operation.created_at,
            finished_at: operation.finished_at,
        }
    }
}
