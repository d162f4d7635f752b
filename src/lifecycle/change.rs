//! Requests for changes beyond power and end.

use chrono::Utc;

use super::{Lifecycle, LifecycleError, changed};
use crate::{
    access::{Action, Actor, authorize},
    vm::{Operation, OperationId, VmChange, VmId, VmRecord, truncate_to_micros},
};

impl Lifecycle {
    /// Asks for a change, which is refused where the VM's state forbids it.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn change(
        &self,
        actor: &Actor,
        vm: VmId,
        change: VmChange,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        let found = self.store.vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = found.as_ref().map(|view| view.record.owner);
        authorize(actor, Action::ControlVm { owner }).map_err(|denied| LifecycleError::denied(denied, vm))?;
        let view = found.ok_or(LifecycleError::NotFound(vm))?;
        if view.record.intent.deleting {
            return Err(LifecycleError::Deleting(vm));
        }
        change.check(&view.record, view.status.as_ref())?;
        let now = truncate_to_micros(Utc::now());
        let asked = self.store.request_change(vm, &change, OperationId::generate(), actor.user, now).await;
        let accepted = asked.map_err(|error| changed(error, vm))?;
        self.waker.wake(vm);
        Ok(accepted)
    }
}
