//! What people ask of a VM. Each request is one transaction: the intent, the operation by which
//! it is followed, and the audit row.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    NewVm,
    row::{VmRow, lock_vm},
};
use crate::{
    failpoint::failpoint,
    store::{
        Store, StoreError,
        audit::{self, AuditRow},
        column::{JsonText, Word, storable},
        db::{Tx, on_tx},
        failed, media, operations, seals,
    },
    vm::{
        Base, DesiredPower, Installation, NetworkAttachment, Operation, OperationId, OperationKind,
        OperationStatus, UserId, VmId, VmRecord, VmSpec,
    },
};

impl Store {
    /// Stores the intent (generation 1, `Running`), a `Create` operation and an audit row, in one
    /// transaction. The same id again with the same host, owner, name, image or medium (by name), vcpus,
    /// memory, disk, pool, network, firmware and TPM gives the VM and its `Create` operation as they are now: a
    /// retry. First-boot settings are not compared: a hashed password is never the same twice,
    /// and secrets are forgotten. An id that was a VM's once is never given to another: it would
    /// inherit the history.
    ///
    /// # Errors
    /// `NameTaken`, `IdTaken`, `ImageGone`, `MediumGone`.
    pub async fn create_vm(
        &self,
        vm: &NewVm,
        operation: OperationId,
        now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        const OPERATION: &str = "storing a new VM";
        let now = storable(now);
        let seal = seals::make(&vm.spec).await?;
        let mut tx = self.begin(OPERATION).await?;
        if !insert_vm(&mut tx, vm, DesiredPower::Running, now).await? {
            let Some(row) = lock_vm(&mut tx, OPERATION, vm.id).await? else {
                return Err(StoreError::NameTaken);
            };
            return retried(&mut tx, vm, &row).await;
        }
        if has_history(&mut tx, vm.id).await? {
            return Err(StoreError::IdTaken);
        }
        seals::insert(&mut tx, vm.id, seal.as_ref(), now).await?;
        match &vm.spec.base {
            Base::Image(image) => media::hold_image(&mut tx, vm.host, &image.name).await?,
            Base::Installation(installation) => {
                for disc in std::iter::once(&installation.disc).chain(&installation.drivers) {
                    media::hold_medium(&mut tx, vm.host, &disc.medium).await?;
                }
            }
        }
        let operation = new_operation(operation, vm.id, OperationKind::Create, 1, vm.owner, now);
        operations::insert(&mut tx, &operation).await?;
        let network = match &vm.spec.network {
            NetworkAttachment::Network(name) => name.as_str(),
            NetworkAttachment::User => "(user)",
            NetworkAttachment::None => "(none)",
        };
        audit::record(
            &mut tx,
            &AuditRow {
                at: now,
                user: vm.owner,
                action: "vm.create",
                vm: Some(vm.id),
                details: json!({
                    "name": vm.spec.name, base_word(&vm.spec): vm.spec.base_name(), "vcpus": vm.spec.vcpus,
                    "memory_mib": vm.spec.memory_mib, "disk_bytes": vm.spec.disk_bytes,
                    "pool": vm.spec.pool, "network": network, "firmware": vm.spec.firmware,
                    "tpm": vm.spec.tpm, "operation": operation.id,
                }),
            },
        )
        .await?;
        let record = locked(&mut tx, OPERATION, vm.id).await?.record(OPERATION)?;
        tx.commit(OPERATION).await?;
        failpoint!("create-vm.stored");
        Ok((record, operation))
    }

    /// Asks for a power state: generation + 1, an operation of its kind, an audit row; open
    /// operations for power become `Superseded`. So does an open `Reboot` or `Reset`, but not when
    /// the VM is to run; and an open `Create` when it is to be off for good.
    ///
    /// # Errors
    /// `NotFound`, `Deleting`.
    pub async fn request_power(
        &self,
        vm: VmId,
        power: DesiredPower,
        operation: OperationId,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        const OPERATION: &str = "storing a request for power";
        let now = storable(now);
        let (kind, superseded) = followed_by(power);
        let mut tx = self.begin(OPERATION).await?;
        let row = locked(&mut tx, OPERATION, vm).await?;
        if row.deleting {
            return Err(StoreError::Deleting);
        }
        let mut record = row.record(OPERATION)?;
        record.intent.power = power;
        record.intent.generation += 1;
        record.intent.asked_at = now;
        save_intent(&mut tx, OPERATION, &record).await?;
        operations::supersede(&mut tx, vm, superseded, now).await?;
        let operation = new_operation(operation, vm, kind, record.intent.generation, by, now);
        operations::insert(&mut tx, &operation).await?;
        let details = json!({
            "name": record.spec.name, "power": power.word(),
            "generation": record.intent.generation, "operation": operation.id,
        });
        audit::record(&mut tx, &AuditRow { at: now, user: by, action: "vm.power", vm: Some(vm), details })
            .await?;
        tx.commit(OPERATION).await?;
        failpoint!("power.stored");
        Ok((record, operation))
    }

    /// Asks for deletion; supersedes every other open operation. Asked again, it gives the open
    /// `Delete` operation.
    ///
    /// # Errors
    /// `NotFound`, `Adopted`.
    pub async fn request_delete(
        &self,
        vm: VmId,
        operation: OperationId,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        const OPERATION: &str = "storing a request for deletion";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let mut record = locked(&mut tx, OPERATION, vm).await?.record(OPERATION)?;
        if record.intent.deleting {
            let open = operations::newest(&mut tx, vm, OperationKind::Delete).await?;
            if let Some(open) = open.filter(|operation| !operation.status.is_final()) {
                return Ok((record, open));
            }
        }
        if record.spec.is_adopted() {
            return Err(StoreError::Adopted);
        }
        record.intent.deleting = true;
        record.intent.generation += 1;
        record.intent.asked_at = now;
        save_intent(&mut tx, OPERATION, &record).await?;
        operations::supersede_all(&mut tx, vm, now).await?;
        let operation =
            new_operation(operation, vm, OperationKind::Delete, record.intent.generation, by, now);
        operations::insert(&mut tx, &operation).await?;
        let details = json!({ "name": record.spec.name, "operation": operation.id });
        audit::record(&mut tx, &AuditRow { at: now, user: by, action: "vm.delete", vm: Some(vm), details })
            .await?;
        tx.commit(OPERATION).await?;
        failpoint!("delete-vm.stored");
        Ok((record, operation))
    }
}

/// The kind of an operation that asks for this power, and the kinds that it puts an end to.
pub(super) fn followed_by(power: DesiredPower) -> (OperationKind, &'static [OperationKind]) {
    use OperationKind::{Create, Reboot, Reset, Save, Start, Stop, Suspend};
    match power {
        DesiredPower::Running | DesiredPower::ColdRunning => (Start, &[Start, Stop, Suspend, Save]),
        DesiredPower::Paused => (Suspend, &[Start, Stop, Suspend, Save, Reboot, Reset]),
        DesiredPower::Saved => (Save, &[Start, Stop, Suspend, Save, Reboot, Reset]),
        DesiredPower::Stopped | DesiredPower::ForcedOff => {
            (Stop, &[Start, Stop, Suspend, Save, Create, Reboot, Reset])
        }
    }
}

pub(super) async fn locked(tx: &mut Tx, operation: &'static str, vm: VmId) -> Result<VmRow, StoreError> {
    lock_vm(tx, operation, vm).await?.ok_or(StoreError::NotFound)
}

/// What a VM is made of, in the audit log's words.
fn base_word(spec: &VmSpec) -> &'static str {
    match spec.base {
        Base::Image(_) => "image",
        Base::Installation(_) => "medium",
    }
}

/// Whether the row is new; false when its id or its name is in use.
pub(super) async fn insert_vm(
    tx: &mut Tx,
    vm: &NewVm,
    power: DesiredPower,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    const OPERATION: &str = "storing a new VM";
    let spec = JsonText::write(OPERATION, &vm.spec)?;
    let token = vm.spec.installation().and_then(|installation| installation.token.as_ref());
    let token = token.map(|token| Installation::token_sha256(token.expose()));
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO vms (id, host_id, owner_id, name, spec, power, deleting, generation, satisfied,
                          asked_at, created_at, install_token_sha256)
         VALUES ($1, $2, $3, $4, $5, $6, FALSE, 1, 0, $7, $7, $8)
         ON CONFLICT DO NOTHING",
    )
    .bind(vm.id.uuid())
    .bind(vm.host.uuid())
    .bind(vm.owner.uuid())
    .bind(vm.spec.name.as_str())
    .bind(&spec)
    .bind(power.word())
    .bind(now)
    .bind(&token)
    .execute(db)
    .await
    .map(|done| done.rows_affected() == 1))
    .map_err(failed(OPERATION))
}

/// What an id that exists already means: the same request again, or another one.
async fn retried(tx: &mut Tx, asked: &NewVm, row: &VmRow) -> Result<(VmRecord, Operation), StoreError> {
    let record = row.record("reading a VM that was asked for again")?;
    let (new, old) = (&asked.spec, &record.spec);
    let same = record.host == asked.host
        && record.owner == asked.owner
        && old.name == new.name
        && base_word(old) == base_word(new)
        && old.base_name() == new.base_name()
        && old.vcpus == new.vcpus
        && old.memory_mib == new.memory_mib
        && old.disk_bytes == new.disk_bytes
        && old.pool == new.pool
        && old.network == new.network
        && old.firmware == new.firmware
        && old.tpm == new.tpm;
    if !same {
        return Err(StoreError::IdTaken);
    }
    // The operation expires only once its VM is gone.
    let operation = operations::newest(tx, asked.id, OperationKind::Create).await?;
    Ok((record, operation.ok_or(StoreError::NotFound)?))
}

/// Whether anything is told of an earlier VM with this id. That somebody was refused tells of none: he may
/// have asked for what never was.
pub(super) async fn has_history(tx: &mut Tx, vm: VmId) -> Result<bool, StoreError> {
    on_tx!(tx, db => sqlx::query_scalar::<_, bool>(
        "SELECT EXISTS (SELECT 1 FROM operations WHERE vm_id = $1)
             OR EXISTS (SELECT 1 FROM command_log WHERE vm_id = $1)
             OR EXISTS (SELECT 1 FROM vm_metrics WHERE vm_id = $1)
             OR EXISTS (SELECT 1 FROM vm_errors WHERE vm_id = $1)
             OR EXISTS (SELECT 1 FROM alerts WHERE vm_id = $1)
             OR EXISTS (SELECT 1 FROM audit_log WHERE vm_id = $1 AND outcome = 'done')",
    )
    .bind(vm.uuid())
    .fetch_one(db)
    .await)
    .map_err(failed("looking for an earlier VM with the id"))
}

async fn save_intent(tx: &mut Tx, operation: &'static str, vm: &VmRecord) -> Result<(), StoreError> {
    let intent = &vm.intent;
    on_tx!(tx, db => sqlx::query(
        "UPDATE vms SET power = $2, deleting = $3, generation = $4, asked_at = $5 WHERE id = $1",
    )
    .bind(vm.id.uuid())
    .bind(intent.power.word())
    .bind(intent.deleting)
    .bind(intent.generation)
    .bind(intent.asked_at)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(operation))
}

pub(super) fn new_operation(
    id: OperationId,
    vm: VmId,
    kind: OperationKind,
    generation: i64,
    requested_by: UserId,
    created_at: DateTime<Utc>,
) -> Operation {
    Operation {
        id,
        vm,
        kind,
        status: OperationStatus::Pending,
        progress: 0,
        stage: "accepted".to_owned(),
        error: None,
        change: None,
        effect: None,
        generation,
        requested_by,
        created_at,
        finished_at: None,
    }
}
