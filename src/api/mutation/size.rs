//! Processors, memory, the size of a disk.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::payload;
use crate::{
    api::{auth::Call, error::ApiError, scalars::BigInt, types::VmPayload},
    vm::VmId,
};

#[derive(Default)]
pub(in crate::api) struct SizeMutations;

#[Object]
impl SizeMutations {
    /// Changes a VM's processors, memory or both. It is configured at once; `operation.effect`
    /// tells whether the running guest has it already, and the VM's condition `RESTART_REQUIRED`
    /// what waits for its next start.
    async fn resize_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "Virtual processors; as before when absent.")] vcpus: Option<i32>,
        #[graphql(desc = "MiB; as before when absent.")] memory_mib: Option<i32>,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let (vcpus, memory) = (vcpus.map(Into::into), memory_mib.map(Into::into));
        payload(&call, call.api.lifecycle.resize(call.actor, VmId(id), vcpus, memory).await).await
    }

    /// Makes a disk larger, running or not. The guest's partitions and file systems are the
    /// guest's to grow.
    async fn grow_vm_disk(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(default = "vda", desc = "Which disk.")] target: String,
        #[graphql(desc = "Its new size; rounded up to whole MiB. A disk never shrinks.")] bytes: BigInt,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.grow_disk(call.actor, VmId(id), &target, bytes.0).await).await
    }
}
