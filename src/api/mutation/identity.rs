//! Whose a domain is.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::payload;
use crate::{
    api::{auth::Call, error::ApiError, gates::Gates, types::VmPayload},
    vm::{UserId, VmId},
};

#[derive(Default)]
pub(in crate::api) struct IdentityMutations;

#[Object]
impl IdentityMutations {
    /// Takes a domain that others made under management, as it is: it is given the agent's channel,
    /// at once where it runs and the hypervisor can, else with its next start (`effect` of the
    /// operation tells), and becomes a VM. Its disks stay others'. For admins.
    async fn adopt_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The domain's UUID, which becomes the VM's id.")] uuid: Uuid,
        #[graphql(desc = "Whose VM it becomes; yours when absent.")] owner_id: Option<Uuid>,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let accepted = call.api.lifecycle.adopt(call.actor, VmId(uuid), owner_id.map(UserId)).await;
        Gates::of(ctx)?.access.forget(&VmId(uuid));
        payload(&call, accepted).await
    }

    /// Gives an adopted domain back: takes from it what `adoptDomain` gave it, and forgets the VM.
    /// The domain goes on as it does. For admins.
    async fn release_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] id: Uuid,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let accepted = call.api.lifecycle.release(call.actor, VmId(id)).await;
        Gates::of(ctx)?.access.forget(&VmId(id));
        payload(&call, accepted).await
    }
}
