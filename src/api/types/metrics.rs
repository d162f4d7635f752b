//! Readings, with the specification's fields.

use async_graphql::{Json, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::scalars::BigInt,
    store::MetricsRow,
    vm::{MetricsSample, VmId},
};

/// One reading of a guest.
pub(crate) struct VmMetrics {
    id: Uuid,
    vm: VmId,
    timestamp: DateTime<Utc>,
    created_at: DateTime<Utc>,
    cpu_usage: f64,
    memory_used: i64,
    memory_total: i64,
    system: Value,
}

impl VmMetrics {
    /// Fields that are read from the frame.
    pub(crate) const FRAME_FIELDS: [&str; 5] = ["diskUsage", "networkStats", "processes", "ports", "raw"];

    fn part(&self, name: &str) -> Option<Json<Value>> {
        self.system.get(name).filter(|part| !part.is_null()).cloned().map(Json)
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
        self.cpu_usage
    }

    /// KiB.
    async fn memory_used(&self) -> BigInt {
        self.memory_used.into()
    }

    /// KiB.
    async fn memory_total(&self) -> BigInt {
        self.memory_total.into()
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
        Json(self.system.clone())
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
            cpu_usage: row.cpu_usage,
            memory_used: row.memory_used,
            memory_total: row.memory_total,
            system: row.system,
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
            cpu_usage: sample.cpu_usage,
            memory_used: sample.memory_used,
            memory_total: sample.memory_total,
            system: sample.system.clone(),
        }
    }
}
