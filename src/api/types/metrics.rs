//! Readings, with the specification's fields.

use std::sync::{LazyLock, OnceLock};

use async_graphql::{Json, Object};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    api::scalars::BigInt,
    store::MetricsRow,
    vm::{FrameText, MetricsSample, Readings, VmId},
};

/// A part that a frame does not have.
static NOTHING: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// One reading of a guest.
pub(crate) struct VmMetrics {
    pub(super) id: Uuid,
    pub(super) vm: VmId,
    pub(super) timestamp: DateTime<Utc>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) readings: Readings,
    frame: FrameText,
    tree: OnceLock<Value>,
}

impl VmMetrics {
    /// Fields that are read from the frame.
    pub(crate) const FRAME_FIELDS: [&str; 5] = ["diskUsage", "networkStats", "processes", "ports", "raw"];

    pub(super) fn memory_used_number(&self) -> BigInt {
        self.readings.memory_used.into()
    }

    pub(super) fn memory_total_number(&self) -> BigInt {
        self.readings.memory_total.into()
    }

    /// Read once, and only for who asks.
    fn tree(&self) -> &Value {
        self.tree.get_or_init(|| self.frame.tree())
    }

    fn part(&self, name: &str) -> Option<Json<&Value>> {
        self.tree().get(name).filter(|part| !part.is_null()).map(Json)
    }
}

/// One reading of a guest.
#[Object]
impl VmMetrics {
    /// Its id.
    async fn id(&self) -> Uuid {
        self.id
    }

    /// Whose.
    async fn vm_id(&self) -> Uuid {
        self.vm.uuid()
    }

    /// Per cent, 0 to 100.
    async fn cpu_usage(&self) -> f64 {
        self.readings.cpu_usage
    }

    /// KiB.
    async fn memory_used(&self) -> BigInt {
        self.memory_used_number()
    }

    /// KiB.
    async fn memory_total(&self) -> BigInt {
        self.memory_total_number()
    }

    /// `disk` of the frame: `usage_stats`, `io_stats`.
    async fn disk_usage(&self) -> Json<&Value> {
        self.part("disk").unwrap_or(Json(&NOTHING))
    }

    /// `network` of the frame: `interfaces`.
    async fn network_stats(&self) -> Json<&Value> {
        self.part("network").unwrap_or(Json(&NOTHING))
    }

    /// Of all disks together, bytes per second; null where the guest did not tell.
    async fn disk_read(&self) -> Option<f64> {
        self.readings.disk.map(|disk| disk.read)
    }

    /// Of all disks together, bytes per second; null where the guest did not tell.
    async fn disk_written(&self) -> Option<f64> {
        self.readings.disk.map(|disk| disk.written)
    }

    /// Of all interfaces but loopback, bytes per second; null where no two readings in a row told.
    async fn network_received(&self) -> Option<f64> {
        self.readings.network.map(|network| network.received)
    }

    /// Of all interfaces but loopback, bytes per second; null where no two readings in a row told.
    async fn network_sent(&self) -> Option<f64> {
        self.readings.network.map(|network| network.sent)
    }

    /// The busiest processes. Command lines are redacted.
    async fn processes(&self) -> Option<Json<&Value>> {
        self.part("processes")
    }

    /// Open ports.
    async fn ports(&self) -> Option<Json<&Value>> {
        self.part("ports")
    }

    /// Everything the frame said of the system.
    async fn raw(&self) -> Json<&Value> {
        Json(self.tree())
    }

    /// The guest's clock.
    async fn timestamp(&self) -> DateTime<Utc> {
        self.timestamp
    }

    /// Ours.
    async fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }
}

impl From<MetricsRow> for VmMetrics {
    fn from(row: MetricsRow) -> Self {
        Self {
            id: row.id,
            vm: row.vm,
            timestamp: row.timestamp,
            created_at: row.created_at,
            readings: row.readings,
            frame: row.frame,
            tree: OnceLock::new(),
        }
    }
}

impl From<&MetricsSample> for VmMetrics {
    fn from(sample: &MetricsSample) -> Self {
        Self {
            id: sample.id,
            vm: sample.vm,
            timestamp: sample.timestamp,
            created_at: sample.received_at,
            readings: sample.readings,
            frame: sample.frame.clone(),
            tree: OnceLock::new(),
        }
    }
}
