//! Operations.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Store, StoreError,
    column::{JsonText, Word, storable, storable_text, words},
    db::{Tx, on_pool, on_tx},
    failed,
};
use crate::vm::{
    Effect, FORCED, Operation, OperationError, OperationId, OperationKind, OperationStatus, UserId, VmChange,
    VmId,
};

words!(OperationKind {
    Create => "create",
    Start => "start",
    Stop => "stop",
    Delete => "delete",
    Suspend => "suspend",
    Save => "save",
    Reboot => "reboot",
    Reset => "reset",
    SetAutostart => "set_autostart",
    Rename => "rename",
    SetPolicy => "set_policy",
    Resize => "resize",
    GrowDisk => "grow_disk",
    AttachDisk => "attach_disk",
    DetachDisk => "detach_disk",
    ChangeMedium => "change_medium",
    AttachInterface => "attach_interface",
    DetachInterface => "detach_interface",
    CreateSnapshot => "create_snapshot",
    RevertSnapshot => "revert_snapshot",
    DeleteSnapshot => "delete_snapshot",
    Clone => "clone",
    Lend => "lend",
    Adopt => "adopt",
    Release => "release",
});
words!(Effect { Live => "live", NextBoot => "next_boot" });
words!(OperationStatus {
    Pending => "pending",
    Running => "running",
    Succeeded => "succeeded",
    Failed => "failed",
    Superseded => "superseded",
});

#[derive(Debug, sqlx::FromRow)]
pub(super) struct OperationRow {
    id: Uuid,
    vm_id: Uuid,
    kind: String,
    status: String,
    progress: i32,
    stage: String,
    error_code: Option<String>,
    error_message: Option<String>,
    generation: i64,
    requested_by: Uuid,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    change: Option<JsonText>,
    effect: Option<String>,
}

impl OperationRow {
    pub(super) fn vm(&self) -> VmId {
        self.vm_id.into()
    }

    pub(super) fn read(self, operation: &'static str) -> Result<Operation, StoreError> {
        Ok(Operation {
            id: self.id.into(),
            vm: self.vm_id.into(),
            kind: OperationKind::read(operation, &self.kind)?,
            status: OperationStatus::read(operation, &self.status)?,
            progress: self.progress,
            stage: self.stage,
            error: self
                .error_code
                .zip(self.error_message)
                .map(|(code, message)| OperationError { code, message }),
            change: self.change.map(|change| change.read(operation, self.id)).transpose()?,
            effect: self.effect.map(|word| Effect::read(operation, &word)).transpose()?,
            generation: self.generation,
            requested_by: self.requested_by.into(),
            created_at: self.created_at,
            finished_at: self.finished_at,
        })
    }
}

impl Store {
    /// One operation.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        const OPERATION: &str = "reading an operation";
        let sql = "SELECT * FROM operations WHERE id = $1";
        on_pool!(self, db => sqlx::query_as::<_, OperationRow>(sql).bind(id.uuid()).fetch_optional(db).await)
            .map_err(failed(OPERATION))?
            .map(|row| row.read(OPERATION))
            .transpose()
    }

    /// Who asked for a VM that is gone, from its history; `None` once that has expired.
    ///
    /// # Errors
    /// `Database`.
    pub async fn former_owner(&self, vm: VmId) -> Result<Option<UserId>, StoreError> {
        let sql =
            "SELECT requested_by FROM operations WHERE vm_id = $1 AND kind IN ('create', 'clone', 'adopt')
                   ORDER BY created_at DESC LIMIT 1";
        on_pool!(self, db => sqlx::query_scalar::<_, Uuid>(sql).bind(vm.uuid()).fetch_optional(db).await)
            .map_err(failed("reading a VM's history"))
            .map(|owner| owner.map(UserId))
    }

    /// Moves an open operation on; a final one stays as it is. Gives the operation as it is now.
    /// `progress` is brought into 0..=100.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn progress_operation(
        &self,
        id: OperationId,
        progress: i32,
        stage: &str,
    ) -> Result<Option<Operation>, StoreError> {
        const OPERATION: &str = "noting an operation's progress";
        let row = on_pool!(self, db => sqlx::query_as::<_, OperationRow>(
            "UPDATE operations SET status = $2, progress = $3, stage = $4
             WHERE id = $1 AND finished_at IS NULL RETURNING *",
        )
        .bind(id.uuid())
        .bind(OperationStatus::Running.word())
        .bind(progress.clamp(0, 100))
        .bind(storable_text(stage))
        .fetch_optional(db)
        .await)
        .map_err(failed(OPERATION))?;
        match row {
            Some(row) => row.read(OPERATION).map(Some),
            None => self.operation(id).await,
        }
    }

    /// Ends an open operation; a final one stays as it is. Gives the operation as it is now.
    ///
    /// # Errors
    /// `Database` (also for a `status` that is not final), `Corrupt`.
    pub async fn finish_operation(
        &self,
        id: OperationId,
        status: OperationStatus,
        error: Option<OperationError>,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        const OPERATION: &str = "ending an operation";
        let mut tx = self.begin(OPERATION).await?;
        let finished = finish(&mut tx, id, status, error, storable(now)).await?;
        tx.commit(OPERATION).await?;
        match finished {
            Some(operation) => Ok(Some(operation)),
            None => self.operation(id).await,
        }
    }
}

pub(super) async fn insert(tx: &mut Tx, operation: &Operation) -> Result<(), StoreError> {
    const OPERATION: &str = "storing an operation";
    let change = operation.change.as_ref().map(|change| JsonText::write(OPERATION, change)).transpose()?;
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO operations (id, vm_id, kind, status, progress, stage, generation, requested_by,
                                 created_at, change)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(operation.id.uuid())
    .bind(operation.vm.uuid())
    .bind(operation.kind.word())
    .bind(operation.status.word())
    .bind(operation.progress)
    .bind(operation.stage.as_str())
    .bind(operation.generation)
    .bind(operation.requested_by.uuid())
    .bind(operation.created_at)
    .bind(&change)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(OPERATION))
}

/// The open operations of a VM that asked for this generation or an earlier one; a deletion's is
/// not among them, because it is never given up.
pub(super) async fn open_up_to(
    tx: &mut Tx,
    vm: VmId,
    generation: i64,
) -> Result<Vec<OperationId>, StoreError> {
    on_tx!(tx, db => sqlx::query_scalar::<_, Uuid>(
        "SELECT id FROM operations
         WHERE vm_id = $1 AND generation <= $2 AND kind <> 'delete' AND finished_at IS NULL",
    )
    .bind(vm.uuid())
    .bind(generation)
    .fetch_all(db)
    .await)
    .map_err(failed("reading a VM's open operations"))
    .map(|ids| ids.into_iter().map(OperationId).collect())
}

/// Ends an open operation; `None` when it is not open.
pub(super) async fn finish(
    tx: &mut Tx,
    id: OperationId,
    status: OperationStatus,
    error: Option<OperationError>,
    now: DateTime<Utc>,
) -> Result<Option<Operation>, StoreError> {
    const OPERATION: &str = "ending an operation";
    let done = status == OperationStatus::Succeeded;
    let (code, message) = error.map(|error| (error.code, storable_text(&error.message))).unzip();
    on_tx!(tx, db => sqlx::query_as::<_, OperationRow>(
        "UPDATE operations
         SET status = $2, error_code = $3, error_message = $4, finished_at = $5,
             progress = CASE WHEN $6 THEN 100 ELSE progress END,
             stage = CASE WHEN $6 AND stage NOT LIKE $7 || '%' THEN 'done' ELSE stage END
         WHERE id = $1 AND finished_at IS NULL RETURNING *",
    )
    .bind(id.uuid())
    .bind(status.word())
    .bind(code)
    .bind(message)
    .bind(now)
    .bind(done)
    .bind(FORCED)
    .fetch_optional(db)
    .await)
    .map_err(failed(OPERATION))?
    .map(|row| row.read(OPERATION))
    .transpose()
}

/// Ends the open operations of these kinds, because a later request took their place.
pub(super) async fn supersede(
    tx: &mut Tx,
    vm: VmId,
    kinds: &[OperationKind],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    // Between commas, so that a word is found only whole.
    let words = kinds.iter().fold(",".to_owned(), |words, kind| words + kind.word() + ",");
    on_tx!(tx, db => sqlx::query(
        "UPDATE operations SET status = $2, finished_at = $3
         WHERE vm_id = $1 AND finished_at IS NULL AND $4 LIKE '%,' || kind || ',%'",
    )
    .bind(vm.uuid())
    .bind(OperationStatus::Superseded.word())
    .bind(now)
    .bind(words)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed("superseding operations"))
}

/// Ends every open operation, because the VM is to go or is gone.
pub(super) async fn supersede_all(tx: &mut Tx, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query(
        "UPDATE operations SET status = $2, finished_at = $3 WHERE vm_id = $1 AND finished_at IS NULL",
    )
    .bind(vm.uuid())
    .bind(OperationStatus::Superseded.word())
    .bind(now)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed("superseding operations"))
}

/// The change that is under way, if there is one.
pub(super) async fn open_change(tx: &mut Tx, vm: VmId) -> Result<Option<Operation>, StoreError> {
    const OPERATION: &str = "looking for a change under way";
    on_tx!(tx, db => sqlx::query_as::<_, OperationRow>(
        "SELECT * FROM operations WHERE vm_id = $1 AND finished_at IS NULL AND change IS NOT NULL",
    )
    .bind(vm.uuid())
    .fetch_optional(db)
    .await)
    .map_err(failed(OPERATION))?
    .map(|row| row.read(OPERATION))
    .transpose()
}

/// Replaces what is left to be done of a change.
pub(super) async fn note_change(tx: &mut Tx, id: OperationId, change: &VmChange) -> Result<(), StoreError> {
    const OPERATION: &str = "noting how far a change has come";
    let change = JsonText::write(OPERATION, change)?;
    on_tx!(tx, db => sqlx::query("UPDATE operations SET change = $2 WHERE id = $1 AND finished_at IS NULL")
        .bind(id.uuid())
        .bind(&change)
        .execute(db)
        .await
        .map(drop))
    .map_err(failed(OPERATION))
}

/// Notes when a change takes hold that is about to be ended.
pub(super) async fn note_effect(tx: &mut Tx, id: OperationId, effect: Effect) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query("UPDATE operations SET effect = $2 WHERE id = $1 AND finished_at IS NULL")
        .bind(id.uuid())
        .bind(effect.word())
        .execute(db)
        .await
        .map(drop))
    .map_err(failed("noting when a change takes hold"))
}

/// The latest operation of one kind, open or not.
pub(super) async fn newest(
    tx: &mut Tx,
    vm: VmId,
    kind: OperationKind,
) -> Result<Option<Operation>, StoreError> {
    const OPERATION: &str = "reading an operation";
    on_tx!(tx, db => sqlx::query_as::<_, OperationRow>(
        "SELECT * FROM operations WHERE vm_id = $1 AND kind = $2
         ORDER BY generation DESC, created_at DESC, id DESC LIMIT 1",
    )
    .bind(vm.uuid())
    .bind(kind.word())
    .fetch_optional(db)
    .await)
    .map_err(failed(OPERATION))?
    .map(|row| row.read(OPERATION))
    .transpose()
}
