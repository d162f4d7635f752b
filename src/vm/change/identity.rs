//! Whose a domain is: taken under management, and given back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{OperationKind, VmRecord};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityChange {
    /// Give a domain that others made our channel and our metadata.
    Adopt,
    /// Take back what was given to it, and forget the VM.
    Release,
}

impl IdentityChange {
    pub(super) fn kind(self) -> OperationKind {
        match self {
            Self::Adopt => OperationKind::Adopt,
            Self::Release => OperationKind::Release,
        }
    }

    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::Adopt => "giving the domain the agent's channel",
            Self::Release => "taking back what the domain was given",
        }
    }

    pub(super) fn budget(self) -> Duration {
        Duration::from_secs(300)
    }

    pub(super) fn check(self, record: &VmRecord) -> Result<(), WrongState> {
        match self {
            Self::Adopt => Err(WrongState("the VM is managed already".to_owned())),
            Self::Release if record.spec.is_adopted() => {
                let media = &record.spec.devices.media;
                match media.iter().find_map(|medium| Some((&medium.target, medium.source.library()?))) {
                    // Nobody would know that it is in use.
                    Some((target, name)) => Err(WrongState(format!(
                        "drive {target} holds {name} of the library; eject it first (`ejectVmMedium`)"
                    ))),
                    None => Ok(()),
                }
            }
            Self::Release => {
                Err(WrongState("the VM was made here and not adopted; delete it with `deleteVm`".to_owned()))
            }
        }
    }
}
