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
    /// Have the guest boot anew: politely, and when it does not within a grace by the reset button;
    /// with `force` by the reset button at once.
    Reboot {
        /// The guest is not asked.
        force: bool,
    },
}

impl GuestChange {
    pub(super) fn kind(self) -> OperationKind {
        match self {
            Self::Reset => OperationKind::Reset,
            Self::Reboot { .. } => OperationKind::Reboot,
        }
    }

    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::Reset | Self::Reboot { force: true } => "resetting the guest",
            Self::Reboot { force: false } => "asking the guest to reboot",
        }
    }

    /// That of a polite reboot is longer than the longest grace that may be configured.
    pub(super) fn budget(self) -> Duration {
        match self {
            Self::Reset | Self::Reboot { force: true } => Duration::from_secs(60),
            Self::Reboot { force: false } => Duration::from_secs(900),
        }
    }

    pub(super) fn check(self, status: Option<&VmStatus>) -> Result<(), WrongState> {
        let refused = |words: &str| Err(WrongState(words.to_owned()));
        match (status.map(|status| status.phase), self) {
            (Some(VmPhase::Running | VmPhase::Installing), _) | (Some(VmPhase::Stopping), Self::Reset) => {
                Ok(())
            }
            (Some(VmPhase::Paused), _) => refused("the VM is paused; resume it with `resumeVm`"),
            (Some(VmPhase::Stopping), Self::Reboot { .. }) => {
                refused("the VM is going off; start it with `startVm` when it is off")
            }
            _ => refused("the VM is not running; start it with `startVm`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::AgentConnectivity;

    #[test]
    fn a_guest_that_does_not_run_cannot_be_rebooted() {
        for phase in VmPhase::ALL {
            let status = VmStatus {
                phase,
                agent: AgentConnectivity::Unknown,
                last_seen: None,
                agent_version: None,
                conditions: Vec::new(),
            };
            let runs = matches!(phase, VmPhase::Running | VmPhase::Installing);
            for force in [true, false] {
                assert_eq!(GuestChange::Reboot { force }.check(Some(&status)).is_ok(), runs, "{phase}");
            }
            let resets = runs || phase == VmPhase::Stopping;
            assert_eq!(GuestChange::Reset.check(Some(&status)).is_ok(), resets, "{phase}");
        }
        assert!(GuestChange::Reset.check(None).is_err());
    }
}
