//! How a VM is called and treated.

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{OnCrash, OnPowerOff, OperationKind, VmName, VmPhase, VmStatus};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingChange {
    /// Whether the host starts the VM when it boots itself.
    Autostart(bool),
    /// Another name, for the VM and its domain.
    Rename(VmName),
    /// What to do when the VM is off although it was asked to run.
    Policy {
        /// When it was powered off.
        on_power_off: OnPowerOff,
        /// When it crashed.
        on_crash: OnCrash,
    },
}

impl SettingChange {
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Autostart(_) => OperationKind::SetAutostart,
            Self::Rename(_) => OperationKind::Rename,
            Self::Policy { .. } => OperationKind::SetPolicy,
        }
    }

    pub(super) fn stage(&self) -> &'static str {
        match self {
            Self::Autostart(_) => "telling libvirt",
            Self::Rename(_) => "renaming the domain",
            Self::Policy { .. } => "taking it down",
        }
    }

    pub(super) fn check(&self, status: Option<&VmStatus>) -> Result<(), WrongState> {
        match self {
            Self::Autostart(_) | Self::Policy { .. } => Ok(()),
            Self::Rename(_) => match status.map(|status| status.phase) {
                Some(VmPhase::Stopped | VmPhase::Crashed | VmPhase::Failed) => Ok(()),
                Some(VmPhase::Saved) => Err(WrongState(
                    "what was saved of the VM belongs to its name; start it and stop it before it is renamed"
                        .to_owned(),
                )),
                _ => Err(WrongState("the VM is not off; stop it with `stopVm`".to_owned())),
            },
        }
    }
}
