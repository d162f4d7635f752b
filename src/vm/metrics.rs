//! One reading of a guest, once decoded.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::VmId;

/// A valid metrics frame. What is charted stands in typed fields; the frame itself goes along
/// once, as it came, so that nothing a newer agent says is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSample {
    /// Unique, made on receipt: a flush that is tried again stores it once.
    pub id: Uuid,
    /// The VM, by its socket; never by what the message claims.
    pub vm: VmId,
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// Our clock, on receipt.
    pub received_at: DateTime<Utc>,
    /// Per cent, 0 to 100.
    pub cpu_usage: f64,
    /// KiB.
    pub memory_used: i64,
    /// KiB.
    pub memory_total: i64,
    /// `data.system` of the frame, as an object.
    pub system: serde_json::Value,
}
