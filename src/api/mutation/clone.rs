//! Copies of VMs.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::payload;
use crate::{
    api::{
        auth::Call,
        error::ApiError,
        types::{CloneVmInput, VmPayload},
    },
    vm::VmId,
};

#[derive(Default)]
pub(in crate::api) struct CloneMutations;

#[Object]
impl CloneMutations {
    /// Makes a full copy of a VM that is off: yours, with another name, UUID and hardware addresses, and
    /// with disks that share nothing with those they are copied from. Gives the new VM; follow
    /// `operation`, which succeeds when the copy is there, off unless `start` asks for it. The copied VM
    /// stays off until its disks are copied: other changes of it are refused with `VM_BUSY`, and power
    /// waits. Its snapshots and the media in its drives are not copied.
    async fn clone_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM that is copied.")] id: Uuid,
        #[graphql(desc = "What is asked for.")] input: CloneVmInput,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.clone_vm(call.actor, VmId(id), input.into()).await).await
    }
}
