//! Alerts about conditions: what is, and what is open about it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{AlertChanges, AlertLook, NewAlert, OpenAlert, WatchedVm, dedup_key};
use crate::{
    store::{
        Store, StoreError,
        column::{JsonText, Word, storable, storable_text},
        db::{Tx, on_pool, on_tx},
        failed,
    },
    vm::{AlertKind, AlertSeverity, DeliveryState, HostId, VmId, chain},
};

/// A VM, an alert that is open about it, or both.
#[derive(Debug, sqlx::FromRow)]
struct LookRow {
    id: Option<Uuid>,
    name: Option<String>,
    status: Option<JsonText>,
    alert_id: Option<Uuid>,
    alert_kind: Option<String>,
    alert_vm: Option<Uuid>,
    alert_severity: Option<String>,
    alert_summary: Option<String>,
}

impl LookRow {
    fn vm(&self) -> Option<WatchedVm> {
        const OPERATION: &str = "reading a VM for alerts";
        let id = self.id?;
        let status = self.status.as_ref().and_then(|status| match status.read(OPERATION, id) {
            Ok(status) => Some(status),
            Err(error) => {
                // The loop says so loudly, and this is read often.
                tracing::debug!(vm = %id, error = chain(&error), "a status cannot be read");
                None
            }
        });
        Some(WatchedVm { id: id.into(), name: self.name.clone().unwrap_or_default(), status })
    }

    fn alert(self, operation: &'static str) -> Result<Option<OpenAlert>, StoreError> {
        let (Some(id), Some(kind), Some(severity)) = (self.alert_id, self.alert_kind, self.alert_severity)
        else {
            return Ok(None);
        };
        Ok(Some(OpenAlert {
            id,
            kind: AlertKind::read(operation, &kind)?,
            vm: self.alert_vm.map(VmId),
            severity: AlertSeverity::read(operation, &severity)?,
            summary: self.alert_summary.unwrap_or_default(),
        }))
    }
}

impl Store {
    /// All VMs of a host with what is told of them, and all open alerts about conditions, in one
    /// statement.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn alert_look(&self, host: HostId) -> Result<AlertLook, StoreError> {
        const OPERATION: &str = "looking for what is alarming";
        let rows = on_pool!(self, db => sqlx::query_as::<_, LookRow>(
            "SELECT v.id, v.name, v.status, a.id AS alert_id, a.kind AS alert_kind, a.vm_id AS alert_vm,
                    a.severity AS alert_severity, a.summary AS alert_summary
             FROM (SELECT id, name, status FROM vms WHERE host_id = $1) v
             FULL JOIN (SELECT id, kind, vm_id, severity, summary FROM alerts
                        WHERE host_id = $1 AND resolved_at IS NULL AND kind <> 'guest_error') a
               ON a.vm_id = v.id
             ORDER BY v.id",
        )
        .bind(host.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        let mut look = AlertLook::default();
        for row in rows {
            // A VM comes once for each of its alerts.
            if look.vms.last().is_none_or(|last| Some(last.id.uuid()) != row.id) {
                look.vms.extend(row.vm());
            }
            look.open.extend(row.alert(OPERATION)?);
        }
        Ok(look)
    }

    /// Makes the changes of a look true, in one transaction. What was changed already is left
    /// alone.
    ///
    /// # Errors
    /// `Database`.
    pub async fn change_alerts(
        &self,
        host: HostId,
        changes: &AlertChanges,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "storing alerts";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        for alert in &changes.opened {
            open(&mut tx, host, alert, now).await?;
        }
        for (id, alert) in &changes.again {
            again(&mut tx, *id, alert, now).await?;
        }
        for id in &changes.resolved {
            resolve(&mut tx, *id, now).await?;
        }
        tx.commit(OPERATION).await
    }
}

async fn open(tx: &mut Tx, host: HostId, alert: &NewAlert, now: DateTime<Utc>) -> Result<(), StoreError> {
    const OPERATION: &str = "opening an alert";
    let (vm, name) = alert.vm.as_ref().map(|(vm, name)| (*vm, name.as_str())).unzip();
    let details = JsonText::write(OPERATION, &alert.details)?;
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO alerts (id, host_id, kind, vm_id, vm_name, dedup_key, severity, summary, details, count,
                             first_at, last_at, state, next_attempt_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10, $11, $10)
         ON CONFLICT (host_id, dedup_key) WHERE resolved_at IS NULL DO NOTHING",
    )
    .bind(Uuid::now_v7())
    .bind(host.uuid())
    .bind(alert.kind.word())
    .bind(vm.map(VmId::uuid))
    .bind(name)
    .bind(dedup_key(alert.kind, vm, ""))
    .bind(alert.severity.word())
    .bind(storable_text(&alert.summary))
    .bind(&details)
    .bind(now)
    .bind(DeliveryState::Pending.word())
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(OPERATION))
}

/// Counts, and says how it is now. Severity only rises while it is open; where it rises, it is
/// told at once.
async fn again(tx: &mut Tx, id: Uuid, alert: &NewAlert, now: DateTime<Utc>) -> Result<(), StoreError> {
    const OPERATION: &str = "noting that an alert goes on";
    let details = JsonText::write(OPERATION, &alert.details)?;
    on_tx!(tx, db => sqlx::query(
        "UPDATE alerts
         SET count = count + 1, last_at = $2, summary = $3, details = $4,
             severity = CASE WHEN severity = 'critical' OR $5 = 'info' THEN severity ELSE $5 END,
             next_attempt_at = CASE WHEN severity <> 'critical' AND $5 = 'critical'
                                         AND state IN ('delivered', 'suppressed') THEN $2
                                    ELSE next_attempt_at END
         WHERE id = $1 AND resolved_at IS NULL",
    )
    .bind(id)
    .bind(now)
    .bind(storable_text(&alert.summary))
    .bind(&details)
    .bind(alert.severity.word())
    .execute(db)
    .await
    .map(drop))
    .map_err(failed(OPERATION))
}

/// Ends an alert. Whoever was told that it began is told that it ended; where the first message
/// is still on its way, the second follows it (see `delivery`).
async fn resolve(tx: &mut Tx, id: Uuid, now: DateTime<Utc>) -> Result<(), StoreError> {
    on_tx!(tx, db => sqlx::query(
        "UPDATE alerts
         SET resolved_at = $2,
             state = CASE WHEN notified > 0 THEN 'pending' ELSE state END,
             attempts = CASE WHEN notified > 0 THEN 0 ELSE attempts END,
             failing_since = CASE WHEN notified > 0 THEN NULL ELSE failing_since END,
             next_attempt_at = CASE WHEN notified > 0 THEN $2
                                    WHEN state = 'failed' THEN NULL
                                    ELSE next_attempt_at END
         WHERE id = $1 AND resolved_at IS NULL",
    )
    .bind(id)
    .bind(now)
    .execute(db)
    .await
    .map(drop))
    .map_err(failed("ending an alert"))
}
