//! What grew old is removed, a bounded number of rows per statement: no long transaction, and on
//! SQLite no long turn at the one write lock.

use chrono::{DateTime, Utc};

use super::{Store, StoreError, column::storable, db::on_pool, failed};

/// Rows removed by one statement at most.
const BATCH: i64 = 2000;

/// Each takes the time before which rows are old, and the size of a batch.
const HISTORY: [&str; 6] = [
    "DELETE FROM command_log WHERE id IN (SELECT id FROM command_log WHERE created_at < $1 LIMIT $2)",
    "DELETE FROM vm_errors WHERE id IN (SELECT id FROM vm_errors WHERE created_at < $1 LIMIT $2)",
    // A condition that goes on is no history yet.
    "DELETE FROM alerts WHERE id IN (
         SELECT id FROM alerts
         WHERE CASE WHEN kind = 'guest_error' THEN last_at ELSE resolved_at END < $1 LIMIT $2)",
    "DELETE FROM operations WHERE id IN (
         SELECT o.id FROM operations o
         WHERE o.finished_at < $1
           AND NOT EXISTS (SELECT 1 FROM vms v WHERE v.id = o.vm_id)
           AND NOT EXISTS (SELECT 1 FROM operations n
                           WHERE n.vm_id = o.vm_id AND (n.finished_at IS NULL OR n.finished_at >= $1))
         LIMIT $2)",
    // Of a VM that lives, its creation stays: it will be the first of its history.
    "DELETE FROM operations WHERE id IN (
         SELECT o.id FROM operations o
         WHERE o.finished_at < $1 AND o.kind <> 'create'
           AND EXISTS (SELECT 1 FROM vms v WHERE v.id = o.vm_id)
         LIMIT $2)",
    "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at < $1 LIMIT $2)",
];

const METRICS: &str =
    "DELETE FROM vm_metrics WHERE id IN (SELECT id FROM vm_metrics WHERE timestamp < $1 LIMIT $2)";

impl Store {
    /// Removes command logs, guest errors, alerts and audit rows older than `before`, and the operations of
    /// VMs whose last one, the deletion, is older; of VMs that live, all old ones but the creation.
    /// Gives how many rows.
    ///
    /// A deleted VM's operations go together: the oldest of them, its creation, tells who may see
    /// what is left of the VM ([`Store::former_owner`]).
    ///
    /// # Errors
    /// `Database`; what was removed until then stays removed.
    pub async fn expire_history(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let mut removed = 0;
        for sql in HISTORY {
            removed += self.expire("removing old history", sql, before).await?;
        }
        Ok(removed)
    }

    /// Removes readings older than `before`; gives how many.
    ///
    /// # Errors
    /// `Database`; what was removed until then stays removed.
    pub async fn expire_metrics(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.expire("removing old readings", METRICS, before).await
    }

    async fn expire(
        &self,
        operation: &'static str,
        sql: &'static str,
        before: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let before = storable(before);
        let mut removed = 0;
        loop {
            let batch = on_pool!(self, db => sqlx::query(sql)
                .bind(before)
                .bind(BATCH)
                .execute(db)
                .await
                .map(|done| done.rows_affected()))
            .map_err(failed(operation))?;
            removed += batch;
            if batch < BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}
