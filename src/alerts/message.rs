//! What is sent about an alert. Part of the contract with receivers (`docs/OPERATIONS.md`).

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::vm::Alert;

/// The body of the message that is to be told next.
pub(super) fn body(alert: &Alert, now: DateTime<Utc>) -> Value {
    let vm = alert.vm.map(|vm| json!({ "id": vm, "name": alert.vm_name }));
    json!({
        "id": alert.message_id(),
        "type": alert.message().name(),
        "timestamp": now,
        "data": {
            "alertId": alert.id,
            "kind": alert.kind,
            "severity": alert.severity,
            "vm": vm,
            "summary": alert.summary,
            "details": alert.details,
            "count": alert.count,
            "firstAt": alert.first_at,
            "lastAt": alert.last_at,
            "resolvedAt": alert.resolved_at,
            "host": alert.host,
        },
    })
}
