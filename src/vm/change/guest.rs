//! What is done to a running guest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{OperationKind, VmPhase, VmStatus};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestChange {
    /// Press the reset button: the guest is not asked.
    Reset,
}

impl GuestChange {
    pub(super) fn kind(self) -> OperationKind {
        match self {
            Self::Reset => OperationKind::Reset,
        }
    }

    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::Reset => "resetting the guest",
        }
    }

    pub(super) fn budget(self) -> Duration {
        match self {
            Self::Reset => Duration::from_secs(60),
        }
    }

    pub(super) fn check(self, status: Option<&VmStatus>) -> Result<(), WrongState> {
        match status.map(|status| status.phase) {
            Some(VmPhase::Running | VmPhase::Installing | VmPhase::Stopping) => Ok(()),
            _ => Err(WrongState("the VM is not running; start it with `startVm`".to_owned())),
        }
    }
}
