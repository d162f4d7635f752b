//! What the VMs' channels are sealed with. A key is stored in the transaction that stores its VM, so that
//! the medium that carries it is never made of one that nobody knows; it goes with the VM's row.

use chrono::{DateTime, Utc};
use tokio::io::AsyncReadExt;

use super::{
    StoreError,
    db::{Tx, on_tx},
    failed,
};
use crate::vm::{SealKey, VmId, VmSpec};

/// A new key, for a VM that can be given one: by a medium that installs our agent. Before the transaction
/// is begun.
pub(super) async fn make(spec: &VmSpec) -> Result<Option<SealKey>, StoreError> {
    if !spec.is_given_a_seal() {
        return Ok(None);
    }
    let mut random = [0; 32];
    let read = async {
        tokio::fs::File::open("/dev/urandom").await?.read_exact(&mut random).await?;
        Ok(())
    };
    read.await.map_err(|error: std::io::Error| failed("making a seal's key")(sqlx::Error::Io(error)))?;
    Ok(Some(SealKey::new(random)))
}

/// Stores the key of a VM that is stored in the same transaction.
pub(super) async fn insert(
    tx: &mut Tx,
    vm: VmId,
    key: Option<&SealKey>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    on_tx!(tx, db => sqlx::query("INSERT INTO vm_seals (vm_id, key, created_at) VALUES ($1, $2, $3)")
        .bind(vm.uuid())
        .bind(key.expose().as_slice())
        .bind(now)
        .execute(db)
        .await
        .map(drop))
    .map_err(failed("storing a seal's key"))
}

/// A key as it is stored.
pub(super) fn read(operation: &'static str, vm: VmId, bytes: &[u8]) -> Result<SealKey, StoreError> {
    SealKey::of(bytes).ok_or_else(|| StoreError::Corrupt {
        operation,
        reason: format!("the seal's key of VM {vm} has not 32 bytes"),
    })
}
