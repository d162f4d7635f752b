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
    commands::CommandError,
    lifecycle::LifecycleError,
    vm::{AgentConnectivity, Operation, VmId, VmPhase, VmRecord},
};

/// What an outcome takes from the guest to the caller, beyond the command's own timeout: 5 s for
/// the agent's word on a command that it had to end, and what it takes to note it.
const ANSWER_MARGIN: Duration = Duration::from_secs(20);

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
        if found.as_ref().is_some_and(|view| view.record.intent.deleting) {
            return Err(LifecycleError::Deleting(vm).into());
        }
        let command = command.into_command()?;
        let timeout = u64::try_from(timeout_seconds).ok().filter(|seconds| *seconds > 0);
        let timeout = timeout.ok_or_else(|| ApiError::invalid("timeoutSeconds", "must be at least 1"))?;
        let timeout = Duration::from_secs(timeout);
        if let Some(deadline) = ctx.data_opt::<Deadline>() {
            deadline.extend_to(Instant::now() + timeout + ANSWER_MARGIN);
        }
        match call.api.commands.execute(call.actor, vm, command, timeout).await {
            Ok(record) => Ok(record.into()),
            Err(CommandError::NotConnected) => {
                let status = found.and_then(|view| view.status);
                let why = not_connected(status.as_ref().map(|status| (status.phase, status.agent)));
                Err(ApiError::new("AGENT_NOT_CONNECTED", format!("the VM's agent is not connected: {why}")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Why an agent cannot be talked to, and what to do. `None`: nothing is known of the VM yet.
fn not_connected(status: Option<(VmPhase, AgentConnectivity)>) -> &'static str {
    const WAIT: &str = "the VM is not ready yet; wait for its operation to end (`operation(id)`, \
                        `operationProgress(id)`), and send the command again";
    let Some((phase, agent)) = status else { return WAIT };
    match (phase, agent) {
        (VmPhase::Provisioning | VmPhase::Installing | VmPhase::Starting, _) => WAIT,
        (VmPhase::Stopped | VmPhase::Crashed, _) => {
            "the VM is off; start it with `startVm`, and send the command again when `agent.connectivity` \
             is `ONLINE`"
        }
        (VmPhase::Stopping, _) => {
            "the VM is going off; start it with `startVm` when it is off, and send the command again"
        }
        (VmPhase::Paused, _) => "the VM is paused; resume it with libvirt, and send the command again",
        (VmPhase::Failed, _) => {
            "a step for the VM failed; its conditions say which, and `startVm` tries it again"
        }
        (VmPhase::Missing, _) => "the VM's domain is gone; its conditions say what to do",
        (VmPhase::Deleting, _) => "the VM is on its way out",
        (VmPhase::Unknown, _) => {
            "what the VM does is not known now; send the command again when `phase` says, and see its \
             conditions where it stays so"
        }
        (VmPhase::Running, AgentConnectivity::NeverSeen) => {
            "it was never heard; wait for the VM's operation to end, and where none is under way look in \
             the guest whether infiniservice is installed and runs"
        }
        (VmPhase::Running, AgentConnectivity::Offline) => {
            "the VM runs and its agent is silent; look at infiniservice in the guest \
             (`systemctl status infiniservice`), and see the VM's conditions"
        }
        (VmPhase::Running, AgentConnectivity::Unsupported) => {
            "the VM has no channel for an agent; its condition `ChannelPresent` says what to do"
        }
        (VmPhase::Running, AgentConnectivity::Unknown | AgentConnectivity::Online) => {
            "the link to it is just being opened; send the command again in some seconds"
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_not_connected_comes_with_what_to_do() {
        use AgentConnectivity::{NeverSeen, Offline, Unknown, Unsupported};
        for (status, words) in [
            (None, "wait for its operation"),
            (Some((VmPhase::Installing, NeverSeen)), "wait for its operation"),
            (Some((VmPhase::Stopped, Offline)), "`startVm`"),
            (Some((VmPhase::Crashed, NeverSeen)), "`startVm`"),
            (Some((VmPhase::Running, NeverSeen)), "wait for the VM's operation"),
            (Some((VmPhase::Running, Offline)), "infiniservice in the guest"),
            (Some((VmPhase::Running, Unsupported)), "ChannelPresent"),
            (Some((VmPhase::Running, Unknown)), "again in some seconds"),
            (Some((VmPhase::Unknown, Unknown)), "conditions"),
        ] {
            let why = not_connected(status);
            assert!(why.contains(words), "{status:?}: {why}");
        }
    }
}
