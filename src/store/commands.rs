//! The command log.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Page, PageOf, Store, StoreError,
    audit::{self, AuditRow},
    column::{JsonText, Word, storable, words},
    db::{on_pool, on_tx},
    failed,
};
use crate::vm::{CommandId, HostId, UserId, VmId};

/// How a logged command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandStatus {
    /// Accepted; no outcome yet.
    Pending,
    /// The agent answered.
    Answered,
    /// Its time was over: the agent ended it, had no place for it, or did not answer in time.
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
    /// The agent's verdict; false where there was none. Null while pending.
    pub success: Option<bool>,
    /// Milliseconds from acceptance to outcome; null while pending, and where it was lost.
    pub execution_ms: Option<i64>,
    /// Who asked.
    pub requested_by: UserId,
    /// When.
    pub created_at: DateTime<Utc>,
}

words!(CommandStatus {
    Pending => "pending",
    Answered => "answered",
    TimedOut => "timed_out",
    Disconnected => "disconnected",
    Lost => "lost",
});

#[derive(Debug, sqlx::FromRow)]
struct CommandRow {
    id: Uuid,
    vm_id: Uuid,
    kind: String,
    command: JsonText,
    response: Option<JsonText>,
    status: String,
    success: Option<bool>,
    execution_ms: Option<i64>,
    requested_by: Uuid,
    created_at: DateTime<Utc>,
}

impl CommandRow {
    fn read(self, operation: &'static str) -> Result<CommandRecord, StoreError> {
        Ok(CommandRecord {
            command: self.command.read(operation, self.id)?,
            response: self.response.map(|response| response.read(operation, self.id)).transpose()?,
            id: self.id.into(),
            vm: self.vm_id.into(),
            kind: self.kind,
            status: CommandStatus::read(operation, &self.status)?,
            success: self.success,
            execution_ms: self.execution_ms,
            requested_by: self.requested_by.into(),
            created_at: self.created_at,
        })
    }
}

impl Store {
    /// Logs a command as pending, and writes its audit row, in one transaction.
    ///
    /// # Errors
    /// `Database`; nothing was logged then.
    pub async fn insert_command(&self, command: &NewCommand) -> Result<(), StoreError> {
        const OPERATION: &str = "logging a command";
        let created_at = storable(command.created_at);
        let text = JsonText::write(OPERATION, &command.command)?;
        let mut tx = self.begin(OPERATION).await?;
        on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO command_log (id, vm_id, kind, command, status, requested_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(command.id.uuid())
        .bind(command.vm.uuid())
        .bind(command.kind)
        .bind(&text)
        .bind(CommandStatus::Pending.word())
        .bind(command.requested_by.uuid())
        .bind(created_at)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))?;
        audit::record(
            &mut tx,
            &AuditRow {
                at: created_at,
                user: command.requested_by,
                action: "vm.command",
                vm: Some(command.vm),
                details: json!({ "command": command.id, "kind": command.kind }),
            },
        )
        .await?;
        tx.commit(OPERATION).await
    }

    /// Notes the outcome of a pending command; one that has an outcome keeps it.
    ///
    /// # Errors
    /// `NotFound`; `Database` (also for the status `Pending`, which is no outcome).
    pub async fn finish_command(
        &self,
        id: CommandId,
        status: CommandStatus,
        success: bool,
        response: Option<&Value>,
        execution_ms: i64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "noting a command's outcome";
        let response = response.map(|response| JsonText::write(OPERATION, response)).transpose()?;
        let changed = on_pool!(self, db => sqlx::query(
            "UPDATE command_log SET status = $2, success = $3, response = $4, execution_ms = $5
             WHERE id = $1 AND status = 'pending'",
        )
        .bind(id.uuid())
        .bind(status.word())
        .bind(success)
        .bind(response.as_ref())
        .bind(execution_ms)
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if changed == 0 && self.command(id).await?.is_none() {
            return Err(StoreError::NotFound);
        }
        Ok(())
    }

    /// One command.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        const OPERATION: &str = "reading a command";
        let sql = "SELECT * FROM command_log WHERE id = $1";
        on_pool!(self, db => sqlx::query_as::<_, CommandRow>(sql).bind(id.uuid()).fetch_optional(db).await)
            .map_err(failed(OPERATION))?
            .map(|row| row.read(OPERATION))
            .transpose()
    }

    /// The commands of a VM, newest first.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn command_log(&self, vm: VmId, page: Page) -> Result<PageOf<CommandRecord>, StoreError> {
        const OPERATION: &str = "reading a command log";
        let rows = on_pool!(self, db => sqlx::query_as::<_, CommandRow>(
            "SELECT * FROM command_log
             WHERE vm_id = $1 AND ($2 IS NULL OR (created_at, id) <
                   (SELECT created_at, id FROM command_log WHERE id = $2 AND vm_id = $1))
             ORDER BY created_at DESC, id DESC LIMIT $3",
        )
        .bind(vm.uuid())
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        page.cut(rows, |row| row.read(OPERATION))
    }

    /// Marks what a dead controller left pending as lost; gives how many. Once the database is
    /// locked for a host ([`Store::lock`]), commands for other hosts' VMs are left alone: their
    /// controllers may be alive.
    ///
    /// # Errors
    /// `Database`.
    pub async fn lose_pending_commands(&self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        on_pool!(self, db => sqlx::query(
            "UPDATE command_log SET status = $1, success = FALSE
             WHERE status = 'pending' AND created_at <= $2
               AND NOT EXISTS (SELECT 1 FROM vms v WHERE v.id = command_log.vm_id AND v.host_id <> $3)",
        )
        .bind(CommandStatus::Lost.word())
        .bind(storable(now))
        .bind(self.host.get().copied().map(HostId::uuid))
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed("marking commands as lost"))
    }
}
