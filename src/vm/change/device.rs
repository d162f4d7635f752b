//! What is plugged into a VM.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{
    DiscSource, DiskTarget, NicSource, OperationKind, PluggedDisk, ResourceName, VmPhase, VmRecord, VmStatus,
};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChange {
    /// Make an empty volume and plug it in as a disk.
    AttachDisk {
        /// Where the volume is made.
        pool: ResourceName,
        /// The volume's name, chosen with the request so that a second attempt finds the first's.
        volume: String,
        /// Bytes.
        bytes: u64,
    },
    /// Unplug a disk.
    DetachDisk {
        /// Which, as it was when this was asked for.
        disk: PluggedDisk,
        /// Whether its volume goes, too.
        delete_volume: bool,
    },
    /// Put a medium into a drive.
    InsertMedium {
        /// The medium.
        #[serde(flatten)]
        source: DiscSource,
        /// Which drive; an empty one, or a new one, when absent.
        drive: Option<DiskTarget>,
    },
    /// Take the medium out of a drive, which stays.
    EjectMedium {
        /// Which.
        drive: DiskTarget,
    },
    /// Plug a network card in.
    AttachInterface {
        /// Into what.
        source: NicSource,
    },
    /// Unplug a network card.
    DetachInterface {
        /// Lower-case, colon separated.
        mac: String,
    },
}

impl DeviceChange {
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::AttachDisk { .. } => OperationKind::AttachDisk,
            Self::DetachDisk { .. } => OperationKind::DetachDisk,
            Self::InsertMedium { .. } | Self::EjectMedium { .. } => OperationKind::ChangeMedium,
            Self::AttachInterface { .. } => OperationKind::AttachInterface,
            Self::DetachInterface { .. } => OperationKind::DetachInterface,
        }
    }

    pub(super) fn stage(&self) -> &'static str {
        match self {
            Self::AttachDisk { .. } => "making a disk and plugging it in",
            Self::DetachDisk { .. } => "unplugging a disk",
            Self::InsertMedium { .. } => "inserting a medium",
            Self::EjectMedium { .. } => "ejecting a medium",
            Self::AttachInterface { .. } => "plugging a network card in",
            Self::DetachInterface { .. } => "unplugging a network card",
        }
    }

    pub(super) fn budget(&self) -> Duration {
        match self {
            // A guest that does not let go within a minute does not do it later.
            Self::DetachDisk { .. } | Self::DetachInterface { .. } => Duration::from_secs(60),
            _ => Duration::from_secs(600),
        }
    }

    pub(super) fn check(&self, record: &VmRecord, status: Option<&VmStatus>) -> Result<(), WrongState> {
        let unplugs = matches!(self, Self::DetachDisk { .. } | Self::DetachInterface { .. });
        match status.map(|status| status.phase) {
            Some(VmPhase::Missing) => {
                Err(WrongState(format!("the VM's domain is gone; {}", record.spec.when_gone())))
            }
            Some(VmPhase::Paused) if unplugs => Err(WrongState(
                "a paused guest cannot let go of a device; resume the VM, or stop it".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}
