//! VMs that are made as copies: the copy, its operation and the loan of the VM that is copied are
//! stored in one transaction.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    NewVm,
    requests::{has_history, insert_vm, locked, new_operation},
    row::{VmRow, lock_vm},
};
use crate::{
    failpoint::failpoint,
    store::{
        Store, StoreError,
        audit::{self, AuditRow},
        column::storable,
        db::{Tx, on_tx},
        failed, media, operations, seals,
    },
    vm::{
        DesiredPower, HostId, LendChange, NetworkAttachment, Operation, OperationId, OperationKind, UserId,
        VmChange, VmId, VmName, VmRecord, VmSpec,
    },
};

/// A copy to be stored.
#[derive(Debug, Clone)]
pub struct NewClone {
    /// Made by us, or given by the client so that a retry is safe.
    pub id: VmId,
    /// The controller's host.
    pub host: HostId,
    /// Who asked, and whose it will be.
    pub owner: UserId,
    /// The VM that is copied.
    pub from: VmId,
    /// Its name.
    pub name: VmName,
    /// Its network, where it is not the copied one's.
    pub network: Option<NetworkAttachment>,
    /// The power that it is to have once it is made.
    pub power: DesiredPower,
}

impl Store {
    /// Stores a copy (generation 1) as `make` writes it down from the VM that is copied, as that is in
    /// this transaction; a `Clone` operation; that VM's loan with its `Lend` operation; and an audit row
    /// for each. The same id again with the same host, owner, name and copied VM, and the same network
    /// where one is given, gives the copy and its operation as they are now: a retry.
    ///
    /// # Errors
    /// Of the copy: `NameTaken`, `IdTaken`. Of the VM that is copied: `NotFound`, `Deleting`,
    /// `ChangeUnderWay`, `Adopted`.
    pub async fn clone_vm(
        &self,
        clone: &NewClone,
        make: impl FnOnce(&VmRecord) -> VmSpec + Send,
        now: DateTime<Utc>,
    ) -> Result<(VmRecord, Operation), StoreError> {
        const OPERATION: &str = "storing a copy of a VM";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        if let Some(row) = lock_vm(&mut tx, OPERATION, clone.id).await? {
            return retried(&mut tx, clone, &row).await;
        }
        let row = locked(&mut tx, OPERATION, clone.from).await?;
        if row.deleting {
            return Err(StoreError::Deleting);
        }
        if let Some(open) = operations::open_change(&mut tx, clone.from).await? {
            return Err(StoreError::ChangeUnderWay(Box::new(open)));
        }
        let source = row.record(OPERATION)?;
        if source.spec.is_adopted() {
            return Err(StoreError::Adopted);
        }
        let vm = NewVm { id: clone.id, host: clone.host, owner: clone.owner, spec: make(&source) };
        if !insert_vm(&mut tx, &vm, clone.power, now).await? {
            let Some(row) = lock_vm(&mut tx, OPERATION, vm.id).await? else {
                return Err(StoreError::NameTaken);
            };
            return retried(&mut tx, clone, &row).await;
        }
        if has_history(&mut tx, vm.id).await? {
            return Err(StoreError::IdTaken);
        }
        // One of its own. What is on the copied disk names the machine that it is for, and is not used.
        seals::insert(&mut tx, vm.id, seals::make(&vm.spec).await?.as_ref(), now).await?;
        if let Some(image) = vm.spec.image() {
            media::hold_image(&mut tx, vm.host, &image.name).await?;
        }
        if vm.spec.installation().is_some() {
            skip_installer(&mut tx, vm.id, now).await?;
        }
        let operation = new_operation(OperationId::generate(), vm.id, OperationKind::Clone, 1, vm.owner, now);
        operations::insert(&mut tx, &operation).await?;
        let change = VmChange::Lend(LendChange { to: vm.id, still: false });
        let generation = source.intent.generation;
        let mut loan =
            new_operation(OperationId::generate(), source.id, change.kind(), generation, vm.owner, now);
        loan.change = Some(change);
        operations::insert(&mut tx, &loan).await?;
        for (action, id, details) in [
            (
                "vm.clone",
                vm.id,
                json!({ "name": vm.spec.name, "from": source.id, "operation": operation.id }),
            ),
            ("vm.lend", source.id, json!({ "name": source.spec.name, "to": vm.id, "operation": loan.id })),
        ] {
            audit::record(&mut tx, &AuditRow { at: now, user: vm.owner, action, vm: Some(id), details })
                .await?;
        }
        let record = locked(&mut tx, OPERATION, vm.id).await?.record(OPERATION)?;
        tx.commit(OPERATION).await?;
        failpoint!("clone-vm.stored");
        Ok((record, operation))
    }
}

/// Of a system that an installer put onto the disk, nothing is left to be installed.
async fn skip_installer(tx: &mut Tx, vm: VmId, now: DateTime<Utc>) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query("UPDATE vms SET system_installed_at = $2, boot_replaced_at = $2 WHERE id = $1")
        .bind(vm.uuid())
        .bind(now)
        .execute(db)
        .await
        .map(drop))
    .map_err(failed("storing a copy of an installed VM"))
}

/// What an id that exists already means: the same request again, or another one.
async fn retried(tx: &mut Tx, asked: &NewClone, row: &VmRow) -> Result<(VmRecord, Operation), StoreError> {
    let record = row.record("reading a copy that was asked for again")?;
    let same = record.host == asked.host
        && record.owner == asked.owner
        && record.spec.cloned_from() == Some(asked.from)
        && record.spec.name == asked.name
        && asked.network.as_ref().is_none_or(|network| *network == record.spec.network);
    if !same {
        return Err(StoreError::IdTaken);
    }
    let operation = operations::newest(tx, asked.id, OperationKind::Clone).await?;
    Ok((record, operation.ok_or(StoreError::NotFound)?))
}
