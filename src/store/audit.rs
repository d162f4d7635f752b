//! Who asked for what, from where, and what became of it. Rows of what was done are written inside the
//! transaction that does it; refusals and failures, which change nothing, get one of their own.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Page, PageOf, Store, StoreError,
    column::{JsonText, Word, storable, words},
    db::{Db, Tx, on_pool, on_tx},
    failed,
};
use crate::vm::{UserId, VmId};

/// Who changes users and tokens: the host's operator, by command line. He is no user of the API,
/// and the nil UUID is nobody else's.
pub(super) const OPERATOR: UserId = UserId(Uuid::nil());

tokio::task_local! {
    /// Where the request comes from that is being worked on. Every row that is written on its behalf says
    /// so, without each function on the way having to hand it on.
    static ORIGIN: Arc<AskedFrom>;
}

/// Where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct AskedFrom {
    /// The address that connected, as text.
    pub address: Option<String>,
    /// The request's number, as in the log.
    pub request: Option<Uuid>,
}

/// Runs this such that the audit rows it writes say where it was asked from.
pub async fn asked_from<T>(origin: AskedFrom, work: impl Future<Output = T>) -> T {
    ORIGIN.scope(Arc::new(origin), work).await
}

/// The same for work that goes on in a task of its own: where the work at hand was asked from.
pub fn asked_likewise<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    ORIGIN.scope(origin(), work)
}

/// The same for work that comes in pieces.
pub fn pieces_asked_from<S: Stream + Unpin>(origin: AskedFrom, mut pieces: S) -> impl Stream<Item = S::Item> {
    let origin = Arc::new(origin);
    stream::poll_fn(move |cx| ORIGIN.sync_scope(origin.clone(), || pieces.poll_next_unpin(cx)))
}

/// The number of the request that is being worked on.
#[must_use]
pub fn request_at_hand() -> Option<Uuid> {
    origin().request
}

/// Where the work at hand was asked from.
pub(super) fn origin() -> Arc<AskedFrom> {
    ORIGIN.try_with(Clone::clone).unwrap_or_default()
}

/// What became of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done, or accepted.
    Done,
    /// He may not, or it cannot be.
    Refused,
    /// Something went wrong here.
    Failed,
}

words!(AuditOutcome { Done => "done", Refused => "refused", Failed => "failed" });

/// One thing that somebody asked for.
pub(super) struct AuditRow {
    /// When.
    pub(super) at: DateTime<Utc>,
    /// Who.
    pub(super) user: UserId,
    /// What: `vm.create`, `vm.clone`, `vm.lend`, `vm.power`, `vm.change`, `vm.delete`, `vm.command`,
    /// `vm.command.cancel`, `vm.resync`, `vm.adopt`, `vm.share`, `vm.unshare`, `medium.import`, `medium.cancel`, `medium.delete`, `user.add`,
    /// `user.change`, `user.password`, `user.remove`, `token.issue`, `token.revoke`, `session.open`,
    /// `session.end`, `session.revoke`; of the [`OPERATOR`] `vm.restore` and `medium.restore`
    /// besides.
    pub(super) action: &'static str,
    /// Of which VM.
    pub(super) vm: Option<VmId>,
    /// An object without secrets.
    pub(super) details: Value,
}

/// Something that was asked for and not done.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The row's id: writing it a second time does nothing.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; `None`: nobody we know.
    pub user: Option<UserId>,
    /// The mutation's name in the schema, or the path of the door.
    pub action: String,
    /// Of which VM, as far as one was named.
    pub vm: Option<VmId>,
    /// The code that he was told; `None` of several that are told together.
    pub code: Option<String>,
    /// Whether it was our fault.
    pub failed: bool,
    /// What else there is to know: an object without secrets.
    pub details: Value,
    /// Where from.
    pub origin: AskedFrom,
}

/// A row of the audit log.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; the nil UUID: the host's operator, or, of a refusal, nobody we know.
    pub user: UserId,
    /// What.
    pub action: String,
    /// Of which VM, which may be gone.
    pub vm: Option<VmId>,
    /// What else there is to know.
    pub details: Value,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// The code that he was told.
    pub code: Option<String>,
    /// Where it was asked from.
    pub address: Option<String>,
    /// By which request.
    pub request: Option<Uuid>,
}

/// Which rows; everything that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Who.
    pub user: Option<UserId>,
    /// What.
    pub action: Option<String>,
    /// Of which VM.
    pub vm: Option<VmId>,
    /// What became of it.
    pub outcome: Option<AuditOutcome>,
}

#[derive(Debug, sqlx::FromRow)]
struct EntryRow {
    id: Uuid,
    at: DateTime<Utc>,
    user_id: Uuid,
    action: String,
    vm_id: Option<Uuid>,
    details: JsonText,
    outcome: String,
    code: Option<String>,
    address: Option<String>,
    request_id: Option<Uuid>,
}

impl EntryRow {
    fn read(self, operation: &'static str) -> Result<AuditEntry, StoreError> {
        Ok(AuditEntry {
            id: self.id,
            at: self.at,
            user: self.user_id.into(),
            action: self.action,
            vm: self.vm_id.map(VmId::from),
            details: self.details.read(operation, self.id)?,
            outcome: AuditOutcome::read(operation, &self.outcome)?,
            code: self.code,
            address: self.address,
            request: self.request_id,
        })
    }
}

pub(super) async fn record(tx: &mut Tx, row: &AuditRow) -> Result<(), StoreError> {
    const OPERATION: &str = "writing the audit log";
    let details = JsonText::write(OPERATION, &row.details)?;
    let origin = origin();
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO audit_log (id, at, user_id, action, vm_id, details, address, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(Uuid::now_v7())
    .bind(row.at)
    .bind(row.user.uuid())
    .bind(row.action)
    .bind(row.vm.map(VmId::uuid))
    .bind(&details)
    .bind(origin.address.as_deref())
    .bind(origin.request)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(OPERATION))
}

async fn insert_refusal(operation: &'static str, tx: &mut Tx, refusal: &Refusal) -> Result<(), StoreError> {
    let details = JsonText::write(operation, &refusal.details)?;
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO audit_log (id, at, user_id, action, vm_id, details, outcome, code, address, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT DO NOTHING",
    )
    .bind(refusal.id)
    .bind(storable(refusal.at))
    .bind(refusal.user.unwrap_or(OPERATOR).uuid())
    .bind(refusal.action.as_str())
    .bind(refusal.vm.map(VmId::uuid))
    .bind(&details)
    .bind(refusal.outcome().word())
    .bind(refusal.code.as_deref())
    .bind(refusal.origin.address.as_deref())
    .bind(refusal.origin.request)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(operation))
}

/// A row is one place in each of them, so that any number of rows is one statement of one text.
#[derive(Default)]
struct Columns<'a> {
    id: Vec<Uuid>,
    at: Vec<DateTime<Utc>>,
    user: Vec<Uuid>,
    action: Vec<&'a str>,
    vm: Vec<Option<Uuid>>,
    details: Vec<String>,
    outcome: Vec<&'static str>,
    code: Vec<Option<&'a str>>,
    address: Vec<Option<&'a str>>,
    request: Vec<Option<Uuid>>,
}

impl<'a> Columns<'a> {
    fn of(operation: &'static str, refusals: &'a [Refusal]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for refusal in refusals {
            columns.id.push(refusal.id);
            columns.at.push(storable(refusal.at));
            columns.user.push(refusal.user.unwrap_or(OPERATOR).uuid());
            columns.action.push(&refusal.action);
            columns.vm.push(refusal.vm.map(VmId::uuid));
            columns.details.push(JsonText::write(operation, &refusal.details)?.0);
            columns.outcome.push(refusal.outcome().word());
            columns.code.push(refusal.code.as_deref());
            columns.address.push(refusal.origin.address.as_deref());
            columns.request.push(refusal.origin.request);
        }
        Ok(columns)
    }
}

impl Refusal {
    fn outcome(&self) -> AuditOutcome {
        if self.failed { AuditOutcome::Failed } else { AuditOutcome::Refused }
    }
}

impl Store {
    /// Writes refusals and failures down: all or none, in one statement (PostgreSQL) or one transaction
    /// (SQLite). One that was written already stays as it is.
    ///
    /// # Errors
    /// `Database`.
    pub async fn record_refusals(&self, refusals: &[Refusal]) -> Result<(), StoreError> {
        const OPERATION: &str = "writing refusals to the audit log";
        if refusals.is_empty() {
            return Ok(());
        }
        match &self.db {
            Db::Postgres(pool) => {
                let Columns { id, at, user, action, vm, details, outcome, code, address, request } =
                    Columns::of(OPERATION, refusals)?;
                sqlx::query(
                    "INSERT INTO audit_log
                         (id, at, user_id, action, vm_id, details, outcome, code, address, request_id)
                     SELECT id, at, user_id, action, vm_id, details::json, outcome, code, address, request_id
                     FROM UNNEST($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::uuid[], $6::text[],
                                 $7::text[], $8::text[], $9::text[], $10::uuid[])
                         AS new (id, at, user_id, action, vm_id, details, outcome, code, address, request_id)
                     ON CONFLICT DO NOTHING",
                )
                .bind(id)
                .bind(at)
                .bind(user)
                .bind(action)
                .bind(vm)
                .bind(details)
                .bind(outcome)
                .bind(code)
                .bind(address)
                .bind(request)
                .execute(pool)
                .await
                .map(drop)
                .map_err(failed(OPERATION))
            }
            Db::Sqlite(_) => {
                let mut tx = self.begin(OPERATION).await?;
                for refusal in refusals {
                    insert_refusal(OPERATION, &mut tx, refusal).await?;
                }
                tx.commit(OPERATION).await
            }
        }
    }

    /// Writes down that somebody asked for something of a VM that changes nothing which is stored.
    ///
    /// # Errors
    /// `Database`.
    pub async fn record_asked(&self, user: UserId, action: &'static str, vm: VmId) -> Result<(), StoreError> {
        const OPERATION: &str = "noting what was asked of a VM";
        let mut tx = self.begin(OPERATION).await?;
        let details = Value::Object(serde_json::Map::new());
        record(&mut tx, &AuditRow { at: storable(Utc::now()), user, action, vm: Some(vm), details }).await?;
        tx.commit(OPERATION).await
    }

    /// What was asked for, newest first.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn audit_log(
        &self,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<PageOf<AuditEntry>, StoreError> {
        const OPERATION: &str = "reading the audit log";
        let rows = on_pool!(self, db => sqlx::query_as::<_, EntryRow>(
            "SELECT * FROM audit_log
             WHERE ($1 IS NULL OR user_id = $1) AND ($2 IS NULL OR action = $2)
               AND ($3 IS NULL OR vm_id = $3) AND ($4 IS NULL OR outcome = $4)
               AND ($5 IS NULL OR id < $5)
             ORDER BY id DESC LIMIT $6",
        )
        .bind(filter.user.map(UserId::uuid))
        .bind(filter.action.as_deref())
        .bind(filter.vm.map(VmId::uuid))
        .bind(filter.outcome.map(Word::word))
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        page.cut(rows, |row| row.read(OPERATION))
    }
}
