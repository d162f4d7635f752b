//! Readings into the database: once each, however often they are sent, and folded into the
//! roll-ups in the same breath.

use std::{collections::BTreeSet, sync::LazyLock};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::{packed::PackedSample, rollup, sqlite};
use crate::{
    store::{Store, StoreError, db::Db, failed},
    vm::MetricsSample,
};

/// One row is one place in each of twelve arrays, so that a batch of any size is one statement of
/// one text. What was there already is not returned, and so not folded.
static INSERT_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH new AS (
             INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used, memory_total,
                                     disk_read, disk_written, network_received, network_sent,
                                     frame, created_at)
             SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::timestamptz[], $4::float8[], $5::int8[],
                                  $6::int8[], $7::float8[], $8::float8[], $9::float8[], $10::float8[],
                                  $11::bytea[], $12::timestamptz[])
             ON CONFLICT DO NOTHING
             RETURNING vm_id, timestamp, cpu_usage, memory_used, memory_total,
                       disk_read, disk_written, network_received, network_sent)
         {} {} {}",
        *rollup::INSERT,
        *rollup::FOLD,
        *rollup::ADD
    )
});

/// PostgreSQL's word for a row that no partition takes; also for a broken CHECK.
const CHECK_VIOLATION: &str = "23514";

impl Store {
    /// Packs and stores a batch; see [`Store::insert_packed`]. One who has many packs them
    /// himself, while the batch before is stored.
    ///
    /// # Errors
    /// `Database`: nothing of the batch was stored. `Corrupt`: a frame could not be compressed.
    pub async fn insert_metrics(&self, samples: &[MetricsSample]) -> Result<(), StoreError> {
        const OPERATION: &str = "compressing readings";
        let samples = samples.to_vec();
        let packing = tokio::task::spawn_blocking(move || PackedSample::pack(&samples));
        let corrupt = |reason| StoreError::Corrupt { operation: OPERATION, reason };
        let (packed, failed) = packing.await.map_err(|error| corrupt(error.to_string()))?;
        if let Some(id) = failed.first() {
            return Err(corrupt(format!("of {id}")));
        }
        self.insert_packed(&packed).await
    }

    /// Stores a batch in one statement (PostgreSQL) or one transaction (SQLite), and adds it to
    /// the roll-ups. A sample that is stored already is left alone and not added again, so a batch
    /// may be sent as often as it takes.
    ///
    /// # Errors
    /// `Database`; nothing of the batch was stored then.
    pub async fn insert_packed(&self, samples: &[PackedSample]) -> Result<(), StoreError> {
        if samples.is_empty() {
            return Ok(());
        }
        match &self.db {
            Db::Postgres(pool) => self.insert_postgres(pool, samples).await,
            Db::Sqlite(pool) => sqlite::insert(pool, samples).await,
        }
        .map_err(failed("storing readings"))
    }

    async fn insert_postgres(&self, pool: &PgPool, samples: &[PackedSample]) -> Result<(), sqlx::Error> {
        let days: BTreeSet<_> = samples.iter().map(|sample| sample.timestamp.date_naive()).collect();
        self.make_days(pool, &days).await?;
        let columns = Columns::of(samples);
        let stored = sqlx::query(INSERT_POSTGRES.as_str())
            .bind(columns.id)
            .bind(columns.vm)
            .bind(columns.timestamp)
            .bind(columns.cpu_usage)
            .bind(columns.memory_used)
            .bind(columns.memory_total)
            .bind(columns.disk_read)
            .bind(columns.disk_written)
            .bind(columns.network_received)
            .bind(columns.network_sent)
            .bind(columns.frame)
            .bind(columns.received_at)
            .execute(pool)
            .await;
        if let Err(sqlx::Error::Database(error)) = &stored
            && error.code().is_some_and(|code| code == CHECK_VIOLATION)
        {
            // A day may have been dropped by somebody else: the next attempt looks for it.
            self.days.forget();
        }
        stored.map(drop)
    }
}

/// Rows by VM and time: neighbours go to neighbouring places of the index, and two batches that
/// hold the same rows take them in the same order.
#[derive(Default)]
struct Columns<'a> {
    id: Vec<Uuid>,
    vm: Vec<Uuid>,
    timestamp: Vec<DateTime<Utc>>,
    cpu_usage: Vec<f64>,
    memory_used: Vec<i64>,
    memory_total: Vec<i64>,
    disk_read: Vec<Option<f64>>,
    disk_written: Vec<Option<f64>>,
    network_received: Vec<Option<f64>>,
    network_sent: Vec<Option<f64>>,
    frame: Vec<&'a [u8]>,
    received_at: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn of(samples: &'a [PackedSample]) -> Self {
        let mut rows: Vec<_> = samples.iter().collect();
        rows.sort_unstable_by_key(|row| (row.vm.uuid(), row.timestamp, row.id));
        let mut columns = Self::default();
        for row in rows {
            columns.push(row);
        }
        columns
    }

    fn push(&mut self, row: &'a PackedSample) {
        self.id.push(row.id);
        self.vm.push(row.vm.uuid());
        self.timestamp.push(row.timestamp);
        self.cpu_usage.push(row.readings.cpu_usage);
        self.memory_used.push(row.readings.memory_used);
        self.memory_total.push(row.readings.memory_total);
        self.disk_read.push(row.readings.disk.map(|disk| disk.read));
        self.disk_written.push(row.readings.disk.map(|disk| disk.written));
        self.network_received.push(row.readings.network.map(|network| network.received));
        self.network_sent.push(row.readings.network.map(|network| network.sent));
        self.frame.push(&row.frame);
        self.received_at.push(row.received_at);
    }
}
