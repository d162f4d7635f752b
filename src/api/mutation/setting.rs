//! How a VM is called and treated.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::change;
use crate::{
    api::{error::ApiError, types::VmPayload},
    vm::{SettingChange, VmChange},
};

#[derive(Default)]
pub(in crate::api) struct SettingMutations;

#[Object]
impl SettingMutations {
    /// Sets whether the host starts the VM when it boots itself.
    async fn set_vm_autostart(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
        autostart: bool,
    ) -> Result<VmPayload, ApiError> {
        change(ctx, id, VmChange::Setting(SettingChange::Autostart(autostart))).await
    }
}
