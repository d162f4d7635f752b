//! Who asked for what. Rows are written inside the transaction of what they tell about.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{
    StoreError,
    column::JsonText,
    db::{Tx, on_tx},
    failed,
};
use crate::vm::{UserId, VmId};

/// Who changes users and tokens: the host's operator, by command line. He is no user of the API,
/// and the nil UUID is nobody else's.
pub(super) const OPERATOR: UserId = UserId(Uuid::nil());

/// One thing that somebody asked for.
pub(super) struct AuditRow {
    /// When.
    pub(super) at: DateTime<Utc>,
    /// Who.
    pub(super) user: UserId,
    /// What: `vm.create`, `vm.clone`, `vm.lend`, `vm.power`, `vm.change`, `vm.delete`, `vm.command`,
    /// `vm.adopt`, `medium.import`, `medium.cancel`, `medium.delete`; of the [`OPERATOR`] `vm.restore`,
    /// `medium.restore`, `user.add`, `token.issue`, `token.revoke`.
    pub(super) action: &'static str,
    /// Of which VM.
    pub(super) vm: Option<VmId>,
    /// An object without secrets.
    pub(super) details: Value,
}

pub(super) async fn record(tx: &mut Tx, row: &AuditRow) -> Result<(), StoreError> {
    const OPERATION: &str = "writing the audit log";
    let details = JsonText::write(OPERATION, &row.details)?;
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO audit_log (id, at, user_id, action, vm_id, details) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(Uuid::now_v7())
    .bind(row.at)
    .bind(row.user.uuid())
    .bind(row.action)
    .bind(row.vm.map(VmId::uuid))
    .bind(&details)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(OPERATION))
}
