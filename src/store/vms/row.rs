//! Between a row of `vms` and what it means.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::VmView;
use crate::{
    store::{
        StoreError,
        column::{JsonText, Word, words},
        db::{Tx, on_tx},
        failed, seals,
    },
    vm::{DesiredPower, InstallReport, Milestones, SealKey, VmId, VmIntent, VmRecord},
};

words!(DesiredPower {
    Running => "running",
    ColdRunning => "cold_running",
    Stopped => "stopped",
    ForcedOff => "forced_off",
    Paused => "paused",
    Saved => "saved",
});

#[derive(Debug, sqlx::FromRow)]
pub(super) struct VmRow {
    pub(super) id: Uuid,
    host_id: Uuid,
    owner_id: Uuid,
    pub(super) spec: JsonText,
    power: String,
    pub(super) deleting: bool,
    generation: i64,
    satisfied: i64,
    given_up: i64,
    asked_at: DateTime<Utc>,
    disk_created_at: Option<DateTime<Utc>>,
    seed_written_at: Option<DateTime<Utc>>,
    defined_at: Option<DateTime<Utc>>,
    first_started_at: Option<DateTime<Utc>>,
    system_installed_at: Option<DateTime<Utc>>,
    boot_replaced_at: Option<DateTime<Utc>>,
    install_stage: Option<String>,
    install_reported_at: Option<DateTime<Utc>>,
    first_seen_at: Option<DateTime<Utc>>,
    installed_at: Option<DateTime<Utc>>,
    seed_scrubbed_at: Option<DateTime<Utc>>,
    status: Option<JsonText>,
    created_at: DateTime<Utc>,
    /// Only where it is asked for.
    #[sqlx(default)]
    seal_key: Option<KeyBytes>,
}

/// A seal's key as it is stored, never shown.
#[derive(sqlx::Type)]
#[sqlx(transparent)]
struct KeyBytes(Vec<u8>);

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyBytes(***)")
    }
}

impl VmRow {
    pub(super) fn record(&self, operation: &'static str) -> Result<VmRecord, StoreError> {
        Ok(VmRecord {
            id: self.id.into(),
            host: self.host_id.into(),
            owner: self.owner_id.into(),
            spec: self.spec.read(operation, self.id)?,
            intent: VmIntent {
                power: DesiredPower::read(operation, &self.power)?,
                deleting: self.deleting,
                generation: self.generation,
                satisfied: self.satisfied,
                given_up: self.given_up,
                asked_at: self.asked_at,
            },
            milestones: Milestones {
                disk_created: self.disk_created_at,
                seed_written: self.seed_written_at,
                defined: self.defined_at,
                first_started: self.first_started_at,
                system_installed: self.system_installed_at,
                boot_replaced: self.boot_replaced_at,
                first_seen: self.first_seen_at,
                installed: self.installed_at,
                seed_scrubbed: self.seed_scrubbed_at,
            },
            created_at: self.created_at,
        })
    }

    /// What its channel is sealed with.
    pub(super) fn seal(&self, operation: &'static str) -> Result<Option<SealKey>, StoreError> {
        self.seal_key.as_ref().map(|key| seals::read(operation, self.id.into(), &key.0)).transpose()
    }

    /// What the VM's installer last said.
    fn install_report(&self) -> Option<InstallReport> {
        let (stage, at) = (self.install_stage.clone()?, self.install_reported_at?);
        Some(InstallReport { stage, at })
    }

    pub(super) fn view(&self, operation: &'static str) -> Result<VmView, StoreError> {
        let status = self.status.as_ref().map(|status| status.read(operation, self.id)).transpose()?;
        Ok(VmView { record: self.record(operation)?, status, install_report: self.install_report() })
    }
}

/// Reads a VM's row and keeps others from changing it until the transaction ends: every change of
/// a VM and of its operations begins here, so that changes of one VM come one after the other.
pub(super) async fn lock_vm(
    tx: &mut Tx,
    operation: &'static str,
    vm: VmId,
) -> Result<Option<VmRow>, StoreError> {
    // SQLite's transaction holds the whole database's write lock already.
    let sql = tx.sql("SELECT * FROM vms WHERE id = $1", "SELECT * FROM vms WHERE id = $1 FOR UPDATE");
    on_tx!(tx, db => sqlx::query_as::<_, VmRow>(sql).bind(vm.uuid()).fetch_optional(db).await)
        .map_err(failed(operation))
}
