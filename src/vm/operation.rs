//! Operations: a change that takes time, followed from request to outcome.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Effect, OperationId, UserId, VmChange, VmId};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationKind {
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
    /// Keep still while another VM is made as a copy.
    Lend,
    /// Take a domain that others made under management.
    Adopt,
    /// Give an adopted domain back.
    Release,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationStatus {
    /// Stored, not looked at yet.
    Pending,
    /// The loop is at work on it.
    Running,
    /// Done.
    Succeeded,
    /// Given up; `error` says why.
    Failed,
    /// A later request took its place.
    Superseded,
}

impl OperationStatus {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Superseded)
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationError {
    /// Stable code, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// How the stage begins of one whose guest was asked and did not follow, and was made to. It stands
/// also when the operation succeeded.
pub const FORCED: &str = "forced: ";

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its own id.
    pub id: OperationId,
    /// The VM it changes. The VM may be gone.
    pub vm: VmId,
    /// What was asked.
    pub kind: OperationKind,
    /// Where it stands.
    pub status: OperationStatus,
    /// 0 to 100.
    pub progress: i32,
    /// What is happening now, in a few words; of one that succeeded `done`, unless it is [`FORCED`].
    pub stage: String,
    /// Only with [`OperationStatus::Failed`].
    pub error: Option<OperationError>,
    /// What is to be changed, beyond power and end.
    pub change: Option<VmChange>,
    /// Of a change that was carried out: when it takes hold.
    pub effect: Option<Effect>,
    /// The intent's generation that this operation asked for.
    pub generation: i64,
    /// Who asked.
    pub requested_by: UserId,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}
