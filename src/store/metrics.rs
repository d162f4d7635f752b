//! Readings.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::vm::{MetricsSample, VmId};

/// A stored reading.
#[derive(Debug, Clone)]
pub struct MetricsRow {
    /// The sample's id.
    pub id: Uuid,
    /// The VM.
    pub vm: VmId,
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// Per cent.
    pub cpu_usage: f64,
    /// KiB.
    pub memory_used: i64,
    /// KiB.
    pub memory_total: i64,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// The whole `data.system` object, as it came.
    pub system: serde_json::Value,
}

impl Store {
    /// Stores a batch in one statement (PostgreSQL) or one transaction (SQLite). A sample whose
    /// id is stored already is left alone, so a batch may be sent again.
    pub async fn insert_metrics(&self, _samples: &[MetricsSample]) -> Result<(), StoreError> {
        todo!()
    }

    /// Readings of a VM not older than `since`, newest first, at most `limit`.
    pub async fn metrics(
        &self,
        _vm: VmId,
        _since: DateTime<Utc>,
        _limit: u32,
    ) -> Result<Vec<MetricsRow>, StoreError> {
        todo!()
    }

    /// The newest reading of each VM, in one statement.
    pub async fn latest_metrics(&self, _vms: &[VmId]) -> Result<HashMap<VmId, MetricsRow>, StoreError> {
        todo!()
    }

    /// Removes readings older than `before`; gives how many.
    pub async fn expire_metrics(&self, _before: DateTime<Utc>) -> Result<u64, StoreError> {
        todo!()
    }
}
