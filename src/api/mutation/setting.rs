//! How a VM is called and treated.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::change;
use crate::{
    api::{
        error::ApiError,
        types::{OnCrashName, OnPowerOffName, VmPayload},
    },
    vm::{InvalidName, SettingChange, VmChange},
};

#[derive(Default)]
pub(in crate::api) struct SettingMutations;

#[Object]
impl SettingMutations {
    /// Sets whether the host starts the VM when it boots itself.
    async fn set_vm_autostart(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "Whether it does.")] autostart: bool,
    ) -> Result<VmPayload, ApiError> {
        change(ctx, id, VmChange::Setting(SettingChange::Autostart(autostart))).await
    }

    /// Gives a VM that is off another name, and its domain with it. What its guest calls itself stays.
    /// A name that a VM or a domain of the host has is refused with `NAME_TAKEN`.
    async fn rename_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "The new one, under the same rules as for `createVm`.")] name: String,
    ) -> Result<VmPayload, ApiError> {
        let name = name.parse().map_err(|error: InvalidName| ApiError::invalid("name", error.to_string()))?;
        change(ctx, id, VmChange::Setting(SettingChange::Rename(name))).await
    }

    /// Sets what is done with a VM that was asked to run and is off.
    async fn set_vm_policy(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "When it was powered off, by its guest or outside of this controller.")]
        on_power_off: OnPowerOffName,
        #[graphql(desc = "When it crashed.")] on_crash: OnCrashName,
    ) -> Result<VmPayload, ApiError> {
        let policy = SettingChange::Policy { on_power_off: on_power_off.into(), on_crash: on_crash.into() };
        change(ctx, id, VmChange::Setting(policy)).await
    }
}
