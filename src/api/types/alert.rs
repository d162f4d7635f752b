//! Alerts, and how the telling of them fares.

use async_graphql::{Enum, Json, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::scalars::BigInt,
    vm::{Alert, AlertKind, AlertSeverity, DeliveryState, VmId},
};

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "AlertKind", name = "AlertKind")]
pub(crate) enum AlertKindName {
    /// A guest reported an error. Closes once it did not happen for `alerts.repeat_after`.
    GuestError,
    /// A VM that should be heard is not: its agent is silent, it crashed, or its domain is gone.
    VmOffline,
    /// A first boot takes longer than it should.
    InstallStuck,
    /// A guest's clock is so far off that its readings are refused.
    ClockSkew,
    /// Readings were dropped, because they could be stored nowhere.
    ReadingsLost,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "AlertSeverity", name = "AlertSeverity")]
pub(crate) enum AlertSeverityName {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody should look now.
    Critical,
}

/// How the newest message about an alert fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "DeliveryState", name = "AlertDeliveryState")]
pub(crate) enum DeliveryStateName {
    /// To be sent, or sent again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Given up.
    Failed,
    /// There is no receiver: it went to the log alone.
    Suppressed,
}

/// How the telling of an alert fares.
#[derive(Debug, SimpleObject)]
#[graphql(name = "AlertDelivery")]
pub(crate) struct DeliveryObject {
    /// Of the newest message.
    state: DeliveryStateName,
    /// Attempts at the newest message.
    attempts: BigInt,
    /// When the next attempt is due, or the next message; null: nothing more is told.
    next_attempt_at: Option<DateTime<Utc>>,
    /// Why the last attempt failed; for admins.
    last_error: Option<String>,
    /// When a message last arrived.
    delivered_at: Option<DateTime<Utc>>,
    /// Messages that arrived.
    notified: BigInt,
}

/// Something that operators were told without asking.
#[derive(Debug, SimpleObject)]
#[graphql(name = "Alert")]
pub(crate) struct AlertObject {
    /// The row.
    id: Uuid,
    /// What it is about.
    kind: AlertKindName,
    /// How bad it is, at its worst.
    severity: AlertSeverityName,
    /// Which VM, which may be gone; null: the host.
    vm_id: Option<Uuid>,
    /// The VM's name.
    vm_name: Option<String>,
    /// One line.
    summary: String,
    /// What else there is to know.
    details: Json<Value>,
    /// How often it happened since it is open.
    count: BigInt,
    /// When it first happened.
    first_at: DateTime<Utc>,
    /// When it last happened.
    last_at: DateTime<Utc>,
    /// When it ended; null: it is open.
    resolved_at: Option<DateTime<Utc>>,
    /// Who knows of it.
    delivery: DeliveryObject,
}

impl AlertObject {
    /// The receiver is the operators' affair: why it did not take a message is for `admin`s.
    pub(crate) fn new(alert: Alert, admin: bool) -> Self {
        Self {
            id: alert.id,
            kind: alert.kind.into(),
            severity: alert.severity.into(),
            vm_id: alert.vm.map(VmId::uuid),
            vm_name: alert.vm_name,
            summary: alert.summary,
            details: Json(alert.details),
            count: alert.count.into(),
            first_at: alert.first_at,
            last_at: alert.last_at,
            resolved_at: alert.resolved_at,
            delivery: DeliveryObject {
                state: alert.delivery.state.into(),
                attempts: alert.delivery.attempts.into(),
                next_attempt_at: alert.delivery.next_attempt_at,
                last_error: alert.delivery.last_error.filter(|_| admin),
                delivered_at: alert.delivery.delivered_at,
                notified: alert.delivery.notified.into(),
            },
        }
    }
}
