//! Between a row of `alerts` and what it means.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    store::{
        StoreError,
        column::{JsonText, Word},
    },
    vm::{Alert, AlertKind, AlertSeverity, Delivery, DeliveryState, VmId},
};

#[derive(Debug, sqlx::FromRow)]
pub(super) struct AlertRow {
    id: Uuid,
    host_id: Uuid,
    kind: String,
    vm_id: Option<Uuid>,
    vm_name: Option<String>,
    severity: String,
    summary: String,
    details: JsonText,
    count: i64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    state: String,
    attempts: i64,
    next_attempt_at: Option<DateTime<Utc>>,
    failing_since: Option<DateTime<Utc>>,
    last_error: Option<String>,
    delivered_at: Option<DateTime<Utc>>,
    notified: i64,
}

impl AlertRow {
    pub(super) fn read(self, operation: &'static str) -> Result<Alert, StoreError> {
        Ok(Alert {
            details: self.details.read(operation, self.id)?,
            id: self.id,
            host: self.host_id.into(),
            kind: AlertKind::read(operation, &self.kind)?,
            vm: self.vm_id.map(VmId),
            vm_name: self.vm_name,
            severity: AlertSeverity::read(operation, &self.severity)?,
            summary: self.summary,
            count: self.count,
            first_at: self.first_at,
            last_at: self.last_at,
            resolved_at: self.resolved_at,
            delivery: Delivery {
                state: DeliveryState::read(operation, &self.state)?,
                attempts: self.attempts,
                next_attempt_at: self.next_attempt_at,
                failing_since: self.failing_since,
                last_error: self.last_error,
                delivered_at: self.delivered_at,
                notified: self.notified,
            },
        })
    }
}
