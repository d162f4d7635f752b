//! A VM that is kept still, because another one is being made as a copy of its disks.
//!
//! The loan begins in the transaction that stores the copy, and it is the lender's own task that finds
//! the VM off and says so; only then is anything read. It has no time of its own: it ends when the copy
//! needs it no more, however that came.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{VmId, VmPhase, VmRecord, VmStatus};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LendChange {
    /// The VM that is made as a copy.
    pub to: VmId,
    /// The lender was found off, and stays so: it may be copied from.
    #[serde(default)]
    pub still: bool,
}

impl LendChange {
    pub(super) const BUDGET: Duration = Duration::MAX;

    pub(super) fn stage(self) -> &'static str {
        if self.still { "its disks are being copied" } else { "making sure that the VM is off" }
    }

    pub(super) fn check(record: &VmRecord, status: Option<&VmStatus>) -> Result<(), WrongState> {
        let refused = |words: &str| Err(WrongState(words.to_owned()));
        if record.milestones.installed.is_none() {
            return refused("the VM's system is not ready yet; wait for the operation that made it");
        }
        match status.map(|status| status.phase) {
            Some(VmPhase::Stopped) if record.intent.is_open() && !record.intent.power.is_off() => {
                refused("the VM is about to be started; stop it with `stopVm`")
            }
            Some(VmPhase::Stopped) => Ok(()),
            Some(VmPhase::Saved) => refused(
                "what was saved of the VM's memory belongs to its disks as they are; start it and stop it first",
            ),
            Some(VmPhase::Missing) => {
                refused("the VM's domain is gone; restore it under the same UUID, or delete the VM")
            }
            Some(VmPhase::Unknown) | None => {
                refused("what the VM does is not known now, because libvirt cannot be asked; try again")
            }
            Some(_) => refused("the VM is not off; stop it with `stopVm`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_is_read_as_it_was_written_and_begins_unsaid() {
        let loan = LendChange { to: VmId::generate(), still: true };
        let text = serde_json::to_string(&loan).unwrap();
        assert_eq!(serde_json::from_str::<LendChange>(&text).unwrap(), loan);
        let bare = format!(r#"{{"to":"{}"}}"#, loan.to);
        assert_eq!(serde_json::from_str::<LendChange>(&bare).unwrap(), LendChange { still: false, ..loan });
    }
}
