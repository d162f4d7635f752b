//! What is done to a running guest.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::change;
use crate::{
    api::{error::ApiError, types::VmPayload},
    vm::{GuestChange, VmChange},
};

#[derive(Default)]
pub(in crate::api) struct GuestMutations;

#[Object]
impl GuestMutations {
    /// Presses the reset button of a running VM: the guest is not asked, and what it had not
    /// written to its disks is lost.
    async fn reset_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<VmPayload, ApiError> {
        change(ctx, id, VmChange::Guest(GuestChange::Reset)).await
    }

    /// Has a running VM boot anew: asks its guest, and resets it when it does not follow within a
    /// grace.
    async fn reboot_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(default = false, desc = "Reset it at once, without asking its guest.")] force: bool,
    ) -> Result<VmPayload, ApiError> {
        change(ctx, id, VmChange::Guest(GuestChange::Reboot { force })).await
    }
}
