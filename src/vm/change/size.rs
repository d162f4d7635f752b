//! Processors, memory, the size of a disk.

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{DiskTarget, OperationKind, VmPhase, VmRecord, VmStatus};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeChange {
    /// Give the VM so many processors and so much memory.
    Resize {
        /// As before when absent.
        vcpus: Option<u32>,
        /// MiB; as before when absent.
        memory_mib: Option<u64>,
    },
    /// Make a disk larger.
    GrowDisk {
        /// Which.
        target: DiskTarget,
        /// Its new size, bytes.
        bytes: u64,
    },
}

impl SizeChange {
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Resize { .. } => OperationKind::Resize,
            Self::GrowDisk { .. } => OperationKind::GrowDisk,
        }
    }

    pub(super) fn stage(&self) -> &'static str {
        match self {
            Self::Resize { .. } => "changing processors and memory",
            Self::GrowDisk { .. } => "growing a disk",
        }
    }

    pub(super) fn check(&self, record: &VmRecord, status: Option<&VmStatus>) -> Result<(), WrongState> {
        match status.map(|status| status.phase) {
            Some(VmPhase::Missing) => {
                Err(WrongState(format!("the VM's domain is gone; {}", record.spec.when_gone())))
            }
            _ => Ok(()),
        }
    }
}
