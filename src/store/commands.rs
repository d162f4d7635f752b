//! The command log.

mod insert;

pub use insert::NotLogged;

use agent_protocol::tree_bytes;
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Page, PageOf, Store, StoreError,
    audit::{self, AuditRow},
    column::{JsonText, Word, storable, words},
    db::on_pool,
    failed,
};
use crate::vm::{CommandId, FrameText, HostId, UserId, VmId};

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
    /// Somebody cancelled it: it was not sent, or nobody waits for its answer any more.
    Cancelled,
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
    /// The answer (an object), or null. Text, because a guest's answer may take many times that
    /// once it is read.
    pub response: Option<FrameText>,
    /// How it stands.
    pub status: CommandStatus,
    /// The agent's verdict; false where there was none. Null while pending.
    pub success: Option<bool>,
    /// Milliseconds from submission to outcome; null while pending, and where it was lost.
    pub execution_ms: Option<i64>,
    /// When it was sent; null while pending, where it never was, and where it was lost.
    pub sent_at: Option<DateTime<Utc>>,
    /// Milliseconds from submission to sent.
    pub queue_ms: Option<i64>,
    /// Milliseconds from sent to outcome.
    pub run_ms: Option<i64>,
    /// The answer that came after it had ended otherwise.
    pub late_response: Option<FrameText>,
    /// When that came.
    pub late_at: Option<DateTime<Utc>>,
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
    Cancelled => "cancelled",
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
    sent_at: Option<DateTime<Utc>>,
    queue_ms: Option<i64>,
    run_ms: Option<i64>,
    late_response: Option<JsonText>,
    late_at: Option<DateTime<Utc>>,
    requested_by: Uuid,
    created_at: DateTime<Utc>,
}

/// What the entries of one page take together once they are read, at most; the first is given
/// whatever it takes.
const MAX_PAGE_TREE: usize = 32 << 20;

/// The first rows of a page that are no more than `max_tree` bytes in memory together.
async fn within(
    operation: &'static str,
    page: Page,
    max_tree: usize,
    rows: impl Stream<Item = Result<CommandRow, sqlx::Error>>,
) -> Result<PageOf<CommandRecord>, StoreError> {
    let mut rows = std::pin::pin!(rows);
    let (mut nodes, mut tree) = (Vec::new(), 0_usize);
    while let Some(row) = rows.next().await {
        let row = row.map_err(failed(operation))?;
        tree = tree.saturating_add(row.tree_bytes());
        if nodes.len() >= page.shown() || (tree > max_tree && !nodes.is_empty()) {
            return Ok(PageOf { nodes, has_next: true });
        }
        nodes.push(row.read(operation)?);
    }
    Ok(PageOf { nodes, has_next: false })
}

impl CommandRow {
    fn tree_bytes(&self) -> usize {
        let texts = [Some(&self.command), self.response.as_ref(), self.late_response.as_ref()];
        texts.into_iter().flatten().map(|text| tree_bytes(text.0.as_bytes())).sum()
    }

    fn read(self, operation: &'static str) -> Result<CommandRecord, StoreError> {
        Ok(CommandRecord {
            command: self.command.read(operation, self.id)?,
            response: self.response.map(|response| FrameText::new(response.0)),
            late_response: self.late_response.map(|late| FrameText::new(late.0)),
            id: self.id.into(),
            vm: self.vm_id.into(),
            kind: self.kind,
            status: CommandStatus::read(operation, &self.status)?,
            success: self.success,
            execution_ms: self.execution_ms,
            sent_at: self.sent_at,
            queue_ms: self.queue_ms,
            run_ms: self.run_ms,
            late_at: self.late_at,
            requested_by: self.requested_by.into(),
            created_at: self.created_at,
        })
    }
}

/// Which commands; everything that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct CommandSearch {
    /// That stand like this.
    pub status: Option<CommandStatus>,
    /// `safe` or `unsafe`.
    pub kind: Option<&'static str>,
    /// The safe ones of this name, as agents know it.
    pub action: Option<&'static str>,
    /// That this user asked for.
    pub requested_by: Option<UserId>,
    /// Asked for at this moment or after it.
    pub since: Option<DateTime<Utc>>,
    /// Asked for before this moment.
    pub until: Option<DateTime<Utc>>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct CommandEnd {
    /// Not `Pending`.
    pub status: CommandStatus,
    /// The agent's verdict; false where there was none.
    pub success: bool,
    /// An object, as JSON.
    pub response: Option<String>,
    /// When it was sent; `None`: never.
    pub sent_at: Option<DateTime<Utc>>,
    /// Milliseconds from submission to sent.
    pub queue_ms: Option<i64>,
    /// Milliseconds from sent to outcome.
    pub run_ms: Option<i64>,
    /// Milliseconds from submission to outcome.
    pub execution_ms: i64,
}

/// What became of an answer that came after its command had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateNote {
    /// It is in the log.
    Noted,
    /// The log has no outcome yet; it may have one soon.
    Pending,
    /// No such command of this VM, or one that was answered, in time or late.
    Unwanted,
}

impl Store {
    /// Notes the outcome of a pending command; one that has an outcome keeps it. It need not be on
    /// disk when this returns: after a power cut the command is pending still, and becomes lost.
    ///
    /// # Errors
    /// `NotFound`; `Database` (also for the status `Pending`, which is no outcome).
    pub async fn finish_command(&self, id: CommandId, end: &CommandEnd) -> Result<(), StoreError> {
        const OPERATION: &str = "noting a command's outcome";
        let response = end.response.clone().map(JsonText);
        // One statement, so that it is one round trip: what `set_config` sets holds until its
        // transaction ends.
        let sql = self.sql(
            "UPDATE command_log SET status = $2, success = $3, response = $4, execution_ms = $5, sent_at = $6,
                                    queue_ms = $7, run_ms = $8
             WHERE id = $1 AND status = 'pending'",
            "WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', TRUE))
             UPDATE command_log SET status = $2, success = $3, response = $4, execution_ms = $5, sent_at = $6,
                                    queue_ms = $7, run_ms = $8
             FROM quick WHERE id = $1 AND status = 'pending'",
        );
        let changed = on_pool!(self.quick, db => sqlx::query(sql)
            .bind(id.uuid())
            .bind(end.status.word())
            .bind(end.success)
            .bind(response.as_ref())
            .bind(end.execution_ms)
            .bind(end.sent_at.map(storable))
            .bind(end.queue_ms)
            .bind(end.run_ms)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if changed == 0 && self.command(id).await?.is_none() {
            return Err(StoreError::NotFound);
        }
        Ok(())
    }

    /// Notes an answer that came after its command had ended otherwise: once, and only for a
    /// command of that VM. The outcome stays what it was.
    ///
    /// # Errors
    /// `Database`.
    pub async fn note_late_answer(
        &self,
        vm: VmId,
        id: CommandId,
        response: &str,
        at: DateTime<Utc>,
    ) -> Result<LateNote, StoreError> {
        const OPERATION: &str = "noting a late answer";
        let response = JsonText(response.to_owned());
        let changed = on_pool!(self.quick, db => sqlx::query(
            "UPDATE command_log SET late_response = $3, late_at = $4
             WHERE id = $1 AND vm_id = $2 AND late_at IS NULL AND status NOT IN ('pending', 'answered')",
        )
        .bind(id.uuid())
        .bind(vm.uuid())
        .bind(&response)
        .bind(storable(at))
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        if changed > 0 {
            return Ok(LateNote::Noted);
        }
        let pending = on_pool!(self, db => sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM command_log WHERE id = $1 AND vm_id = $2 AND status = 'pending'",
        )
        .bind(id.uuid())
        .bind(vm.uuid())
        .fetch_one(db)
        .await)
        .map_err(failed(OPERATION))?;
        Ok(if pending > 0 { LateNote::Pending } else { LateNote::Unwanted })
    }

    /// Writes down that somebody asked for a command to be cancelled.
    ///
    /// # Errors
    /// `Database`.
    pub async fn audit_cancel(&self, user: UserId, vm: VmId, id: CommandId) -> Result<(), StoreError> {
        const OPERATION: &str = "cancelling a command";
        let mut tx = self.begin(OPERATION).await?;
        let (at, details) = (storable(Utc::now()), json!({ "command": id }));
        let row = AuditRow { at, user, action: "vm.command.cancel", vm: Some(vm), details };
        audit::record(&mut tx, &row).await?;
        tx.commit(OPERATION).await
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

    /// The commands of a VM that are searched for, newest first. A page ends before what would take more
    /// than 32 MiB in memory, and says that there is more; the next one goes on after its last row, also
    /// where that row does not fit the search any more.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn command_log(
        &self,
        vm: VmId,
        search: &CommandSearch,
        page: Page,
    ) -> Result<PageOf<CommandRecord>, StoreError> {
        const OPERATION: &str = "reading a command log";
        on_pool!(self, db => within(OPERATION, page, MAX_PAGE_TREE, sqlx::query_as::<_, CommandRow>(
            "SELECT * FROM command_log
             WHERE vm_id = $1 AND ($2 IS NULL OR (created_at, id) <
                   (SELECT created_at, id FROM command_log WHERE id = $2 AND vm_id = $1))
               AND ($3 IS NULL OR status = $3) AND ($4 IS NULL OR kind = $4)
               AND ($5 IS NULL OR command ->> 'action' = $5) AND ($6 IS NULL OR requested_by = $6)
               AND ($7 IS NULL OR created_at >= $7) AND ($8 IS NULL OR created_at < $8)
             ORDER BY created_at DESC, id DESC LIMIT $9",
        )
        .bind(vm.uuid())
        .bind(page.after)
        .bind(search.status.map(Word::word))
        .bind(search.kind)
        .bind(search.action)
        .bind(search.requested_by.map(UserId::uuid))
        .bind(search.since.map(storable))
        .bind(search.until.map(storable))
        .bind(page.limit())
        .fetch(db))
        .await)
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
