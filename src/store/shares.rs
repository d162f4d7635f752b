//! Parts in others' VMs.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, AuditRow},
    column::{Word, storable},
    db::{on_pool, on_tx},
    failed,
};
use crate::{
    access::Share,
    vm::{UserId, VmId},
};

/// Those whom one VM can be shared with.
const MAX_SHARES: i64 = 100;

/// Somebody's part in a VM.
#[derive(Debug, Clone)]
pub struct VmShare {
    /// Who.
    pub user: UserId,
    /// His name.
    pub user_name: String,
    /// What part.
    pub share: Share,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

impl Store {
    /// Gives a user a part in a VM, or another one, or takes it away; with an audit row, in one transaction.
    ///
    /// # Errors
    /// `NotFound`: there is no such VM, or no such user; `TooMany`.
    pub async fn share_vm(
        &self,
        vm: VmId,
        user: UserId,
        share: Option<Share>,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "sharing a VM";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let done = match share {
            Some(share) => on_tx!(&mut tx, db => sqlx::query(
                "INSERT INTO vm_shares (vm_id, user_id, share, created_at)
                 SELECT v.id, u.id, $3, $4 FROM vms v, users u WHERE v.id = $1 AND u.id = $2
                 ON CONFLICT (vm_id, user_id) DO UPDATE SET share = excluded.share",
            )
            .bind(vm.uuid())
            .bind(user.uuid())
            .bind(share.word())
            .bind(now)
            .execute(db)
            .await
            .map(|done| done.rows_affected())),
            None => on_tx!(&mut tx, db => sqlx::query(
                "DELETE FROM vm_shares WHERE vm_id = $1 AND user_id = $2",
            )
            .bind(vm.uuid())
            .bind(user.uuid())
            .execute(db)
            .await
            .map(|done| done.rows_affected())),
        }
        .map_err(failed(OPERATION))?;
        let known = match share {
            Some(_) => done > 0,
            None => on_tx!(&mut tx, db => sqlx::query_scalar::<_, i32>("SELECT 1 FROM users WHERE id = $1")
                .bind(user.uuid())
                .fetch_optional(db)
                .await)
            .map_err(failed(OPERATION))?
            .is_some(),
        };
        if !known {
            return Err(StoreError::NotFound);
        }
        let count = on_tx!(&mut tx, db => sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM vm_shares WHERE vm_id = $1",
        )
        .bind(vm.uuid())
        .fetch_one(db)
        .await)
        .map_err(failed(OPERATION))?;
        if share.is_some() && count > MAX_SHARES {
            return Err(StoreError::TooMany);
        }
        // Said twice, nothing is written twice.
        if done > 0 {
            let action = if share.is_some() { "vm.share" } else { "vm.unshare" };
            let details = json!({ "user": user, "share": share });
            audit::record(&mut tx, &AuditRow { at: now, user: by, action, vm: Some(vm), details }).await?;
        }
        tx.commit(OPERATION).await
    }

    /// Who has a part in a VM, by name.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn shares(&self, vm: VmId) -> Result<Vec<VmShare>, StoreError> {
        const OPERATION: &str = "reading whom a VM is shared with";
        on_pool!(self, db => sqlx::query_as::<_, (Uuid, String, String, DateTime<Utc>)>(
            "SELECT s.user_id, u.name, s.share, s.created_at
             FROM vm_shares s JOIN users u ON u.id = s.user_id
             WHERE s.vm_id = $1 ORDER BY u.name",
        )
        .bind(vm.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?
        .into_iter()
        .map(|(user, user_name, share, created_at)| {
            Ok(VmShare { user: user.into(), user_name, share: Share::read(OPERATION, &share)?, created_at })
        })
        .collect()
    }
}
