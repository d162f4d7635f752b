//! The outbox: which messages are due, and how their delivery went.
//!
//! What is to be told next follows from the row (`Alert::message`), so there is no queue that
//! could disagree with it. After a message arrived, `next_attempt_at` of an open alert is the time
//! at which it is told again.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{DueAlert, Told};
use crate::{
    store::{
        Store, StoreError,
        column::{Word, storable, storable_text},
        db::on_pool,
        failed,
    },
    vm::{Alert, AlertMessage, AlertSeverity, DeliveryState, HostId, VmId},
};

/// Messages looked at for the next to be sent.
const MAX_DUE: i64 = 1000;

impl Store {
    /// Messages that are due: of each VM the first, the worst and oldest before others, at most
    /// 1000.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn due_alerts(&self, host: HostId, now: DateTime<Utc>) -> Result<Vec<DueAlert>, StoreError> {
        const OPERATION: &str = "looking for alerts to be told";
        // A guest's error that did not happen again since it was told is not told again.
        on_pool!(self, db => sqlx::query_as::<_, (Uuid, Option<Uuid>, String, DateTime<Utc>)>(
            "SELECT id, vm_id, severity, next_attempt_at
             FROM (SELECT id, vm_id, severity, next_attempt_at,
                          CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END AS grade,
                          row_number() OVER (PARTITION BY vm_id ORDER BY
                              CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END,
                              next_attempt_at, id) AS turn
                   FROM alerts
                   WHERE host_id = $1 AND next_attempt_at <= $2
                     AND (kind <> 'guest_error' OR count > told_count)) due
             WHERE turn = 1
             ORDER BY grade, next_attempt_at, id LIMIT $3",
        )
        .bind(host.uuid())
        .bind(storable(now))
        .bind(MAX_DUE)
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?
        .into_iter()
        .map(|(id, vm, severity, due_at)| {
            let severity = AlertSeverity::read(OPERATION, &severity)?;
            Ok(DueAlert { id, vm: vm.map(VmId), severity, due_at })
        })
        .collect()
    }

    /// Notes how an attempt to tell `alert`, as it was read for it, ended.
    ///
    /// # Errors
    /// `Database`.
    pub async fn note_told(
        &self,
        alert: &Alert,
        told: &Told,
        now: DateTime<Utc>,
        repeat_after: Duration,
    ) -> Result<(), StoreError> {
        let now = storable(now);
        let repeat_at = TimeDelta::from_std(repeat_after)
            .ok()
            .and_then(|after| now.checked_add_signed(after))
            .map_or(now, storable);
        match told {
            Told::Delivered => self.note_arrived(alert, DeliveryState::Delivered, now, repeat_at).await,
            Told::Suppressed => self.note_arrived(alert, DeliveryState::Suppressed, now, repeat_at).await,
            Told::Retry { error, at } => {
                let next = Some(storable(*at));
                self.note_failed(alert, DeliveryState::Pending, error, now, next).await
            }
            Told::Failed { error } => {
                // It may yet go on, and then somebody should know.
                let next = alert.resolved_at.is_none().then_some(repeat_at);
                self.note_failed(alert, DeliveryState::Failed, error, now, next).await
            }
        }
    }

    async fn note_arrived(
        &self,
        alert: &Alert,
        state: DeliveryState,
        now: DateTime<Utc>,
        repeat_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        // Of a condition that ended while its beginning was told, the end is to be told now; of one
        // that got worse meanwhile, that.
        on_pool!(self, db => sqlx::query(
            "UPDATE alerts
             SET notified = notified + 1, told_count = $3, delivered_at = $4, failing_since = NULL,
                 last_error = NULL,
                 attempts = CASE WHEN resolved_at IS NOT NULL AND kind <> 'guest_error' AND NOT $6 THEN 0
                                 ELSE $8 END,
                 state = CASE WHEN resolved_at IS NOT NULL AND kind <> 'guest_error' AND NOT $6
                              THEN 'pending' ELSE $7 END,
                 next_attempt_at = CASE WHEN $6 THEN NULL
                                        WHEN resolved_at IS NULL AND severity <> $9 THEN $4
                                        WHEN resolved_at IS NULL THEN $5
                                        WHEN kind <> 'guest_error' THEN $4
                                        ELSE NULL END
             WHERE id = $1 AND notified = $2",
        )
        .bind(alert.id)
        .bind(alert.delivery.notified)
        .bind(alert.count)
        .bind(now)
        .bind(repeat_at)
        .bind(alert.message() == AlertMessage::Resolved)
        .bind(state.word())
        .bind(alert.attempts_so_far() + 1)
        .bind(alert.severity.word())
        .execute(db)
        .await
        .map(drop))
        .map_err(failed("noting that an alert arrived"))
    }

    async fn note_failed(
        &self,
        alert: &Alert,
        state: DeliveryState,
        error: &str,
        now: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        // A repetition of what ended meanwhile is of no interest any more.
        on_pool!(self, db => sqlx::query(
            "UPDATE alerts
             SET state = $3, attempts = $4, last_error = $5, failing_since = $6, next_attempt_at = $7
             WHERE id = $1 AND notified = $2 AND NOT ($8 AND resolved_at IS NOT NULL)",
        )
        .bind(alert.id)
        .bind(alert.delivery.notified)
        .bind(state.word())
        .bind(alert.attempts_so_far() + 1)
        .bind(storable_text(error))
        .bind(alert.failing_since(now))
        .bind(next)
        .bind(alert.message() == AlertMessage::Repeated)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed("noting that an alert did not arrive"))
    }

    /// Closes alerts of guests' errors that did not happen again since they were told, once they
    /// would be told again; gives how many.
    ///
    /// # Errors
    /// `Database`.
    pub async fn close_quiet_alerts(&self, host: HostId, now: DateTime<Utc>) -> Result<u64, StoreError> {
        on_pool!(self, db => sqlx::query(
            "UPDATE alerts SET resolved_at = $2, next_attempt_at = NULL
             WHERE host_id = $1 AND kind = 'guest_error' AND resolved_at IS NULL
               AND next_attempt_at <= $2 AND count <= told_count",
        )
        .bind(host.uuid())
        .bind(storable(now))
        .execute(db)
        .await
        .map(|done| done.rows_affected()))
        .map_err(failed("closing alerts of errors that are over"))
    }
}
