//! Logged commands and reported errors.

use async_graphql::{ComplexObject, Context, Enum, Json, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::result::SafeActionResult;
use crate::{
    api::{error::ApiError, room::Room, scalars::BigInt},
    store::{CommandRecord, CommandStatus, VmErrorRecord},
    vm::{FrameText, VmId},
};

/// How a logged command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "CommandStatus", name = "CommandStatus")]
pub(crate) enum CommandStatusName {
    /// Accepted; no outcome yet.
    Pending,
    /// The agent answered.
    Answered,
    /// Its time was over. `response.error` says which: the agent ended it (the response has what it
    /// wrote until then), it was never sent, or no answer came.
    TimedOut,
    /// The link closed or the VM went away first.
    Disconnected,
    /// The controller died first; it may or may not have run.
    Lost,
    /// Somebody cancelled it: it was not sent, or may still run; `response.error` says which.
    Cancelled,
}

/// A command and what became of it.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct CommandLog {
    /// The row.
    id: Uuid,
    /// The command's id on the wire.
    command_id: Uuid,
    /// The VM. It may be gone.
    vm_id: Uuid,
    /// `safe` or `unsafe`.
    #[graphql(name = "type")]
    kind: String,
    /// The command, without secrets.
    command: Json<Value>,
    #[graphql(skip)]
    response: Option<FrameText>,
    /// How it stands.
    status: CommandStatusName,
    /// Null while pending.
    success: Option<bool>,
    /// Milliseconds from submission to outcome; null while pending, and where it was lost.
    execution_ms: Option<BigInt>,
    /// Milliseconds from submission to sent; null where it never was.
    queue_ms: Option<BigInt>,
    /// Milliseconds from sent to outcome; null where it never was sent.
    run_ms: Option<BigInt>,
    /// When it was sent; null while pending, where it never was, and where it was lost.
    sent_at: Option<DateTime<Utc>>,
    #[graphql(skip)]
    late_response: Option<FrameText>,
    /// When that came.
    late_at: Option<DateTime<Utc>>,
    /// Who asked.
    requested_by: Uuid,
    /// When.
    created_at: DateTime<Utc>,
}

impl From<CommandRecord> for CommandLog {
    fn from(record: CommandRecord) -> Self {
        Self {
            id: record.id.uuid(),
            command_id: record.id.uuid(),
            vm_id: record.vm.uuid(),
            kind: record.kind,
            command: Json(record.command),
            response: record.response,
            status: record.status.into(),
            success: record.success,
            execution_ms: record.execution_ms.map(BigInt),
            queue_ms: record.queue_ms.map(BigInt),
            run_ms: record.run_ms.map(BigInt),
            sent_at: record.sent_at,
            late_response: record.late_response,
            late_at: record.late_at,
            requested_by: record.requested_by.uuid(),
            created_at: record.created_at,
        }
    }
}

#[ComplexObject]
impl CommandLog {
    /// `exit_code`, `stdout`, `stderr`, `data`, `execution_ms`, `truncated` (which of them are not
    /// whole; a `data` of more than 1 MiB, or 12 MiB in memory, is left out) and `error`; only
    /// `error` without an answer. Null while pending, and where it was lost. Where the responses
    /// before it took all the room of one answer, `truncated` is `["response"]`.
    async fn response(&self, ctx: &Context<'_>) -> Option<Json<Value>> {
        self.response.as_ref().map(|text| read(ctx, text))
    }

    /// The answer that came after the command had ended otherwise, like `response`.
    async fn late_response(&self, ctx: &Context<'_>) -> Option<Json<Value>> {
        self.late_response.as_ref().map(|text| read(ctx, text))
    }

    /// What a safe action found, typed. Null for unsafe commands, for failures, and where the agent
    /// gives a shape that is not known; `response.data` has what it gave. Null, too, where the
    /// responses before it took all the room of one answer.
    async fn result(&self, ctx: &Context<'_>) -> Option<SafeActionResult> {
        let action = self.command.0.get("action")?.as_str()?;
        let text = self.response.as_ref().filter(|_| self.success == Some(true))?;
        let response = Room::take(ctx, text).then(|| text.tree())?;
        SafeActionResult::of(action, response.get("data")?)
    }
}

/// What a guest answered, read only for who asks and while there is room.
fn read(ctx: &Context<'_>, text: &FrameText) -> Json<Value> {
    if Room::take(ctx, text) {
        return Json(text.tree());
    }
    let why = "too much for one answer together with the others; ask for fewer at once";
    Json(json!({ "truncated": ["response"], "error": why }))
}

impl CommandLog {
    pub(crate) fn cursor(&self) -> Uuid {
        self.id
    }
}

/// What became of a command in one of many VMs: its entry, or why it was not accepted.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmCommandResult {
    /// The VM.
    vm_id: Uuid,
    /// The entry of a command that was accepted, whatever became of it.
    command: Option<CommandLog>,
    /// Why it was not accepted.
    error: Option<VmCommandError>,
}

/// Why a command was not accepted for one VM.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmCommandError {
    /// Stable, as in `errors[].extensions.code`.
    code: &'static str,
    /// For people.
    message: String,
}

impl VmCommandResult {
    pub(crate) fn new(vm: VmId, ran: Result<CommandRecord, ApiError>) -> Self {
        let (command, error) = match ran {
            Ok(record) => (Some(record.into()), None),
            Err(refused) => {
                (None, Some(VmCommandError { code: refused.code(), message: refused.into_message() }))
            }
        };
        Self { vm_id: vm.uuid(), command, error }
    }
}

/// An error that a guest reported.
#[derive(Debug, SimpleObject)]
#[graphql(name = "VmError")]
pub(crate) struct VmErrorEntry {
    /// The row.
    id: Uuid,
    /// The VM. It may be gone.
    vm_id: Uuid,
    /// The guest's words.
    error: String,
    /// What else it said.
    details: Json<Value>,
    /// The guest's clock.
    timestamp: DateTime<Utc>,
    /// Ours.
    created_at: DateTime<Utc>,
}

impl From<VmErrorRecord> for VmErrorEntry {
    fn from(record: VmErrorRecord) -> Self {
        Self {
            id: record.id,
            vm_id: record.vm.uuid(),
            error: record.error,
            details: Json(record.details),
            timestamp: record.timestamp,
            created_at: record.created_at,
        }
    }
}

impl VmErrorEntry {
    pub(crate) fn cursor(&self) -> Uuid {
        self.id
    }
}
