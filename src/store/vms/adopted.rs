//! VMs whose domains are there before their rows: adopted ones, and those that are restored after
//! the database was lost.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    NewVm,
    requests::{locked, new_operation},
};
use crate::{
    failpoint::failpoint,
    store::{
        Store, StoreError,
        audit::{self, AuditRow, OPERATOR},
        column::{Ids, JsonText, Word, storable},
        db::{Tx, on_pool, on_tx},
        failed, operations,
    },
    vm::{
        DesiredPower, IdentityChange, Milestones, Operation, OperationId, OperationKind, OperationStatus,
        Origin, Resource, ResourceState, UserId, VmChange, VmId, VmRecord,
    },
};

/// A VM whose domain is there.
#[derive(Debug, Clone)]
pub struct FoundVm {
    /// What it is.
    pub vm: NewVm,
    /// The power it was found in, which is what is wanted of it.
    pub power: DesiredPower,
    /// What has happened to it.
    pub milestones: Milestones,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// What was made for it.
    pub resources: Vec<Resource>,
}

impl Store {
    /// Which of these are VMs of any host, in one statement.
    ///
    /// # Errors
    /// `Database`.
    pub async fn known_vms(&self, vms: &[VmId]) -> Result<HashSet<VmId>, StoreError> {
        if vms.is_empty() {
            return Ok(HashSet::new());
        }
        let sql = self.sql(
            "SELECT id FROM vms WHERE id IN (SELECT unhex(value) FROM json_each($1))",
            "SELECT id FROM vms WHERE id = ANY($1)",
        );
        let ids = Ids(vms.iter().map(|vm| vm.uuid()).collect());
        on_pool!(self, db => sqlx::query_scalar::<_, Uuid>(sql).bind(ids).fetch_all(db).await)
            .map_err(failed("looking which domains are VMs"))
            .map(|ids| ids.into_iter().map(VmId).collect())
    }

    /// Stores a VM for a domain that others made, an `Adopt` operation and an audit row, in one
    /// transaction. An id that was adopted and released before is fine: it is the same machine.
    ///
    /// # Errors
    /// `IdTaken`: it is a VM already. `NameTaken`.
    pub async fn adopt_vm(
        &self,
        found: &FoundVm,
        operation: OperationId,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        const OPERATION: &str = "storing an adopted VM";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        insert(&mut tx, OPERATION, found, now).await?;
        let vm = found.vm.id;
        let change = VmChange::Identity(IdentityChange::Adopt);
        let mut operation = new_operation(operation, vm, change.kind(), 1, by, now);
        operation.change = Some(change);
        operations::insert(&mut tx, &operation).await?;
        let details = json!({
            "name": found.vm.spec.name, "owner": found.vm.owner, "operation": operation.id,
        });
        audit::record(&mut tx, &AuditRow { at: now, user: by, action: "vm.adopt", vm: Some(vm), details })
            .await?;
        let record = locked(&mut tx, OPERATION, vm).await?.record(OPERATION)?;
        tx.commit(OPERATION).await?;
        failpoint!("adopt.stored");
        Ok((record, operation))
    }

    /// Stores a VM of ours whose rows were lost, its resources, the operation that once made it and
    /// an audit row, in one transaction. That operation is over, unless the VM is still being
    /// installed.
    ///
    /// # Errors
    /// `IdTaken`: it is a VM already. `NameTaken`.
    pub async fn restore_vm(&self, found: &FoundVm, now: DateTime<Utc>) -> Result<(), StoreError> {
        const OPERATION: &str = "restoring a VM";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        insert(&mut tx, OPERATION, found, now).await?;
        let NewVm { id, owner, spec, .. } = &found.vm;
        for resource in &found.resources {
            insert_resource(&mut tx, *id, resource).await?;
        }
        let kind = match spec.origin {
            Origin::Adopted { .. } => OperationKind::Adopt,
            Origin::Cloned { .. } => OperationKind::Clone,
            Origin::Created => OperationKind::Create,
        };
        let operation = new_operation(OperationId::generate(), *id, kind, 1, *owner, now);
        operations::insert(&mut tx, &operation).await?;
        if found.milestones.installed.is_some() {
            let done = OperationStatus::Succeeded;
            operations::finish(&mut tx, operation.id, done, None, now).await?;
        }
        let details = json!({ "name": spec.name, "owner": owner, "resources": found.resources.len() });
        let row = AuditRow { at: now, user: OPERATOR, action: "vm.restore", vm: Some(*id), details };
        audit::record(&mut tx, &row).await?;
        tx.commit(OPERATION).await
    }
}

/// The row: what is wanted of the VM is what it is.
async fn insert(
    tx: &mut Tx,
    operation: &'static str,
    found: &FoundVm,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let vm = &found.vm;
    let spec = JsonText::write(operation, &vm.spec)?;
    let milestones = &found.milestones;
    let inserted = on_tx!(tx, db => sqlx::query(
        "INSERT INTO vms (id, host_id, owner_id, name, spec, power, deleting, generation, satisfied,
                          asked_at, created_at, disk_created_at, seed_written_at, defined_at,
                          first_started_at, first_seen_at, installed_at, seed_scrubbed_at,
                          system_installed_at, boot_replaced_at)
         VALUES ($1, $2, $3, $4, $5, $6, FALSE, 1, 1, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
         ON CONFLICT DO NOTHING",
    )
    .bind(vm.id.uuid())
    .bind(vm.host.uuid())
    .bind(vm.owner.uuid())
    .bind(vm.spec.name.as_str())
    .bind(&spec)
    .bind(found.power.word())
    .bind(now)
    .bind(storable(found.created_at))
    .bind(milestones.disk_created.map(storable))
    .bind(milestones.seed_written.map(storable))
    .bind(milestones.defined.map(storable))
    .bind(milestones.first_started.map(storable))
    .bind(milestones.first_seen.map(storable))
    .bind(milestones.installed.map(storable))
    .bind(milestones.seed_scrubbed.map(storable))
    .bind(milestones.system_installed.map(storable))
    .bind(milestones.boot_replaced.map(storable))
    .execute(db)
    .await
    .map(|done| done.rows_affected() == 1))
    .map_err(failed(operation))?;
    if inserted {
        return Ok(());
    }
    match super::row::lock_vm(tx, operation, vm.id).await? {
        Some(_) => Err(StoreError::IdTaken),
        None => Err(StoreError::NameTaken),
    }
}

async fn insert_resource(tx: &mut Tx, vm: VmId, resource: &Resource) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO resources (vm_id, kind, place, name, state) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(vm.uuid())
    .bind(resource.kind.word())
    .bind(resource.place.as_str())
    .bind(resource.name.as_str())
    .bind(ResourceState::Created.word())
    .execute(db)
    .await
    .map(drop))
    .map_err(failed("restoring a resource"))
}
