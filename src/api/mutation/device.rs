//! What is plugged into a VM.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::payload;
use crate::{
    api::{auth::Call, error::ApiError, scalars::BigInt, types::VmPayload},
    lifecycle::InsertMedium,
    vm::VmId,
};

#[derive(Default)]
pub(in crate::api) struct DeviceMutations;

#[Object]
impl DeviceMutations {
    /// Makes an empty disk and plugs it in at the next free place, which `Vm.disks` then shows.
    async fn attach_vm_disk(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "The storage pool; the VM's own when absent.")] pool: Option<String>,
        #[graphql(desc = "Its size; rounded up to whole MiB.")] bytes: BigInt,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let accepted = call.api.lifecycle.attach_disk(call.actor, VmId(id), pool.as_deref(), bytes.0).await;
        payload(&call, accepted).await
    }

    /// Unplugs a disk; never the first. A guest that does not let go of it within a minute keeps
    /// it, and the operation fails.
    async fn detach_vm_disk(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "Which disk, as `Vm.disks` shows it.")] target: String,
        #[graphql(
            default = false,
            desc = "Whether its volume is deleted at once; else it stays until the VM is deleted."
        )]
        delete_volume: bool,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let accepted = call.api.lifecycle.detach_disk(call.actor, VmId(id), &target, delete_volume).await;
        payload(&call, accepted).await
    }

    /// Puts an ISO image into a drive: a disc of the library, or a volume of a pool. Give either
    /// `medium`, or `pool` and `volume`. A disc of the library cannot be deleted while it is in a drive.
    async fn insert_vm_medium(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "A disc of the library that is ready, by its name or its id.")] medium: Option<
            String,
        >,
        #[graphql(desc = "The storage pool that holds it.")] pool: Option<String>,
        #[graphql(desc = "The volume, whose name ends in `.iso`.")] volume: Option<String>,
        #[graphql(desc = "The drive; an empty one, or a new one, when absent.")] target: Option<String>,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let asked = InsertMedium { medium, pool, volume, drive: target };
        payload(&call, call.api.lifecycle.insert_medium(call.actor, VmId(id), asked).await).await
    }

    /// Takes a medium out of its drive, which stays.
    async fn eject_vm_medium(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "The drive, as `Vm.media` shows it.")] target: String,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.eject_medium(call.actor, VmId(id), &target).await).await
    }

    /// Plugs a network card in. Give either `network` or `bridge`.
    async fn attach_vm_interface(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "A libvirt network of the host, active.")] network: Option<String>,
        #[graphql(desc = "A bridge of the host; for admins.")] bridge: Option<String>,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let (network, bridge) = (network.as_deref(), bridge.as_deref());
        let accepted = call.api.lifecycle.attach_interface(call.actor, VmId(id), network, bridge).await;
        payload(&call, accepted).await
    }

    /// Unplugs a network card. A guest that does not let go of it within a minute keeps it, and the
    /// operation fails.
    async fn detach_vm_interface(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "The card's hardware address, as `Vm.interfaces` shows it.")] mac: String,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.detach_interface(call.actor, VmId(id), &mac).await).await
    }
}
