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
    async fn reset_vm(&self, ctx: &Context<'_>, id: Uuid) -> Result<VmPayload, ApiError> {
        change(ctx, id, VmChange::Guest(GuestChange::Reset)).await
    }
}
