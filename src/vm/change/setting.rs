//! How a VM is called and treated.

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{OperationKind, VmStatus};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingChange {
    /// Whether the host starts the VM when it boots itself.
    Autostart(bool),
}

impl SettingChange {
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Autostart(_) => OperationKind::SetAutostart,
        }
    }

    pub(super) fn stage(&self) -> &'static str {
        match self {
            Self::Autostart(_) => "telling libvirt",
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "others of its kind depend on the state")]
    pub(super) fn check(&self, _status: Option<&VmStatus>) -> Result<(), WrongState> {
        match self {
            Self::Autostart(_) => Ok(()),
        }
    }
}
