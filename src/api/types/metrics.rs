//! Readings, with the specification's fields.

use std::sync::OnceLock;

use async_graphql::{Json, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::scalars::BigInt,
    store::MetricsRow,
    vm::{FrameText, MetricsSample, Readings, VmId},
};

/// One reading of a guest.
pub(crate) struct VmMetrics {
    id: Uuid,
    vm: VmId,
    timestamp: DateTime<Utc>,
    created_at: DateTime<Utc>,
    readings: Readings,
    frame: FrameText,
    tree: OnceLock<Value>,
}

impl VmMetrics {
    /// Fields that are read from the frame.
    pub(crate) const FRAME_FIELDS: [&str; 5] = ["diskUsage", "networkStats", "processes", "ports", "raw"];

    /// Read once, and only for who asks.
    fn tree(&self) -> &Value {
        self.tree.get_or_init(|| self.frame.tree())
    }

    fn part(&self, name: &str) -> Option<Json<Value>> {
        self.tree().get(name).filter(|part| !part.is_null()).cloned().map(Json)
    }
}

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
        self.readings.memory_used.into()
    }

    /// KiB.
    async fn memory_total(&self) -> BigInt {
        self.readings.memory_total.into()
    }

    /// `disk` of the frame: `usage_stats`, `io_stats`.
    async fn disk_usage(&self) -> Json<Value> {
        self.part("disk").unwrap_or(Json(Value::Object(serde_json::Map::new())))
    }

    /// `network` of the frame: `interfaces`.
    async fn network_stats(&self) -> Json<Value> {
        self.part("network").unwrap_or(Json(Value::Object(serde_json::Map::new())))
    }

    /// The busiest processes. Command lines are redacted.
    async fn processes(&self) -> Option<Json<Value>> {
        self.part("processes")
    }

    /// Open ports.
    async fn ports(&self) -> Option<Json<Value>> {
        self.part("ports")
    }

    /// Everything the frame said of the system.
    async fn raw(&self) -> Json<Value> {
        Json(self.tree().clone())
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
