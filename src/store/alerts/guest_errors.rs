//! Guests' errors as alerts, in the transaction that stores the error.
//!
//! A guest chooses its words, so it could open as many alerts as it likes: of one VM, so many are
//! open at once, and one more counts all others.

use serde_json::json;
use uuid::Uuid;

use super::dedup_key;
use crate::{
    store::{
        StoreError, VmErrorRecord,
        column::{JsonText, Word, storable, storable_text},
        db::{Tx, on_tx},
        failed,
    },
    vm::{AlertKind, AlertSeverity, DeliveryState, alert_details, alert_summary, error_fingerprint},
};

/// Open alerts of one guest's errors at most, apart from the one that counts all others.
const MAX_OPEN: i64 = 20;

/// Instead of a fingerprint, for all others.
const OTHERS: &str = "others";

const OPERATION: &str = "raising an alert of a guest's error";

/// Raises the alert of an error that was just stored. A VM that is gone raises none: nobody is to
/// do anything about it.
pub(in crate::store) async fn raise(tx: &mut Tx, error: &VmErrorRecord) -> Result<(), StoreError> {
    let vm: Option<(Uuid, String)> = on_tx!(tx, db =>
        sqlx::query_as("SELECT host_id, name FROM vms WHERE id = $1")
            .bind(error.vm.uuid())
            .fetch_optional(db)
            .await)
    .map_err(failed(OPERATION))?;
    let Some((host, name)) = vm else { return Ok(()) };

    let key = dedup_key(AlertKind::GuestError, Some(error.vm), &error_fingerprint(&error.error));
    if count_again(tx, host, &key, error).await? {
        return Ok(());
    }
    let open: i64 = on_tx!(tx, db => sqlx::query_scalar(
        "SELECT count(*) FROM alerts WHERE vm_id = $1 AND kind = $2 AND resolved_at IS NULL",
    )
    .bind(error.vm.uuid())
    .bind(AlertKind::GuestError.word())
    .fetch_one(db)
    .await)
    .map_err(failed(OPERATION))?;
    let (key, summary, details) = if open < MAX_OPEN {
        let details = json!({ "vmErrorId": error.id, "details": error.details });
        (key, alert_summary(&error.error), alert_details(details))
    } else {
        let key = dedup_key(AlertKind::GuestError, Some(error.vm), OTHERS);
        if count_again(tx, host, &key, error).await? {
            return Ok(());
        }
        let summary =
            format!("The guest reports more than {MAX_OPEN} kinds of errors; the others are counted here.");
        (key, summary, json!({ "vmErrorId": error.id }))
    };
    insert(tx, host, &name, &key, error, &summary, &JsonText::write(OPERATION, &details)?).await
}

/// Counts the error to the open alert of this key; false where there is none.
async fn count_again(tx: &mut Tx, host: Uuid, key: &str, error: &VmErrorRecord) -> Result<bool, StoreError> {
    on_tx!(tx, db => sqlx::query(
        "UPDATE alerts SET count = count + 1, last_at = CASE WHEN last_at < $3 THEN $3 ELSE last_at END
         WHERE host_id = $1 AND dedup_key = $2 AND resolved_at IS NULL",
    )
    .bind(host)
    .bind(key)
    .bind(storable(error.created_at))
    .execute(db)
    .await
    .map(|done| done.rows_affected() > 0))
    .map_err(failed(OPERATION))
}

async fn insert(
    tx: &mut Tx,
    host: Uuid,
    name: &str,
    key: &str,
    error: &VmErrorRecord,
    summary: &str,
    details: &JsonText,
) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO alerts (id, host_id, kind, vm_id, vm_name, dedup_key, severity, summary, details, count,
                             first_at, last_at, state, next_attempt_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10, $11, $10)
         ON CONFLICT (host_id, dedup_key) WHERE resolved_at IS NULL DO UPDATE SET count = alerts.count + 1",
    )
    .bind(Uuid::now_v7())
    .bind(host)
    .bind(AlertKind::GuestError.word())
    .bind(error.vm.uuid())
    .bind(name)
    .bind(key)
    .bind(AlertSeverity::Warning.word())
    .bind(storable_text(summary))
    .bind(details)
    .bind(storable(error.created_at))
    .bind(DeliveryState::Pending.word())
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(OPERATION))
}
