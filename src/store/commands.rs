//! The command log.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Page, PageOf, Store, StoreError};
use crate::vm::{CommandId, UserId, VmId};

/// How a logged command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandStatus {
    /// Accepted; no outcome yet.
    Pending,
    /// The agent answered.
    Answered,
    /// No answer in time.
    TimedOut,
    /// The link closed or the VM went away first.
    Disconnected,
    /// The controller died first; it may or may not have run.
    Lost,
}

/// A command to be logged, before anything is sent.
#[derive(Debug, Clone)]
pub struct NewCommand {
    /// Also its id on the wire.
    pub id: CommandId,
    /// The VM.
    pub vm: VmId,
    /// `safe` or `unsafe`.
    pub kind: &'static str,
    /// The command as it may be kept: without secrets.
    pub command: Value,
    /// Who asked.
    pub requested_by: UserId,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// A logged command.
#[derive(Debug, Clone)]
pub struct CommandRecord {
    /// The row (equals the command's id).
    pub id: CommandId,
    /// The VM. It may be gone.
    pub vm: VmId,
    /// `safe` or `unsafe`.
    pub kind: String,
    /// The command, without secrets.
    pub command: Value,
    /// The answer (an object), or null.
    pub response: Option<Value>,
    /// How it stands.
    pub status: CommandStatus,
    /// Null while pending.
    pub success: Option<bool>,
    /// Milliseconds from acceptance to outcome; null while pending.
    pub execution_ms: Option<i64>,
    /// Who asked.
    pub requested_by: UserId,
    /// When.
    pub created_at: DateTime<Utc>,
}

impl Store {
    /// Logs a command as pending, and writes its audit row, in one transaction.
    pub async fn insert_command(&self, _command: &NewCommand) -> Result<(), StoreError> {
        todo!()
    }

    /// Notes the outcome of a pending command; one that has an outcome keeps it.
    pub async fn finish_command(
        &self,
        _id: CommandId,
        _status: CommandStatus,
        _success: bool,
        _response: Option<&Value>,
        _execution_ms: i64,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// One command.
    pub async fn command(&self, _id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        todo!()
    }

    /// The commands of a VM, newest first.
    pub async fn command_log(&self, _vm: VmId, _page: Page) -> Result<PageOf<CommandRecord>, StoreError> {
        todo!()
    }

    /// Marks what a dead controller left pending as lost; gives how many.
    pub async fn lose_pending_commands(&self, _now: DateTime<Utc>) -> Result<u64, StoreError> {
        todo!()
    }
}
