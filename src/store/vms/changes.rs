//! Changes beyond power and end: asked for in one transaction, ended in another.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    ChangeOutcome,
    progress::remove_rows,
    requests::{followed_by, locked, new_operation},
    row::lock_vm,
};
use crate::{
    store::{
        Store, StoreError,
        audit::{self, AuditRow},
        column::{JsonText, Word, storable},
        db::on_tx,
        failed, media, operations,
    },
    vm::{
        DeviceChange, DiscSource, Operation, OperationId, OperationStatus, UserId, VmChange, VmId, VmRecord,
    },
};

impl Store {
    /// Asks for a change: an operation that carries it, and an audit row. At most one change of a
    /// VM is under way.
    ///
    /// # Errors
    /// `NotFound`, `Deleting`, `ChangeUnderWay`; `MediumGone`.
    pub async fn request_change(
        &self,
        vm: VmId,
        change: &VmChange,
        operation: OperationId,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        const OPERATION: &str = "storing a request for a change";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let row = locked(&mut tx, OPERATION, vm).await?;
        if row.deleting {
            return Err(StoreError::Deleting);
        }
        if let Some(open) = operations::open_change(&mut tx, vm).await? {
            return Err(StoreError::ChangeUnderWay(Box::new(open)));
        }
        let record = row.record(OPERATION)?;
        if let VmChange::Device(DeviceChange::InsertMedium { source, .. }) = change {
            match source {
                DiscSource::Library { medium } => media::hold_medium(&mut tx, record.host, medium).await?,
                DiscSource::Volume { volume, .. } => media::hold_volume(&mut tx, record.host, volume).await?,
            }
        }
        let mut operation = new_operation(operation, vm, change.kind(), record.intent.generation, by, now);
        operation.change = Some(change.clone());
        operations::insert(&mut tx, &operation).await?;
        let details = json!({ "name": record.spec.name, "change": change, "operation": operation.id });
        audit::record(&mut tx, &AuditRow { at: now, user: by, action: "vm.change", vm: Some(vm), details })
            .await?;
        tx.commit(OPERATION).await?;
        Ok((record, operation))
    }

    /// Writes down how far a change has come, before it goes on. One that is ended stays as it is.
    ///
    /// # Errors
    /// The database's.
    pub async fn note_change(&self, operation: OperationId, change: &VmChange) -> Result<(), StoreError> {
        const OPERATION: &str = "noting how far a change has come";
        let mut tx = self.begin(OPERATION).await?;
        operations::note_change(&mut tx, operation, change).await?;
        tx.commit(OPERATION).await
    }

    /// Ends a change that was carried out, together with what it made of the VM. Gives the
    /// operation as it is now; one that is ended already, and its VM, stay as they are.
    ///
    /// # Errors
    /// `NameTaken`, for a new name.
    pub async fn finish_change(
        &self,
        vm: VmId,
        operation: OperationId,
        outcome: &ChangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        const OPERATION: &str = "ending a change";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let Some(row) = lock_vm(&mut tx, OPERATION, vm).await? else {
            return self.operation(operation).await;
        };
        if let Some(effect) = outcome.effect {
            operations::note_effect(&mut tx, operation, effect).await?;
        }
        let ended = operations::finish(&mut tx, operation, OperationStatus::Succeeded, None, now).await?;
        let Some(ended) = ended else {
            drop(tx);
            return self.operation(operation).await;
        };
        if outcome.released {
            operations::supersede_all(&mut tx, vm, now).await?;
            remove_rows(&mut tx, OPERATION, vm).await?;
            tx.commit(OPERATION).await?;
            return Ok(Some(ended));
        }
        let mut record = row.record(OPERATION)?;
        if let Some(spec) = &outcome.spec {
            record.spec = spec.clone();
        }
        // Whoever asked for power since is heard.
        if let Some(power) = outcome.power.filter(|_| record.intent.generation == ended.generation) {
            record.intent.power = power;
            // What was asked for before is beside the point, and must not be told to be reached.
            operations::supersede(&mut tx, vm, followed_by(power).1, now).await?;
        }
        let spec = JsonText::write(OPERATION, &record.spec)?;
        on_tx!(&mut tx, db => sqlx::query("UPDATE vms SET name = $2, spec = $3, power = $4 WHERE id = $1")
            .bind(vm.uuid())
            .bind(record.spec.name.as_str())
            .bind(&spec)
            .bind(record.intent.power.word())
            .execute(db)
            .await
            .map(drop))
        .map_err(|error| match &error {
            sqlx::Error::Database(source) if source.is_unique_violation() => StoreError::NameTaken,
            _ => failed(OPERATION)(error),
        })?;
        tx.commit(OPERATION).await?;
        Ok(Some(ended))
    }
}
