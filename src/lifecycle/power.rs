//! Requests for power.

use chrono::Utc;

use super::{Lifecycle, LifecycleError, changed};
use crate::{
    access::{Action, Actor, Target, authorize},
    vm::{DesiredPower, Operation, OperationId, VmId, VmPhase, VmRecord, WrongState, truncate_to_micros},
};

type Accepted = Result<(VmRecord, Operation), LifecycleError>;

/// What must be so for a request to make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Anything goes: what is so already is success.
    Nothing,
    /// There is something to halt, to save or to go on with.
    Guest,
}

impl Lifecycle {
    /// Asks for power. What was saved of the VM is gone on with, or dropped first (`cold`).
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn start(&self, actor: &Actor, vm: VmId, cold: bool) -> Accepted {
        let power = if cold { DesiredPower::ColdRunning } else { DesiredPower::Running };
        self.power(actor, vm, power, Needs::Nothing).await
    }

    /// Asks for no power: politely with a grace, or at once.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn stop(&self, actor: &Actor, vm: VmId, force: bool) -> Accepted {
        let power = if force { DesiredPower::ForcedOff } else { DesiredPower::Stopped };
        self.power(actor, vm, power, Needs::Nothing).await
    }

    /// Asks that the processors halt.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn suspend(&self, actor: &Actor, vm: VmId) -> Accepted {
        self.power(actor, vm, DesiredPower::Paused, Needs::Guest).await
    }

    /// Asks that a VM that was paused, by whomever, goes on.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn resume(&self, actor: &Actor, vm: VmId) -> Accepted {
        self.power(actor, vm, DesiredPower::Running, Needs::Guest).await
    }

    /// Asks that the memory is kept on disk, and the VM off.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn save(&self, actor: &Actor, vm: VmId) -> Accepted {
        self.power(actor, vm, DesiredPower::Saved, Needs::Guest).await
    }

    async fn power(&self, actor: &Actor, vm: VmId, power: DesiredPower, needs: Needs) -> Accepted {
        let found = self.store.vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = found.as_ref().map(|view| view.record.owner);
        authorize(actor, Action::ControlVm(Target { vm, owner }))
            .map_err(|denied| LifecycleError::denied(denied, vm))?;
        let view = found.ok_or(LifecycleError::NotFound(vm))?;
        if !view.record.intent.deleting && needs == Needs::Guest {
            check(view.status.map(|status| status.phase))?;
        }
        let now = truncate_to_micros(Utc::now());
        let asked = self.store.request_power(vm, power, OperationId::generate(), actor.user, now).await;
        let accepted = asked.map_err(|error| changed(error, vm))?;
        self.waker.wake(vm);
        Ok(accepted)
    }
}

/// Whether there is a guest to be halted, saved or gone on with.
fn check(phase: Option<VmPhase>) -> Result<(), WrongState> {
    let words = match phase {
        Some(VmPhase::Running | VmPhase::Installing | VmPhase::Stopping | VmPhase::Paused) => return Ok(()),
        None | Some(VmPhase::Provisioning | VmPhase::Starting) => {
            "the VM does not run yet; wait for its operation to end"
        }
        Some(VmPhase::Saved) => "the VM is saved; go on with it by `startVm`",
        Some(VmPhase::Stopped | VmPhase::Crashed | VmPhase::Failed) => {
            "the VM is off; start it with `startVm`"
        }
        Some(VmPhase::Unknown) => {
            "what the VM does is not known now, because libvirt cannot be asked; try again"
        }
        Some(VmPhase::Missing) => "the VM's domain is gone; its conditions say what to do",
        Some(VmPhase::Deleting) => "the VM is on its way out",
    };
    Err(WrongState(words.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_or_is_paused_can_be_halted_saved_or_resumed() {
        let fit = [VmPhase::Running, VmPhase::Installing, VmPhase::Stopping, VmPhase::Paused];
        for phase in VmPhase::ALL {
            assert_eq!(check(Some(phase)).is_ok(), fit.contains(&phase), "{phase}");
        }
        assert!(check(None).is_err());
    }
}
