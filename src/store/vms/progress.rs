//! What the loop notes of a VM. Every note may be made again after a crash.

use chrono::{DateTime, Utc};

use super::row::lock_vm;
use crate::{
    store::{
        Store, StoreError,
        column::{JsonText, storable},
        db::{Db, Tx, on_pool, on_tx},
        failed, operations,
    },
    vm::{
        Base, HostId, Milestone, Operation, OperationError, OperationKind, OperationStatus, VmId, VmSpec,
        VmStatus,
    },
};

impl Store {
    /// Notes a milestone; the first time counts.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pass_milestone(
        &self,
        vm: VmId,
        milestone: Milestone,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let sql = pass_sql(milestone);
        let changed = on_pool!(self, db => sqlx::query(sql)
            .bind(vm.uuid())
            .bind(storable(at))
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed("noting a milestone"))?;
        found(changed)
    }

    /// Notes that the power of `generation` was reached; never lowers the mark.
    ///
    /// # Errors
    /// `NotFound`; `Database` for a generation that nobody asked for.
    pub async fn satisfy(&self, vm: VmId, generation: i64) -> Result<(), StoreError> {
        let changed = on_pool!(self, db => sqlx::query(
            "UPDATE vms SET satisfied = CASE WHEN satisfied < $2 THEN $2 ELSE satisfied END WHERE id = $1",
        )
        .bind(vm.uuid())
        .bind(generation)
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed("noting that a generation is satisfied"))?;
        found(changed)
    }

    /// Gives a generation up, in one transaction: it counts as satisfied, nothing more is tried
    /// for it, and the operations that asked for it or for less fail with `error`. Gives those.
    ///
    /// # Errors
    /// `NotFound`; `Database` for a generation that nobody asked for.
    pub async fn give_up(
        &self,
        vm: VmId,
        generation: i64,
        error: &OperationError,
        now: DateTime<Utc>,
    ) -> Result<Vec<Operation>, StoreError> {
        const OPERATION: &str = "giving a request up";
        let mut tx = self.begin(OPERATION).await?;
        lock_vm(&mut tx, OPERATION, vm).await?.ok_or(StoreError::NotFound)?;
        on_tx!(&mut tx, db => sqlx::query(
            "UPDATE vms SET satisfied = CASE WHEN satisfied < $2 THEN $2 ELSE satisfied END,
                            given_up = CASE WHEN given_up < $2 THEN $2 ELSE given_up END
             WHERE id = $1",
        )
        .bind(vm.uuid())
        .bind(generation)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))?;
        let mut failed_operations = Vec::new();
        for id in operations::open_up_to(&mut tx, vm, generation).await? {
            let ended =
                operations::finish(&mut tx, id, OperationStatus::Failed, Some(error.clone()), storable(now));
            failed_operations.extend(ended.await?);
        }
        tx.commit(OPERATION).await?;
        Ok(failed_operations)
    }

    /// Replaces what people are told.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn save_status(&self, vm: VmId, status: &VmStatus) -> Result<(), StoreError> {
        const OPERATION: &str = "saving a VM's status";
        let mut status = status.clone();
        status.last_seen = status.last_seen.map(storable);
        for condition in &mut status.conditions {
            condition.since = storable(condition.since);
        }
        let status = JsonText::write(OPERATION, &status)?;
        let changed = on_pool!(self, db => sqlx::query("UPDATE vms SET status = $2 WHERE id = $1")
            .bind(vm.uuid())
            .bind(&status)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
        .map_err(failed(OPERATION))?;
        found(changed)
    }

    /// Marks what an earlier controller told of this host's VMs as out of date (see
    /// [`VmStatus::aged`]), in one transaction. Once, at start, before anybody is answered.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn age_statuses(&self, host: HostId) -> Result<(), StoreError> {
        const OPERATION: &str = "marking statuses as out of date";
        let bundles = self.load_host(host).await?;
        let mut tx = self.begin(OPERATION).await?;
        for bundle in bundles {
            let Some(status) = bundle.status else { continue };
            let aged = JsonText::write(OPERATION, &status.aged())?;
            on_tx!(&mut tx, db => sqlx::query("UPDATE vms SET status = $2 WHERE id = $1")
                .bind(bundle.record.id.uuid())
                .bind(&aged)
                .execute(db)
                .await
                .map(drop))
            .map_err(failed(OPERATION))?;
        }
        tx.commit(OPERATION).await
    }

    /// Takes the secrets out of the stored specification, with what its installer proved itself with,
    /// and passes `SeedScrubbed`, in one transaction.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn forget_secrets(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        const OPERATION: &str = "forgetting a VM's secrets";
        let mut tx = self.begin(OPERATION).await?;
        let row = lock_vm(&mut tx, OPERATION, vm).await?.ok_or(StoreError::NotFound)?;
        let mut spec: VmSpec = row.spec.read(OPERATION, row.id)?;
        spec.unattended = spec.unattended.without_secrets();
        if let Base::Installation(installation) = &mut spec.base {
            installation.token = None;
        }
        let spec = JsonText::write(OPERATION, &spec)?;
        on_tx!(&mut tx, db => sqlx::query(
            "UPDATE vms SET spec = $2, install_token_sha256 = NULL,
                            seed_scrubbed_at = COALESCE(seed_scrubbed_at, $3)
             WHERE id = $1",
        )
        .bind(vm.uuid())
        .bind(&spec)
        .bind(storable(now))
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))?;
        tx.commit(OPERATION).await?;
        self.empty_write_ahead_log().await;
        Ok(())
    }

    /// Ends a deletion: closes the `Delete` operation as succeeded and removes the VM's row and
    /// resource rows, in one transaction. Command log, errors, metrics, audit and operations stay until
    /// they expire. A VM that is gone already is fine.
    ///
    /// # Errors
    /// `Corrupt`: nobody asked for the VM's deletion.
    pub async fn finish_delete(&self, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
        const OPERATION: &str = "ending a deletion";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let Some(row) = lock_vm(&mut tx, OPERATION, vm).await? else { return Ok(()) };
        if !row.deleting {
            let reason = format!("VM {vm} is not being deleted");
            return Err(StoreError::Corrupt { operation: OPERATION, reason });
        }
        if let Some(open) = operations::newest(&mut tx, vm, OperationKind::Delete).await? {
            operations::finish(&mut tx, open.id, OperationStatus::Succeeded, None, now).await?;
        }
        // There should be none; one that stayed open would be open for ever.
        operations::supersede_all(&mut tx, vm, now).await?;
        remove_rows(&mut tx, OPERATION, vm).await?;
        tx.commit(OPERATION).await?;
        self.empty_write_ahead_log().await;
        Ok(())
    }

    /// SQLite's write-ahead log still holds the pages as they were, secrets included, until it is
    /// written over. PostgreSQL's is the operator's to keep.
    async fn empty_write_ahead_log(&self) {
        let Db::Sqlite(pool) = &self.db else { return };
        match sqlx::query_as::<_, (i64, i64, i64)>("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(pool).await {
            Ok((0, ..)) => {}
            Ok(_) => tracing::debug!("the write-ahead log is in use; it will be written over later"),
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be emptied"),
        }
    }
}

/// Removes a VM and its resources from the database; its history stays.
pub(super) async fn remove_rows(tx: &mut Tx, operation: &'static str, vm: VmId) -> Result<(), StoreError> {
    for sql in ["DELETE FROM resources WHERE vm_id = $1", "DELETE FROM vms WHERE id = $1"] {
        on_tx!(tx, db => sqlx::query(sql).bind(vm.uuid()).execute(db).await.map(drop))
            .map_err(failed(operation))?;
    }
    Ok(())
}

fn found(changed: u64) -> Result<(), StoreError> {
    if changed == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

fn pass_sql(milestone: Milestone) -> &'static str {
    macro_rules! pass {
        ($column:literal) => {
            concat!("UPDATE vms SET ", $column, " = COALESCE(", $column, ", $2) WHERE id = $1")
        };
    }
    match milestone {
        Milestone::DiskCreated => pass!("disk_created_at"),
        Milestone::SeedWritten => pass!("seed_written_at"),
        Milestone::Defined => pass!("defined_at"),
        Milestone::FirstStarted => pass!("first_started_at"),
        Milestone::SystemInstalled => pass!("system_installed_at"),
        Milestone::BootReplaced => pass!("boot_replaced_at"),
        Milestone::FirstSeen => pass!("first_seen_at"),
        Milestone::Installed => pass!("installed_at"),
        Milestone::SeedScrubbed => pass!("seed_scrubbed_at"),
    }
}
