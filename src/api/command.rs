//! Commands for guests, as the API takes them: each VM authorised on its own, refusals told with
//! what to do, and the request's deadline moved as far as the commands may take.

use std::{collections::HashMap, time::Duration};

use agent_protocol::tree_bytes;
use async_graphql::Context;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    audited::Refused,
    auth::{Call, Token},
    deadline::Deadline,
    error::ApiError,
    gates::Gates,
    types::{CommandInput, CommandLog, VmCommandResult},
};
use crate::{
    access::{Actor, Target, authorize_command},
    commands::CommandError,
    store::{CommandRecord, StoreError, VmAccess},
    vm::{AgentConnectivity, CommandId, FrameText, GuestCommand, UserId, VmId, VmPhase},
};

/// What an outcome takes from the guest to the caller, beyond the command's own timeout: 5 s for
/// the agent's word on a command that it had to end, and what it takes to note it.
const ANSWER_MARGIN: Duration = Duration::from_secs(20);

/// How long the database is waited for to say whose a VM is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Commands of one request at work at the same time, at most.
const MAX_PARALLELISM: i32 = 64;

/// What the answers to one request may take together; of what is more, only the log has it.
const MAX_RESPONSES: usize = 16 << 20;

/// What a VM did when its right was looked up: a moment ago, or for the last of many a while.
type VmState = (VmPhase, AgentConnectivity);

/// What they may take together once they are read.
const MAX_RESPONSES_TREE: usize = 32 << 20;

/// How long one look at who asks and whose the VMs are holds. One request may send for hours.
const CHECK_HOLDS: Duration = Duration::from_secs(2);

/// How long one request may take for all its VMs, one after the other.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What running a command in many VMs costs: a share of each result. A thousand VMs with every
/// field fit into one request.
pub(super) fn many_complexity(vms: usize, child: usize) -> usize {
    (vms / 16).saturating_mul(child).saturating_add(child).saturating_add(10)
}

pub(super) async fn one(
    ctx: &Context<'_>,
    vm: VmId,
    command: CommandInput,
    timeout_seconds: i32,
    id: Option<Uuid>,
) -> Result<CommandLog, ApiError> {
    let call = Call::of(ctx)?;
    // A host that is full refuses before anything is looked up.
    call.api.commands.has_room()?;
    let access = recent_access(ctx, &call, vm).await?;
    let state = may_send(&call, vm, access, command.is_unsafe())?;
    let command = command.into_command()?;
    let timeout = seconds(timeout_seconds)?;
    extend(ctx, timeout + ANSWER_MARGIN);
    Ok(run(&call, vm, state, chosen(id)?, command, timeout).await?.into())
}

pub(super) async fn many(
    ctx: &Context<'_>,
    vms: Vec<Uuid>,
    command: CommandInput,
    timeout_seconds: i32,
    parallelism: i32,
) -> Result<Vec<VmCommandResult>, ApiError> {
    let call = Call::of(ctx)?;
    let max = usize::try_from(call.api.commands.config().max_vms_at_once).unwrap_or(usize::MAX);
    let vms = asked(vms, max)?;
    let parallelism = usize::try_from(parallelism)
        .ok()
        .filter(|n| (1..=usize::try_from(MAX_PARALLELISM).unwrap_or(1)).contains(n))
        .ok_or_else(|| {
            ApiError::invalid("parallelism", format!("must be between 1 and {MAX_PARALLELISM}"))
        })?;
    let is_unsafe = command.is_unsafe();
    let command = command.into_command()?;
    let timeout = seconds(timeout_seconds)?;
    // What is wrong for each of them is told once.
    call.api.commands.check(CommandId::generate(), &command, timeout)?;
    let access = access(&call, &vms).await?;
    let count = vms.len();
    let rounds = u32::try_from(count.div_ceil(parallelism)).unwrap_or(u32::MAX);
    let longest = longest(timeout, rounds)?;
    let checked = Instant::now();
    extend(ctx, longest);

    let (call, access, command) = (&call, &access, &command);
    let runs = vms.into_iter().enumerate().map(|(index, vm)| async move {
        let ran = async {
            let now =
                if checked.elapsed() > CHECK_HOLDS { Some(look_again(ctx, call, vm).await?) } else { None };
            let (actor, access) = match &now {
                Some((actor, access)) => (actor, *access),
                None => (call.actor, access.get(&vm).copied()),
            };
            let call = &Call { api: call.api, actor };
            let state = may_send(call, vm, access, is_unsafe)?;
            run(call, vm, state, CommandId::generate(), command.clone(), timeout).await
        };
        (index, vm, ran.await)
    });
    let mut results = Vec::with_capacity(count);
    let mut runs = stream::iter(runs).buffer_unordered(parallelism);
    let mut taken = Taken::default();
    let mut refused = Refused::of(ctx, "executeVmCommands");
    while let Some((index, vm, mut ran)) = runs.next().await {
        match &mut ran {
            Ok(record) => taken.bound(record),
            Err(error) => refused.add(vm, error.code()),
        }
        results.push((index, VmCommandResult::new(vm, ran)));
    }
    refused.write().await;
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

pub(super) async fn cancel(ctx: &Context<'_>, vm: VmId, id: CommandId) -> Result<CommandLog, ApiError> {
    let call = Call::of(ctx)?;
    let owner = match access(&call, &[vm]).await?.remove(&vm) {
        Some(access) => Some(access.owner),
        // Its commands have ended, and the log outlives it.
        None => call.api.store.former_owner(vm).await?,
    };
    may(&call, vm, owner, false)?;
    let kind = call.api.commands.kind(vm, id).await?;
    may(&call, vm, owner, kind != "safe")?;
    Ok(call.api.commands.cancel(call.actor, vm, id).await?.into())
}

/// No more than may be asked for at once, and each once.
fn asked(vms: Vec<Uuid>, max: usize) -> Result<Vec<VmId>, ApiError> {
    if vms.is_empty() || vms.len() > max {
        return Err(ApiError::invalid("vmIds", format!("must name 1 to {max} VMs")));
    }
    let mut sorted = vms.clone();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ApiError::invalid("vmIds", format!("names {} twice", twice[0])));
    }
    Ok(vms.into_iter().map(VmId).collect())
}

/// Whose these VMs are, soon or not at all.
async fn access(call: &Call<'_>, vms: &[VmId]) -> Result<HashMap<VmId, VmAccess>, ApiError> {
    let found = timeout(PATIENCE, call.api.store.vm_access(vms)).await;
    let found = found.unwrap_or(Err(StoreError::NoAnswer { limit: PATIENCE }))?;
    Ok(found.into_iter().map(|access| (access.vm, access)).collect())
}

/// Whose this VM is, as of at most a second ago. Where its agent cannot be talked to, nothing is
/// sent and what is told is why: that is looked up anew.
async fn recent_access(ctx: &Context<'_>, call: &Call<'_>, vm: VmId) -> Result<Option<VmAccess>, ApiError> {
    let (recent, now) = (&Gates::of(ctx)?.access, std::time::Instant::now());
    if call.api.commands.reaches(vm)
        && let Some(access) = recent.get(&vm, now)
    {
        return Ok(Some(access));
    }
    let found = access(call, &[vm]).await?.remove(&vm);
    if let Some(access) = found {
        recent.put(vm, access, now);
    }
    Ok(found)
}

/// Who asks and whose this VM is, now.
async fn look_again(
    ctx: &Context<'_>,
    call: &Call<'_>,
    vm: VmId,
) -> Result<(Actor, Option<VmAccess>), ApiError> {
    let token = ctx.data_opt::<Token>().ok_or_else(ApiError::unauthenticated)?;
    let actor = token.actor(call.api).await?;
    Ok((actor, access(call, &[vm]).await?.remove(&vm)))
}

fn may(call: &Call<'_>, vm: VmId, owner: Option<UserId>, is_unsafe: bool) -> Result<(), ApiError> {
    authorize_command(call.actor, Target { vm, owner }, is_unsafe)
        .map_err(|denied| ApiError::denied(denied, vm))
}

/// Gives what the VM was doing, for whoever has to say why it could not be reached.
fn may_send(
    call: &Call<'_>,
    vm: VmId,
    access: Option<VmAccess>,
    is_unsafe: bool,
) -> Result<Option<VmState>, ApiError> {
    may(call, vm, access.map(|access| access.owner), is_unsafe)?;
    if access.is_some_and(|access| access.deleting) {
        return Err(crate::lifecycle::LifecycleError::Deleting(vm).into());
    }
    Ok(access.and_then(|access| access.state))
}

async fn run(
    call: &Call<'_>,
    vm: VmId,
    state: Option<VmState>,
    id: CommandId,
    command: GuestCommand,
    timeout: Duration,
) -> Result<CommandRecord, ApiError> {
    match call.api.commands.execute_as(id, call.actor, vm, command, timeout).await {
        Ok(record) => Ok(record),
        Err(CommandError::NotConnected) => {
            let why = not_connected(state);
            Err(ApiError::new("AGENT_NOT_CONNECTED", format!("the VM's agent is not connected: {why}")))
        }
        Err(error) => Err(error.into()),
    }
}

fn seconds(timeout: i32) -> Result<Duration, ApiError> {
    let seconds = u64::try_from(timeout).ok().filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| ApiError::invalid("timeoutSeconds", "must be at least 1"))
}

fn chosen(id: Option<Uuid>) -> Result<CommandId, ApiError> {
    match id {
        None => Ok(CommandId::generate()),
        Some(id) if id.is_nil() => Err(ApiError::invalid("commandId", "must not be the nil UUID")),
        Some(id) => Ok(CommandId(id)),
    }
}

fn extend(ctx: &Context<'_>, by: Duration) {
    if let Some(deadline) = ctx.data_opt::<Deadline>() {
        deadline.extend_to(Instant::now() + by);
    }
}

/// What so many rounds may take, each at most as long as one command.
fn longest(timeout: Duration, rounds: u32) -> Result<Duration, ApiError> {
    if rounds > 1 && timeout.saturating_mul(rounds) > LONGEST {
        let why = format!(
            "the VMs take {rounds} rounds of that, which may be more than a day; \
             ask for less time, fewer VMs or more `parallelism`"
        );
        return Err(ApiError::invalid("timeoutSeconds", why));
    }
    Ok((timeout + ANSWER_MARGIN).saturating_mul(rounds))
}

/// What the responses so far take: as text and once they are read.
#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    tree: usize,
}

impl Taken {
    /// Leaves a response out where those before it took all the room.
    fn bound(&mut self, record: &mut CommandRecord) {
        let Some(response) = &mut record.response else { return };
        let text = response.as_str();
        let (bytes, tree) = (self.bytes + text.len(), self.tree + tree_bytes(text.as_bytes()));
        if bytes > MAX_RESPONSES || tree > MAX_RESPONSES_TREE {
            let why = "too much for one answer together with the other VMs'; `commandLog` has it";
            *response = FrameText::from(&json!({ "truncated": ["response"], "error": why }));
        } else {
            (self.bytes, self.tree) = (bytes, tree);
        }
    }
}

/// Why an agent cannot be talked to, and what to do. `None`: nothing is known of the VM yet.
fn not_connected(state: Option<VmState>) -> &'static str {
    const WAIT: &str = "the VM is not ready yet; wait for its operation to end (`operation(id)`, \
                        `operationProgress(id)`), and send the command again";
    let Some((phase, agent)) = state else { return WAIT };
    match (phase, agent) {
        (VmPhase::Provisioning | VmPhase::Installing | VmPhase::Starting, _) => WAIT,
        (VmPhase::Stopped | VmPhase::Saved | VmPhase::Crashed, _) => {
            "the VM is off; start it with `startVm`, and send the command again when `agent.connectivity` \
             is `ONLINE`"
        }
        (VmPhase::Stopping, _) => {
            "the VM is going off; start it with `startVm` when it is off, and send the command again"
        }
        (VmPhase::Paused, _) => "the VM is paused; resume it with `resumeVm`, and send the command again",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vm_is_asked_once_and_not_too_many() {
        let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
        assert_eq!(asked(vec![b, a], 2).unwrap(), [VmId(b), VmId(a)]);
        for wrong in [vec![], vec![a, a], vec![a, b, Uuid::now_v7()]] {
            assert_eq!(asked(wrong, 2).unwrap_err().code(), "INVALID_INPUT");
        }
    }

    #[test]
    fn many_rounds_are_no_more_than_a_day() {
        let hour = Duration::from_secs(3600);
        assert_eq!(longest(hour, 24).unwrap(), (hour + ANSWER_MARGIN) * 24);
        assert_eq!(longest(hour, 25).unwrap_err().code(), "INVALID_INPUT");
        assert_eq!(longest(hour, u32::MAX).unwrap_err().code(), "INVALID_INPUT");
        assert!(longest(100 * hour, 1).is_ok(), "what one command may take is another's to say");
    }

    #[test]
    fn responses_are_bounded_by_what_they_take_in_memory() {
        let record = |response: serde_json::Value| CommandRecord {
            id: CommandId::generate(),
            vm: VmId::generate(),
            kind: "safe".to_owned(),
            command: json!({}),
            response: Some(FrameText::from(&response)),
            status: crate::store::CommandStatus::Answered,
            success: Some(true),
            execution_ms: None,
            sent_at: None,
            queue_ms: None,
            run_ms: None,
            late_response: None,
            late_at: None,
            requested_by: UserId::generate(),
            created_at: chrono::Utc::now(),
        };
        let bomb = json!(vec![json!({ "a": 0 }); 9000]);
        let mut taken = Taken::default();
        let kept: Vec<_> = (0..5)
            .map(|_| {
                let mut record = record(bomb.clone());
                taken.bound(&mut record);
                record.response.unwrap().tree() == bomb
            })
            .collect();
        assert_eq!(kept, [true, true, true, false, false], "{taken:?}");
        let mut small = record(json!({ "n": 1 }));
        taken.bound(&mut small);
        assert_eq!(small.response.unwrap().tree(), json!({ "n": 1 }), "there is room for it still");
    }

    #[test]
    fn a_thousand_vms_fit_into_a_query_and_cost_more_than_one() {
        assert!(many_complexity(1000, 20) < 2000);
        assert!(many_complexity(1000, 20) > 50 * many_complexity(1, 1));
        assert!(many_complexity(10_000, 20) > 2000);
    }

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
