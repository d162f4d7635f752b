//! Requests.

use std::time::Duration;

use async_graphql::{Context, Object};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    auth::Call,
    deadline::Deadline,
    error::ApiError,
    types::{CommandInput, CommandLog, CreateVmInput, VmPayload},
};
use crate::{
    access::{Action, authorize},
    lifecycle::LifecycleError,
    vm::{Operation, VmId, VmRecord},
};

/// What an outcome takes from the guest to the caller, beyond the command's own timeout.
const ANSWER_MARGIN: Duration = Duration::from_secs(15);

pub(super) struct MutationRoot;

#[Object(name = "Mutation")]
impl MutationRoot {
    /// Makes a VM. Answers when the request is stored; follow `operation`.
    async fn create_vm(&self, ctx: &Context<'_>, input: CreateVmInput) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.create(call.actor, input.into()).await).await
    }

    /// Powers a VM on; tries again what failed while it was made.
    async fn start_vm(&self, ctx: &Context<'_>, id: Uuid) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.start(call.actor, VmId(id)).await).await
    }

    /// Powers a VM off: politely, and after a grace by force; with `force` at once.
    async fn stop_vm(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
        #[graphql(default = false)] force: bool,
    ) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.stop(call.actor, VmId(id), force).await).await
    }

    /// Deletes a VM and everything that was made for it.
    async fn delete_vm(&self, ctx: &Context<'_>, id: Uuid) -> Result<VmPayload, ApiError> {
        let call = Call::of(ctx)?;
        payload(&call, call.api.lifecycle.delete(call.actor, VmId(id)).await).await
    }

    /// Runs a command in a VM and waits for its outcome. A command that was accepted is in the
    /// log, whatever became of it; `status` tells.
    async fn execute_vm_command(
        &self,
        ctx: &Context<'_>,
        vm_id: Uuid,
        command: CommandInput,
        #[graphql(default = 30)] timeout_seconds: i32,
    ) -> Result<CommandLog, ApiError> {
        let call = Call::of(ctx)?;
        let vm = VmId(vm_id);
        let found = call.api.store.vm(vm).await?;
        let owner = found.as_ref().map(|view| view.record.owner);
        let action =
            if command.is_unsafe() { Action::UnsafeCommand { owner } } else { Action::SafeCommand { owner } };
        authorize(call.actor, action).map_err(|denied| ApiError::denied(denied, vm))?;
        if found.is_some_and(|view| view.record.intent.deleting) {
            return Err(LifecycleError::Deleting(vm).into());
        }
        let command = command.into_command()?;
        let timeout = u64::try_from(timeout_seconds).ok().filter(|seconds| *seconds > 0);
        let timeout = timeout.ok_or_else(|| ApiError::invalid("timeoutSeconds", "must be at least 1"))?;
        let timeout = Duration::from_secs(timeout);
        if let Some(deadline) = ctx.data_opt::<Deadline>() {
            deadline.extend_to(Instant::now() + timeout + ANSWER_MARGIN);
        }
        let record = call.api.commands.execute(call.actor, vm, command, timeout).await?;
        Ok(record.into())
    }
}

/// The VM with what is told about it now.
async fn payload(
    call: &Call<'_>,
    accepted: Result<(VmRecord, Operation), LifecycleError>,
) -> Result<VmPayload, ApiError> {
    let (record, operation) = accepted?;
    let status = call.api.store.vm(record.id).await?.and_then(|view| view.status);
    Ok(VmPayload::new(record, status, operation))
}
