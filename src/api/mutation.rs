//! Requests, by what they are about.

mod clone;
mod device;
mod guest;
mod identity;
mod media;
mod people;
mod setting;
mod size;
mod snapshot;

use async_graphql::{Context, MergedObject, Object};
use uuid::Uuid;

use super::{
    auth::Call,
    command,
    error::ApiError,
    gates::Gates,
    types::{CommandInput, CommandLog, CreateVmInput, VmCommandResult, VmObject, VmPayload},
};
use crate::{
    lifecycle::LifecycleError,
    store::VmView,
    vm::{CommandId, Operation, VmChange, VmId, VmRecord},
};

/// What changes something. One that takes time answers when the request is stored.
#[derive(MergedObject, Default)]
#[graphql(name = "Mutation")]
pub(super) struct MutationRoot(
    VmMutations,
    guest::GuestMutations,
    setting::SettingMutations,
    size::SizeMutations,
    device::DeviceMutations,
    snapshot::SnapshotMutations,
    identity::IdentityMutations,
    media::MediaMutations,
    clone::CloneMutations,
    people::PeopleMutations,
);

/// Making, powering, deleting, commanding.
#[derive(Default)]
pub(super) struct VmMutations;

#[Object]
impl VmMutations {
    /// Makes a VM. Answers when the request is stored; follow `operation`.
    async fn create_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is asked for.")] input: CreateVmInput,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.create(call.actor, input.into()).await).await
    }

    /// Powers a VM on; tries again what failed while it was made. One that was saved goes on from
    /// where it was.
    async fn start_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(default = false, desc = "Drop what was saved of its memory, and boot it anew.")]
        discard_saved: bool,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.start(call.actor, VmId(id), discard_saved).await).await
    }

    /// Powers a VM off: politely, and after a grace by force; with `force` at once. One that is paused
    /// goes on first, because a guest that is halted hears nothing. What hangs or takes long, such as a
    /// `saveVm` of much memory, is ended by `force` and by `deleteVm`.
    async fn stop_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(default = false, desc = "Pull the plug at once.")] force: bool,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.stop(call.actor, VmId(id), force).await).await
    }

    /// Halts a VM's processors; its memory stays where it is. Refused with `WRONG_STATE` where nothing
    /// runs.
    async fn suspend_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.suspend(call.actor, VmId(id)).await).await
    }

    /// Goes on with a VM that is paused, whoever or whatever paused it. Refused with `WRONG_STATE`
    /// where it is off.
    async fn resume_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.resume(call.actor, VmId(id)).await).await
    }

    /// Writes a VM's memory to the host's disk and powers it off; `startVm` goes on from there. Refused
    /// with `WRONG_STATE` where nothing runs. While it takes longer than a call to libvirt may, the VM's
    /// phase is `UNKNOWN`, because it cannot be asked beside that; the operation goes on.
    async fn save_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.save(call.actor, VmId(id)).await).await
    }

    /// Deletes a VM and everything that was made for it.
    async fn delete_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        let accepted = call.api.lifecycle.delete(call.actor, VmId(id)).await;
        Gates::of(ctx)?.access.forget(&VmId(id));
        payload(&call, accepted).await
    }

    /// Has the controller look at a VM afresh, and try again at once what waits because it failed
    /// (`conditions` tells). Gives the VM as it was before.
    async fn resync(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<VmObject, ApiError> {
        let call = Call::of(ctx)?;
        let view = call.visible(VmId(id)).await?;
        call.api.lifecycle.resync(call.actor, VmId(id)).await?;
        Ok(VmObject::one(view))
    }

    /// Runs a command in a VM and waits for its outcome. A command that was accepted is in the
    /// log, whatever became of it; `status` tells. `commandId` is the client's choice, so that the
    /// command can be cancelled while it waits.
    async fn execute_vm_command(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(desc = "What to run.")] command: CommandInput,
        #[graphql(default = 30, desc = "How long it may take, seconds.")] timeout_seconds: i32,
        #[graphql(desc = "An id of your choice; one is made when absent.")] command_id: Option<Uuid>,
    ) -> Result<CommandLog, ApiError> {
        command::one(ctx, VmId(vm_id), command, timeout_seconds, command_id).await
    }

    /// Runs a command in many VMs, in so many at the same time, and waits for all of them; a result
    /// for each, in the order asked. `timeoutSeconds` counts for each from when its turn comes.
    #[graphql(complexity = "command::many_complexity(vm_ids.len(), child_complexity)")]
    async fn execute_vm_commands(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VMs, each once.")] vm_ids: Vec<Uuid>,
        #[graphql(desc = "What to run.")] command: CommandInput,
        #[graphql(default = 30, desc = "How long it may take, seconds.")] timeout_seconds: i32,
        #[graphql(default = 16, desc = "In how many VMs at the same time: 1 to 64.")] parallelism: i32,
    ) -> Result<Vec<VmCommandResult>, ApiError> {
        command::many(ctx, vm_ids, command, timeout_seconds, parallelism).await
    }

    /// Cancels a command. One that was not sent yet is never sent; one that was may still run, and
    /// its answer is noted as late. One that has ended stays as it is. Gives its entry.
    async fn cancel_vm_command(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(desc = "The command's id.")] command_id: Uuid,
    ) -> Result<CommandLog, ApiError> {
        command::cancel(ctx, VmId(vm_id), CommandId(command_id)).await
    }
}

/// Asks for a change.
async fn change(ctx: &Context<'_>, vm: Uuid, change: VmChange) -> Result<VmPayload, ApiError> {
    let call = Call::of(ctx)?;
    payload(&call, call.api.lifecycle.change(call.actor, VmId(vm), change).await).await
}

/// The VM with what is told about it now.
async fn payload(
    call: &Call<'_>,
    accepted: Result<(VmRecord, Operation), LifecycleError>,
) -> Result<VmPayload, ApiError> {
    let (record, operation) = accepted?;
    let now = call.api.store.vm(record.id).await?;
    let (status, install_report) = now.map_or((None, None), |now| (now.status, now.install_report));
    Ok(VmPayload::new(VmView { record, status, install_report }, operation))
}
