//! Readings into SQLite: one transaction, of statements of many rows.
//!
//! Nearly every batch is new as a whole. How many rows a statement stored tells whether it was, and
//! costs nothing; which ones they were is asked for only where some were there already, in another
//! transaction.

use std::{collections::HashSet, sync::LazyLock};

use sqlx::{
    AssertSqlSafe, Row as _, Sqlite, SqliteConnection, SqlitePool,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use uuid::Uuid;

use super::{
    packed::PackedSample,
    rollup::{self, Rollup},
};

/// Rows per statement. A full one has one text and stays prepared; it has 2,700 parameters at most,
/// of some 32,000.
const ROWS: usize = 100;

const INSERT: &str = "INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used, memory_total,
                                              disk_read, disk_written, network_received, network_sent,
                                              created_at, frame) ";
const INSERT_COLUMNS: usize = 12;
const UNLESS_THERE: &str = " ON CONFLICT DO NOTHING";
const TELL_NEW: &str = " ON CONFLICT DO NOTHING RETURNING id";

/// A key, three counts, and three numbers of each of seven fields.
const ROLLUP_COLUMNS: usize = 27;

static FULL_INSERT: LazyLock<String> = LazyLock::new(|| text(INSERT, INSERT_COLUMNS, ROWS, UNLESS_THERE));
static FULL_ROLLUP: LazyLock<String> =
    LazyLock::new(|| text(&rollup::INSERT, ROLLUP_COLUMNS, ROWS, &rollup::ADD));

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Stores what is not there yet, and adds that to the roll-ups.
pub(super) async fn insert(pool: &SqlitePool, samples: &[PackedSample]) -> Result<(), sqlx::Error> {
    if insert_new(pool, samples).await? { Ok(()) } else { insert_rest(pool, samples).await }
}

/// Stores all of them, or nothing and gives false: some are there already.
async fn insert_new(pool: &SqlitePool, samples: &[PackedSample]) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    for some in samples.chunks(ROWS) {
        let statement = if some.len() == ROWS {
            sqlx::query(FULL_INSERT.as_str())
        } else {
            once(text(INSERT, INSERT_COLUMNS, some.len(), UNLESS_THERE))
        };
        let stored = some.iter().fold(statement, bind_sample).execute(&mut *tx).await?.rows_affected();
        if stored != some.len() as u64 {
            tx.rollback().await?;
            return Ok(false);
        }
    }
    add_rollups(&mut tx, samples.iter()).await?;
    tx.commit().await?;
    Ok(true)
}

/// Stores those that are not there.
async fn insert_rest(pool: &SqlitePool, samples: &[PackedSample]) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let mut new = HashSet::new();
    for some in samples.chunks(ROWS) {
        let statement = once(text(INSERT, INSERT_COLUMNS, some.len(), TELL_NEW));
        let id = |row: SqliteRow| row.try_get::<Uuid, _>(0);
        new.extend(some.iter().fold(statement, bind_sample).try_map(id).fetch_all(&mut *tx).await?);
    }
    // Removed when seen: a sample that stands in the batch twice counts once.
    add_rollups(&mut tx, samples.iter().filter(|sample| new.remove(&sample.id))).await?;
    tx.commit().await
}

/// Each row of the roll-ups is written once, whatever number of readings falls into it.
async fn add_rollups<'a>(
    connection: &mut SqliteConnection,
    samples: impl Iterator<Item = &'a PackedSample>,
) -> Result<(), sqlx::Error> {
    let rollups: Vec<_> = rollup::fold(samples).into_iter().collect();
    for some in rollups.chunks(ROWS) {
        let statement = if some.len() == ROWS {
            sqlx::query(FULL_ROLLUP.as_str())
        } else {
            once(text(&rollup::INSERT, ROLLUP_COLUMNS, some.len(), &rollup::ADD))
        };
        some.iter().fold(statement, bind_rollup).execute(&mut *connection).await?;
    }
    Ok(())
}

/// `head VALUES (?, …), … tail`.
fn text(head: &str, columns: usize, rows: usize, tail: &str) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("{head} VALUES {} {tail}", vec![row.as_str(); rows].join(","))
}

/// Each number of rows is another text: not worth a place in the statement cache. Only words of
/// ours stand in it.
fn once<'q>(text: String) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(text)).persistent(false)
}

fn bind_sample<'q>(statement: Statement<'q>, sample: &'q PackedSample) -> Statement<'q> {
    let readings = &sample.readings;
    statement
        .bind(sample.id)
        .bind(sample.vm.uuid())
        .bind(sample.timestamp)
        .bind(readings.cpu_usage)
        .bind(readings.memory_used)
        .bind(readings.memory_total)
        .bind(readings.disk.map(|disk| disk.read))
        .bind(readings.disk.map(|disk| disk.written))
        .bind(readings.network.map(|network| network.received))
        .bind(readings.network.map(|network| network.sent))
        .bind(sample.received_at)
        .bind(sample.frame.as_slice())
}

fn bind_rollup<'q>(
    statement: Statement<'q>,
    ((vm, width, at), rollup): &'q (rollup::Key, Rollup),
) -> Statement<'q> {
    let counted = statement
        .bind(*vm)
        .bind(*width)
        .bind(*at)
        .bind(rollup.count)
        .bind(rollup.disk_count)
        .bind(rollup.network_count);
    rollup.lines.iter().fold(counted, |statement, line| {
        statement
            .bind(line.map(|line| line.min))
            .bind(line.map(|line| line.sum))
            .bind(line.map(|line| line.max))
    })
}
