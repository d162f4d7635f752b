//! Readings. What is charted stands in typed columns; the frame's `data.system` stands there once
//! more, whole and compressed, so that a reading costs a third of what JSON columns would.

mod insert;
mod packed;
pub(super) mod partitions;
pub(super) mod rollup;
mod sqlite;
mod wire;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt, stream};
use uuid::Uuid;

pub use self::packed::PackedSample;
use self::packed::unpack;
use super::{
    Store, StoreError,
    column::{Ids, storable},
    db::on_pool,
    failed,
};
use crate::vm::{DiskRates, FrameText, NetworkRates, Readings, VmId};

/// A stored reading.
#[derive(Debug, Clone)]
pub struct MetricsRow {
    /// The sample's id.
    pub id: Uuid,
    /// The VM.
    pub vm: VmId,
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// What is charted.
    pub readings: Readings,
    /// When it was received.
    pub created_at: DateTime<Utc>,
    /// The whole `data.system` object, as it came; `null` where it was not asked for.
    pub frame: FrameText,
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    bare: BareRow,
    frame: Vec<u8>,
}

#[derive(Debug, sqlx::FromRow)]
struct BareRow {
    id: Uuid,
    vm_id: Uuid,
    timestamp: DateTime<Utc>,
    cpu_usage: f64,
    memory_used: i64,
    memory_total: i64,
    disk_read: Option<f64>,
    disk_written: Option<f64>,
    network_received: Option<f64>,
    network_sent: Option<f64>,
    created_at: DateTime<Utc>,
}

/// Frames packed or unpacked between two chances for other tasks: about a millisecond's work.
const FRAMES_AT_ONCE: usize = 16;

/// Readings given at once at most: three days and a half at one every 30 s.
const MAX_READINGS: u32 = 10_000;

/// Frames given at once at most, as text. A day of ordinary ones fits; a guest that sends large
/// ones gets fewer of them back instead of all our memory.
const MAX_FRAME_BYTES: usize = 24 << 20;

/// What they may take in memory, which is far more, and least like the text where a guest means
/// harm. A day of ordinary ones fits into this, too.
const MAX_FRAME_TREE: usize = 384 << 20;

impl Store {
    /// Readings of a VM not older than `since`, newest first: at most `limit`, never more than
    /// 10,000, and never more than 24 MiB of frames, which are unpacked in memory, nor more than
    /// take 384 MiB there.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn metrics(
        &self,
        vm: VmId,
        since: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<MetricsRow>, StoreError> {
        const OPERATION: &str = "reading a VM's readings";
        on_pool!(self, db => within(OPERATION, sqlx::query_as::<_, Row>(
            "SELECT * FROM vm_metrics WHERE vm_id = $1 AND timestamp >= $2
             ORDER BY timestamp DESC, id DESC LIMIT $3",
        )
        .bind(vm.uuid())
        .bind(storable(since))
        .bind(i64::from(limit.min(MAX_READINGS)))
        .fetch(db), MAX_FRAME_BYTES, MAX_FRAME_TREE)
        .await)
    }

    /// The same readings without their frames: `frame` is `null`. For charts, which need a
    /// hundredth of the memory.
    ///
    /// # Errors
    /// `Database`.
    pub async fn metrics_without_frames(
        &self,
        vm: VmId,
        since: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<MetricsRow>, StoreError> {
        let rows = on_pool!(self, db => sqlx::query_as::<_, BareRow>(
            "SELECT id, vm_id, timestamp, cpu_usage, memory_used, memory_total, disk_read,
                    disk_written, network_received, network_sent, created_at
             FROM vm_metrics WHERE vm_id = $1 AND timestamp >= $2
             ORDER BY timestamp DESC, id DESC LIMIT $3",
        )
        .bind(vm.uuid())
        .bind(storable(since))
        .bind(i64::from(limit.min(MAX_READINGS)))
        .fetch_all(db)
        .await)
        .map_err(failed("reading a VM's readings without frames"))?;
        Ok(rows.into_iter().map(|row| row.with(FrameText::new("null"))).collect())
    }

    /// The newest reading of each VM, in one statement.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn latest_metrics(&self, vms: &[VmId]) -> Result<HashMap<VmId, MetricsRow>, StoreError> {
        const OPERATION: &str = "reading the latest readings";
        if vms.is_empty() {
            return Ok(HashMap::new());
        }
        // One seek per VM: the index ends with its newest.
        let sql = self.sql(
            "SELECT m.* FROM json_each($1) AS wanted
             JOIN vm_metrics m ON m.rowid = (SELECT rowid FROM vm_metrics
                                             WHERE vm_id = unhex(wanted.value)
                                             ORDER BY timestamp DESC, id DESC LIMIT 1)",
            "SELECT m.* FROM UNNEST($1) AS wanted (vm)
             CROSS JOIN LATERAL (SELECT * FROM vm_metrics WHERE vm_id = wanted.vm
                                 ORDER BY timestamp DESC, id DESC LIMIT 1) AS m",
        );
        let ids = Ids(vms.iter().map(|vm| vm.uuid()).collect());
        let rows = on_pool!(self, db => sqlx::query_as::<_, Row>(sql).bind(ids).fetch_all(db).await)
            .map_err(failed(OPERATION))?;
        Ok(read(OPERATION, rows).await?.into_iter().map(|row| (row.vm, row)).collect())
    }
}

/// The first rows whose frames are no more than `max_bytes` of text and `max_tree` bytes in memory
/// together, and always the first.
async fn within(
    operation: &'static str,
    rows: impl Stream<Item = Result<Row, sqlx::Error>>,
    max_bytes: usize,
    max_tree: usize,
) -> Result<Vec<MetricsRow>, StoreError> {
    let mut rows = std::pin::pin!(rows);
    let (mut read, mut bytes, mut tree) = (Vec::new(), 0_usize, 0_usize);
    while let Some(row) = rows.next().await {
        let (row, row_bytes, row_tree) = row.map_err(failed(operation))?.unpack(operation)?;
        bytes += row_bytes;
        tree += row_tree;
        if (bytes > max_bytes || tree > max_tree) && !read.is_empty() {
            break;
        }
        read.push(row);
        if read.len() % FRAMES_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(read)
}

async fn read(operation: &'static str, rows: Vec<Row>) -> Result<Vec<MetricsRow>, StoreError> {
    within(operation, stream::iter(rows.into_iter().map(Ok)), usize::MAX, usize::MAX).await
}

impl Row {
    /// With its frame, the size of that as text and what it takes in memory.
    fn unpack(self, operation: &'static str) -> Result<(MetricsRow, usize, usize), StoreError> {
        let (frame, tree) = unpack(&self.frame).map_err(|reason| StoreError::Corrupt {
            operation,
            reason: format!("row {}: {reason}", self.bare.id),
        })?;
        let bytes = frame.as_str().len();
        Ok((self.bare.with(frame), bytes, tree))
    }
}

impl BareRow {
    fn with(self, frame: FrameText) -> MetricsRow {
        MetricsRow {
            id: self.id,
            vm: self.vm_id.into(),
            timestamp: self.timestamp,
            readings: Readings {
                cpu_usage: self.cpu_usage,
                memory_used: self.memory_used,
                memory_total: self.memory_total,
                disk: self
                    .disk_read
                    .zip(self.disk_written)
                    .map(|(read, written)| DiskRates { read, written }),
                network: self
                    .network_received
                    .zip(self.network_sent)
                    .map(|(received, sent)| NetworkRates { received, sent }),
            },
            created_at: self.created_at,
            frame,
        }
    }
}
