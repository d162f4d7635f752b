//! Errors that guests reported.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Page, PageOf, Store, StoreError, alerts,
    column::{JsonText, storable, storable_text},
    db::{on_pool, on_tx},
    failed,
};
use crate::vm::VmId;

/// One reported error.
#[derive(Debug, Clone)]
pub struct VmErrorRecord {
    /// The row.
    pub id: Uuid,
    /// The VM. It may be gone.
    pub vm: VmId,
    /// The guest's words, bounded and cleaned.
    pub error: String,
    /// An object.
    pub details: Value,
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// Ours.
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, sqlx::FromRow)]
struct ErrorRow {
    id: Uuid,
    vm_id: Uuid,
    error: String,
    details: JsonText,
    timestamp: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl Store {
    /// Stores one, and raises its alert in the same transaction; the same id again is left alone.
    ///
    /// # Errors
    /// `Database`.
    pub async fn insert_vm_error(&self, error: &VmErrorRecord) -> Result<(), StoreError> {
        const OPERATION: &str = "storing a guest's error";
        let details = JsonText::write(OPERATION, &error.details)?;
        let mut tx = self.begin(OPERATION).await?;
        let stored = on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO vm_errors (id, vm_id, error, details, timestamp, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(error.id)
        .bind(error.vm.uuid())
        .bind(storable_text(&error.error))
        .bind(&details)
        .bind(storable(error.timestamp))
        .bind(storable(error.created_at))
        .execute(db)
        .await
        .map(|done| done.rows_affected() > 0))
        .map_err(failed(OPERATION))?;
        if stored {
            alerts::raise(&mut tx, error).await?;
        }
        tx.commit(OPERATION).await
    }

    /// Errors of a VM, newest first (by our clock).
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn vm_errors(&self, vm: VmId, page: Page) -> Result<PageOf<VmErrorRecord>, StoreError> {
        const OPERATION: &str = "reading a guest's errors";
        let rows = on_pool!(self, db => sqlx::query_as::<_, ErrorRow>(
            "SELECT * FROM vm_errors
             WHERE vm_id = $1 AND ($2 IS NULL OR (created_at, id) <
                   (SELECT created_at, id FROM vm_errors WHERE id = $2 AND vm_id = $1))
             ORDER BY created_at DESC, id DESC LIMIT $3",
        )
        .bind(vm.uuid())
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        page.cut(rows, |row| {
            Ok(VmErrorRecord {
                details: row.details.read(OPERATION, row.id)?,
                id: row.id,
                vm: row.vm_id.into(),
                error: row.error,
                timestamp: row.timestamp,
                created_at: row.created_at,
            })
        })
    }
}
