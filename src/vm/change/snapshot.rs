//! A VM's snapshots.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Unfit, WrongState};
use crate::vm::{OperationKind, Quiesce, SnapshotName, VmPhase, VmRecord, VmStatus};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotChange {
    /// Take one.
    Create(NewSnapshot),
    /// Go back to one.
    Revert {
        /// Which.
        name: SnapshotName,
        /// Noted before the first attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Before>,
    },
    /// Forget one.
    Delete {
        /// Which.
        name: SnapshotName,
        /// With all that build on it.
        children: bool,
    },
}

/// A snapshot to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// What people write about it.
    pub description: String,
    /// With the guest's memory; `None`: if it runs.
    pub memory: Option<bool>,
    /// What becomes of the guest's file systems.
    pub quiesce: Quiesce,
    /// How far bringing them to rest has come.
    #[serde(default)]
    pub frost: Frost,
}

/// Written down before the guest's file systems are touched, so that whoever comes after a crash
/// knows that they may be frozen, and thaws them before anything else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frost {
    /// They may be frozen.
    pub may_be_frozen: bool,
    /// They were still frozen when the snapshot was there already.
    pub held: bool,
    /// How often they were thawed without its being sure that the snapshot was taken before.
    pub spoiled: u32,
}

/// The hypervisor's process of the domain before a revert: each revert to a running guest
/// begins a new one, with a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// `None`: it was off.
    pub instance: Option<u32>,
}

impl SnapshotChange {
    /// Why none is taken of a VM with UEFI that runs or is paused.
    pub const NO_LIVE_UEFI: &str = "QEMU keeps no snapshot of a running VM with UEFI, whose variables are in a \
                                    file of their own; stop the VM first";

    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Create(_) => OperationKind::CreateSnapshot,
            Self::Revert { .. } => OperationKind::RevertSnapshot,
            Self::Delete { .. } => OperationKind::DeleteSnapshot,
        }
    }

    pub(super) fn stage(&self) -> &'static str {
        match self {
            Self::Create(_) => "taking the snapshot",
            Self::Revert { .. } => "going back to the snapshot",
            Self::Delete { .. } => "removing the snapshot",
        }
    }

    /// Memory is written and read at the speed of a disk; snapshots of a whole tree are removed
    /// one after the other.
    pub(super) fn budget(&self) -> Duration {
        Duration::from_secs(3600)
    }

    pub(super) fn check(&self, record: &VmRecord, status: Option<&VmStatus>) -> Result<(), Unfit> {
        let phase = status.map(|status| status.phase);
        let refused = |words: &str| Err(WrongState(words.to_owned()).into());
        match (self, phase) {
            (Self::Create(new), Some(VmPhase::Stopped | VmPhase::Crashed)) if new.memory == Some(true) => {
                refused("the VM is off and has no memory to keep; ask without `memory`, or start it first")
            }
            // What was done of a first boot is noted once and for all: a guest that is put back
            // into the middle of it would not find its seed again.
            (Self::Create(_), _) if record.spec.is_provisioned() && record.milestones.installed.is_none() => {
                refused("its first boot is not finished; wait for the operation that made it")
            }
            (Self::Create(_), Some(VmPhase::Running | VmPhase::Installing | VmPhase::Paused))
                if record.spec.firmware.is_uefi() =>
            {
                Err(Unfit::SnapshotUnsupported(Self::NO_LIVE_UEFI))
            }
            (
                Self::Create(_),
                Some(
                    VmPhase::Running
                    | VmPhase::Installing
                    | VmPhase::Paused
                    | VmPhase::Stopped
                    | VmPhase::Crashed,
                ),
            ) => Ok(()),
            (Self::Create(_), _) => refused("a snapshot is taken of a VM that runs, is paused or is off"),
            (
                Self::Revert { .. } | Self::Delete { .. },
                Some(
                    VmPhase::Running
                    | VmPhase::Installing
                    | VmPhase::Starting
                    | VmPhase::Stopping
                    | VmPhase::Paused
                    | VmPhase::Stopped
                    | VmPhase::Crashed
                    | VmPhase::Failed,
                ),
            ) => Ok(()),
            _ => refused("the VM's domain is not known to be there; see its phase and conditions"),
        }
    }

    /// Whether the guest's file systems may be frozen on its behalf.
    pub(super) fn may_be_frozen(&self) -> bool {
        matches!(self, Self::Create(new) if new.frost.may_be_frozen)
    }
}
