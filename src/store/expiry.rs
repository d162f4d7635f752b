//! What grew old is removed, a bounded number of rows per statement: no long transaction, and on
//! SQLite no long turn at the one write lock.
//!
//! Readings and roll-ups have no index by time alone; they go VM by VM, each found by one seek.
//! On PostgreSQL, whole days of readings go at once.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    Store, StoreError,
    column::storable,
    db::{Db, on_pool},
    failed,
    metrics::rollup,
};
use crate::vm::Resolution;

/// Rows removed by one statement at most.
const BATCH: i64 = 2000;

/// Each takes the time before which rows are old, and the size of a batch.
const HISTORY: [&str; 5] = [
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
];

const AUDIT: &str = "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at < $1 LIMIT $2)";
/// Audit rows that are younger stay. The databases' triggers say half a day.
const AUDIT_KEPT: TimeDelta = TimeDelta::days(1);

/// A table of readings or roll-ups: its next VM, and the removal of what is old of one VM. `$4` is
/// the width of the roll-ups.
struct ByVm {
    next: &'static str,
    remove: &'static str,
}

const METRICS: ByVm = ByVm {
    next: "SELECT vm_id FROM vm_metrics WHERE vm_id > $1 ORDER BY vm_id LIMIT 1",
    remove: "DELETE FROM vm_metrics WHERE rowid IN (
                 SELECT rowid FROM vm_metrics WHERE vm_id = $1 AND timestamp < $2 AND $4 = 0 LIMIT $3)",
};

const ROLLUPS: ByVm = ByVm {
    next: "SELECT vm_id FROM vm_metrics_rollups WHERE vm_id > $1 ORDER BY vm_id LIMIT 1",
    remove: "DELETE FROM vm_metrics_rollups WHERE vm_id = $1 AND width_seconds = $4 AND at IN (
                 SELECT at FROM vm_metrics_rollups
                 WHERE vm_id = $1 AND width_seconds = $4 AND at < $2 ORDER BY at LIMIT $3)",
};

impl Store {
    /// Removes command logs, guest errors, alerts and audit rows (of these none that is younger than a day)
    /// older than `before`, and the operations of
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
        // The database keeps younger ones whatever is asked; by its own clock, which is not ours.
        let before = before.min(Utc::now() - AUDIT_KEPT);
        removed += self.expire("removing old audit rows", AUDIT, before).await?;
        Ok(removed)
    }

    /// Removes readings older than `before`; gives how many: rows on SQLite, days on PostgreSQL,
    /// where a day goes when all of it is older.
    ///
    /// # Errors
    /// `Database`; what was removed until then stays removed.
    pub async fn expire_metrics(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        const OPERATION: &str = "removing old readings";
        match &self.db {
            Db::Postgres(pool) => self.drop_days(pool, before).await.map_err(failed(OPERATION)),
            Db::Sqlite(_) => self.expire_by_vm(OPERATION, METRICS, before, 0).await,
        }
    }

    /// Removes roll-ups of this width whose time began before `before`; gives how many. Readings
    /// themselves are not touched.
    ///
    /// # Errors
    /// `Database`; what was removed until then stays removed.
    pub async fn expire_rollups(&self, width: Resolution, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.expire_by_vm("removing old roll-ups", ROLLUPS, before, rollup::seconds(width)).await
    }

    async fn expire_by_vm(
        &self,
        operation: &'static str,
        ByVm { next, remove }: ByVm,
        before: DateTime<Utc>,
        width: i64,
    ) -> Result<u64, StoreError> {
        let before = storable(before);
        let (mut vm, mut removed) = (Uuid::nil(), 0);
        loop {
            let found = on_pool!(self, db => sqlx::query_scalar(next).bind(vm).fetch_optional(db).await)
                .map_err(failed(operation))?;
            let Some(found) = found else { return Ok(removed) };
            vm = found;
            loop {
                let batch = on_pool!(self, db => sqlx::query(remove)
                    .bind(vm)
                    .bind(before)
                    .bind(BATCH)
                    .bind(width)
                    .execute(db)
                    .await
                    .map(|done| done.rows_affected()))
                .map_err(failed(operation))?;
                removed += batch;
                if batch < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
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
