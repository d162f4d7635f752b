//! Requests for changes beyond power and end.

use chrono::Utc;

use super::{Lifecycle, LifecycleError, changed};
use crate::{
    access::{Action, Actor, Target, authorize},
    store::StoreError,
    vm::{
        DeviceChange, DiscSource, Operation, OperationId, SettingChange, VmChange, VmId, VmName, VmRecord,
        VmStatus, truncate_to_micros,
    },
};

/// Whether the VM takes a change as it is.
pub(super) fn takes(
    change: &VmChange,
    record: &VmRecord,
    status: Option<&VmStatus>,
) -> Result<(), LifecycleError> {
    match record.intent.deleting {
        true => Err(LifecycleError::Deleting(record.id)),
        false => Ok(change.check(record, status)?),
    }
}

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
        authorize(actor, Action::ControlVm(Target { vm, owner }))
            .map_err(|denied| LifecycleError::denied(denied, vm))?;
        let view = found.ok_or(LifecycleError::NotFound(vm))?;
        takes(&change, &view.record, view.status.as_ref())?;
        if let VmChange::Setting(SettingChange::Rename(name)) = &change {
            self.check_new_name(vm, name).await?;
        }
        let now = truncate_to_micros(Utc::now());
        let asked = self.store.request_change(vm, &change, OperationId::generate(), actor.user, now).await;
        let accepted = asked.map_err(|error| match (error, &change) {
            (StoreError::MediumGone(_), VmChange::Device(DeviceChange::InsertMedium { source, .. })) => {
                match source {
                    DiscSource::Library { medium } => LifecycleError::NoMedium(medium.to_string()),
                    DiscSource::Volume { pool, volume } => {
                        LifecycleError::MediumNotFound { pool: pool.to_string(), volume: volume.to_string() }
                    }
                }
            }
            (error, _) => changed(error, vm),
        })?;
        self.waker.wake(vm);
        Ok(accepted)
    }

    /// Whether nobody else has the name: no VM of ours, made or half made, and no domain of others.
    async fn check_new_name(&self, vm: VmId, name: &VmName) -> Result<(), LifecycleError> {
        let named = self.hypervisor.domain_named(name.as_str()).await.map_err(LifecycleError::Hypervisor)?;
        let stored = self.store.vm_named(self.host, name).await.map_err(LifecycleError::Store)?;
        if named.into_iter().chain(stored).any(|other| other != vm) {
            return Err(LifecycleError::NameTaken(name.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
