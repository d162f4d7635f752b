//! Readings. What is charted stands in typed columns; the frame's `data.system` stands there once
//! more, whole and compressed, so that a reading costs a third of what JSON columns would.

mod frame;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt, stream};
use sqlx::{PgPool, QueryBuilder, SqlitePool};
use uuid::Uuid;

use self::frame::{StoredSample, unpack};
use super::{
    Store, StoreError,
    column::{Ids, storable},
    db::{Db, on_pool},
    failed,
};
use crate::vm::{FrameText, MetricsSample, Readings, VmId};

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
    system: Vec<u8>,
}

#[derive(Debug, sqlx::FromRow)]
struct BareRow {
    id: Uuid,
    vm_id: Uuid,
    timestamp: DateTime<Utc>,
    cpu_usage: f64,
    memory_used: i64,
    memory_total: i64,
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

/// Rows per statement on SQLite, which allows some 32,000 parameters.
const SQLITE_ROWS: usize = 500;

/// One row is one place in each of ten arrays, so that a batch of any size is one statement of
/// one text.
const INSERT_POSTGRES: &str =
    "INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used, memory_total,
                             disk_usage, network_stats, system, created_at)
     SELECT id, vm_id, timestamp, cpu_usage, memory_used, memory_total,
            disk_usage::json, network_stats::json, system, created_at
     FROM UNNEST($1::uuid[], $2::uuid[], $3::timestamptz[], $4::float8[], $5::int8[], $6::int8[],
                 $7::text[], $8::text[], $9::bytea[], $10::timestamptz[])
          AS batch (id, vm_id, timestamp, cpu_usage, memory_used, memory_total,
                    disk_usage, network_stats, system, created_at)
     ON CONFLICT DO NOTHING";

const INSERT_SQLITE: &str = "INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used,
                              memory_total, disk_usage, network_stats, system, created_at) ";

impl Store {
    /// Stores a batch in one statement (PostgreSQL) or one transaction (SQLite). A sample whose
    /// id is stored already is left alone, so a batch may be sent again.
    ///
    /// # Errors
    /// `Database`; nothing of the batch was stored then.
    pub async fn insert_metrics(&self, samples: &[MetricsSample]) -> Result<(), StoreError> {
        let mut stored = Vec::with_capacity(samples.len());
        for some in samples.chunks(FRAMES_AT_ONCE) {
            for sample in some {
                stored.push(StoredSample::pack(sample)?);
            }
            tokio::task::yield_now().await;
        }
        if stored.is_empty() {
            return Ok(());
        }
        match &self.db {
            Db::Postgres(pool) => insert_postgres(pool, stored).await,
            Db::Sqlite(pool) => insert_sqlite(pool, stored).await,
        }
        .map_err(failed("storing readings"))
    }

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
            "SELECT id, vm_id, timestamp, cpu_usage, memory_used, memory_total, created_at, system
             FROM vm_metrics WHERE vm_id = $1 AND timestamp >= $2
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
            "SELECT id, vm_id, timestamp, cpu_usage, memory_used, memory_total, created_at
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
        macro_rules! latest {
            ($list:literal, $vm:literal) => {
                concat!(
                    "SELECT m.id, m.vm_id, m.timestamp, m.cpu_usage, m.memory_used, m.memory_total,
                            m.created_at, m.system
                     FROM ",
                    $list,
                    " JOIN vm_metrics m ON m.id = (SELECT id FROM vm_metrics WHERE vm_id = ",
                    $vm,
                    " ORDER BY timestamp DESC, id DESC LIMIT 1)"
                )
            };
        }
        let sql = self.sql(
            latest!("json_each($1) AS wanted", "unhex(wanted.value)"),
            latest!("UNNEST($1) AS wanted (id)", "wanted.id"),
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
        let (frame, tree) = unpack(&self.system).map_err(|reason| StoreError::Corrupt {
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
                disk: None,
                network: None,
            },
            created_at: self.created_at,
            frame,
        }
    }
}

async fn insert_postgres(pool: &PgPool, rows: Vec<StoredSample>) -> Result<(), sqlx::Error> {
    let mut columns = Columns::default();
    for row in rows {
        columns.push(row);
    }
    sqlx::query(INSERT_POSTGRES)
        .bind(columns.id)
        .bind(columns.vm)
        .bind(columns.timestamp)
        .bind(columns.cpu_usage)
        .bind(columns.memory_used)
        .bind(columns.memory_total)
        .bind(columns.disk_usage)
        .bind(columns.network_stats)
        .bind(columns.system)
        .bind(columns.created_at)
        .execute(pool)
        .await?;
    Ok(())
}

#[derive(Default)]
struct Columns {
    id: Vec<Uuid>,
    vm: Vec<Uuid>,
    timestamp: Vec<DateTime<Utc>>,
    cpu_usage: Vec<f64>,
    memory_used: Vec<i64>,
    memory_total: Vec<i64>,
    disk_usage: Vec<Option<String>>,
    network_stats: Vec<Option<String>>,
    system: Vec<Vec<u8>>,
    created_at: Vec<DateTime<Utc>>,
}

impl Columns {
    fn push(&mut self, row: StoredSample) {
        self.id.push(row.id);
        self.vm.push(row.vm);
        self.timestamp.push(row.timestamp);
        self.cpu_usage.push(row.cpu_usage);
        self.memory_used.push(row.memory_used);
        self.memory_total.push(row.memory_total);
        self.disk_usage.push(row.disk_usage);
        self.network_stats.push(row.network_stats);
        self.system.push(row.system);
        self.created_at.push(row.created_at);
    }
}

/// One transaction of multi-row statements.
async fn insert_sqlite(pool: &SqlitePool, mut rows: Vec<StoredSample>) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    while !rows.is_empty() {
        let some = rows.drain(..rows.len().min(SQLITE_ROWS));
        let mut sql = QueryBuilder::new(INSERT_SQLITE);
        sql.push_values(some, |mut values, row| {
            values
                .push_bind(row.id)
                .push_bind(row.vm)
                .push_bind(row.timestamp)
                .push_bind(row.cpu_usage)
                .push_bind(row.memory_used)
                .push_bind(row.memory_total)
                .push_bind(row.disk_usage)
                .push_bind(row.network_stats)
                .push_bind(row.system)
                .push_bind(row.created_at);
        });
        sql.push(" ON CONFLICT DO NOTHING");
        // Each number of rows is another text: not worth a place in the statement cache.
        sql.build().persistent(false).execute(&mut *tx).await?;
    }
    tx.commit().await
}
