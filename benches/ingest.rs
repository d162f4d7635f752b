//! How fast readings get from guests into the database, whole, against what loads the same frames in
//! the simplest way.
//!
//! PostgreSQL, with its default settings and `fsync` on, from 100 and from 1,000 links: (a) `psql`'s
//! `\copy` into the specification's literal table, (b) one thread that decodes, redacts and compresses
//! the frames and then lets the server COPY the very rows we store, (c) the space of both tables.
//! SQLite: the store's insert against a prepared insert of the same rows in one transaction.
//! The rivals run in turn, and their times are added over the rounds.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use common::{
    cluster::Cluster,
    figures::{Figures, say},
    fleet::FleetProcess,
    frames::{GuestLines, bare, decode_and_redact, of_fleet},
    literal,
    pipeline::{FRAMES_PER_SECOND, Pipeline},
    sized,
    stage::ids,
};
use infinibay::{
    store::Store,
    vm::{FrameText, MetricsSample, Readings, Redactor, VmId},
};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use uuid::Uuid;

const ROUNDS: usize = 2;
const LITERAL_BOUND: f64 = 3.0;
const BARE_BOUND: f64 = 0.6;
const SPACE_BOUND: f64 = 0.5;
const SQLITE_BOUND: f64 = 0.6;

/// All is sent, and there is no new row for so long: what is missing is lost.
const NOTHING_NEW: Duration = Duration::from_secs(15);
/// One round takes no longer.
const PATIENCE: Duration = Duration::from_secs(300);
/// Guests whose stored frames are compared with what they sent.
const COMPARED: usize = 5;

#[tokio::main]
async fn main() {
    let frames = sized("INFINIBAY_BENCH_FRAMES", 20_000);
    let mut figures = Figures::of("ingest");
    let cluster = Cluster::start();
    postgres(&mut figures, &cluster, 100, frames).await;
    postgres(&mut figures, &cluster, 1_000, frames).await;
    drop(cluster);
    sqlite(&mut figures, frames).await;
    figures.tell();
}

/// What the rounds took, and what is where after them.
#[derive(Default)]
struct Sums {
    literal: Duration,
    ours: Duration,
    bare: Duration,
    literal_bytes: i64,
    our_bytes: i64,
    rows: usize,
    lost: usize,
}

async fn postgres(figures: &mut Figures, cluster: &Cluster, links: usize, frames: usize) {
    let each = frames / links;
    let mut sums = Sums::default();
    for round in 0..ROUNDS {
        let seed = (links * 1000 + round * 100_000) as u64;
        let vms = ids(links, seed);
        let lines = of_fleet(&vms, seed, each);
        let name = format!("ingest_{links}_{round}");
        cluster.database(&name).await;

        let file = cluster.scratch("literal.copy");
        literal::write(&lines, &file);
        cluster.psql(&name, literal::CREATE);
        let begun = Instant::now();
        cluster.psql(&name, &format!("\\copy literal FROM '{}'", file.display()));
        let literal = begun.elapsed();
        std::fs::remove_file(file).unwrap();

        let (ours, stored) = ingest(cluster, &name, &vms, &lines, seed).await;
        let bare = bare_loop(cluster, &name, &lines).await;
        sums.literal_bytes += size(cluster, &name, "literal").await;
        sums.our_bytes += size(cluster, &name, "vm_metrics").await;
        sums.literal += literal;
        sums.ours += ours;
        sums.bare += bare;
        sums.rows += stored;
        sums.lost += links * each - stored;
        say(format!(
            "{links} links, round {}: \\copy {literal:.2?}, ours {ours:.2?}, bare {bare:.2?}",
            round + 1
        ));
        let mut admin = cluster.connect("postgres").await;
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
            .execute(&mut admin)
            .await
            .unwrap();
    }
    tell(figures, links, links * each * ROUNDS, &sums);
}

#[expect(clippy::cast_precision_loss, reason = "some ten thousand rows")]
fn tell(figures: &mut Figures, links: usize, sent: usize, sums: &Sums) {
    let names = if links == 100 {
        ["ingest_100_vs_copy", "ingest_100_vs_bare", "ingest_100_space", "ingest_100_lost"]
    } else {
        ["ingest_1000_vs_copy", "ingest_1000_vs_bare", "ingest_1000_space", "ingest_1000_lost"]
    };
    let rate = |rows: usize, took: Duration| rows as f64 / took.as_secs_f64();
    let (ours, literal, bare) = (rate(sums.rows, sums.ours), rate(sent, sums.literal), rate(sent, sums.bare));
    let note = format!(
        "{ours:.0} rows/s against {literal:.0} of \\copy; {links} links, {sent} frames in {ROUNDS} rounds, \
         links held to {FRAMES_PER_SECOND} frames/s each"
    );
    figures.at_least(names[0], ours / literal, "x", LITERAL_BOUND, note);
    let note = format!("{ours:.0} rows/s against {bare:.0} of one thread and COPY");
    figures.at_least(names[1], ours / bare, "x", BARE_BOUND, note);
    let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    // Lost rows take no space: reckoned per row.
    let space = (mib(sums.our_bytes) / sums.rows as f64) / (mib(sums.literal_bytes) / sent as f64);
    let note = format!("{:.0} MiB against {:.0} MiB", mib(sums.our_bytes), mib(sums.literal_bytes));
    figures.at_most(names[2], space, "x", SPACE_BOUND, note);
    figures.at_most(
        names[3],
        sums.lost as f64,
        "frames",
        0.0,
        format!("of {sent}; those of {COMPARED} guests compared word by word"),
    );
}

/// From the fleet through links, readings and store; how long until all rows are there, and how many
/// that are.
async fn ingest(
    cluster: &Cluster,
    database: &str,
    vms: &[Uuid],
    lines: &[GuestLines],
    seed: u64,
) -> (Duration, usize) {
    let sent: usize = lines.iter().map(|guest| guest.lines.len()).sum();
    let store = Store::open(&cluster.url(database), 10, Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let guests: Vec<_> = vms.iter().map(|&vm| (vm, "well-behaved")).collect();
    let (seed, total) = (seed.to_string(), sent.to_string());
    let fleet = FleetProcess::start(
        dir.path(),
        &guests,
        &["--interval-ms", "0", "--seed", &seed, "--frames-total", &total, "--keep-alive-ms", "0"],
    );
    let mut connection = cluster.connect(database).await;
    let spool = dir.path().join("spool");
    let mut pipeline = Pipeline::new(store.clone(), &spool);

    let begun = Instant::now();
    pipeline.open(dir.path(), vms);
    let (mut stored, mut newest) = (0, begun.elapsed());
    let all_sent = || fleet.report().is_some_and(|report| report["frames_sent"] == sent);
    while stored < sent && (begun.elapsed() - newest < NOTHING_NEW || !all_sent()) {
        assert!(begun.elapsed() < PATIENCE, "{stored} of {sent} frames are stored: {:?}", fleet.report());
        tokio::time::sleep(Duration::from_millis(50)).await;
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM vm_metrics").fetch_one(&mut connection).await.unwrap();
        let rows = usize::try_from(rows).unwrap();
        if rows > stored {
            (stored, newest) = (rows, begun.elapsed());
        }
    }
    let (came, dropped) = pipeline.counted();
    say(format!("{stored} of {sent} frames are stored; links counted {came}, and {dropped} dropped"));
    compare(&store, lines, stored == sent).await;
    pipeline.end().await;
    fleet.end();
    store.close().await;
    (newest, stored)
}

/// What is stored is what was sent, secrets hidden and nothing else changed.
async fn compare(store: &Store, lines: &[GuestLines], all: bool) {
    let redactor = Redactor::default();
    for guest in lines.iter().step_by(lines.len().div_ceil(COMPARED)) {
        let rows = store.metrics(guest.vm, DateTime::UNIX_EPOCH, 10_000).await.unwrap();
        let stored: Vec<Value> = rows.iter().map(|row| row.frame.tree()).collect();
        let tree = |line: &Vec<u8>| serde_json::from_str(&decode_and_redact(line, &redactor)).unwrap();
        let sent: Vec<Value> = guest.lines.iter().map(tree).collect();
        assert!(!sent.iter().any(|frame| frame.to_string().contains("mysql --password=0")), "not redacted");
        for frame in &stored {
            assert!(sent.contains(frame), "a stored frame that was never sent: {frame}");
        }
        assert!(!all || sent.iter().all(|frame| stored.contains(frame)), "a frame is missing");
    }
}

/// The same frames on one thread, and then the rows that we stored, copied by the server itself.
async fn bare_loop(cluster: &Cluster, database: &str, lines: &[GuestLines]) -> Duration {
    let mut connection = cluster.connect(database).await;
    let file = cluster.scratch("rows.copy");
    let mut run = async |sql: String| {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    };
    run(format!("COPY (SELECT * FROM vm_metrics) TO '{}' (FORMAT binary)", file.display())).await;
    run("CREATE TABLE bare (LIKE vm_metrics INCLUDING ALL)".to_owned()).await;
    let redactor = Redactor::default();
    let begun = Instant::now();
    let packed = bare(lines.iter().flat_map(|guest| &guest.lines), &redactor);
    let prepared = begun.elapsed();
    run(format!("COPY bare FROM '{}' (FORMAT binary)", file.display())).await;
    let took = begun.elapsed();
    say(format!(
        "bare: {prepared:.2?} on the thread, {:.2?} of COPY; {} MiB packed",
        took - prepared,
        packed >> 20
    ));
    run("DROP TABLE bare".to_owned()).await;
    std::fs::remove_file(file).unwrap();
    took
}

/// With its indexes and partitions.
async fn size(cluster: &Cluster, database: &str, table: &'static str) -> i64 {
    let mut connection = cluster.connect(database).await;
    sqlx::query_scalar(
        "SELECT COALESCE((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree($1::text::regclass)),
                         pg_total_relation_size($1::text::regclass))::int8",
    )
    .bind(table)
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

async fn sqlite(figures: &mut Figures, frames: usize) {
    let lines = of_fleet(&ids(100, 77), 77, frames / 100);
    let redactor = Redactor::default();
    let samples: Vec<MetricsSample> = lines.iter().flat_map(|guest| samples(guest, &redactor)).collect();
    let (mut ours, mut bare, mut prepared) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        // A directory in memory would not be a disk.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (file, other) = (dir.path().join("ours.db"), dir.path().join("bare.db"));
        let store =
            Store::open(&format!("sqlite:{}", file.display()), 4, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        let begun = Instant::now();
        for batch in samples.chunks(500) {
            store.insert_metrics(batch).await.unwrap();
        }
        let stored = begun.elapsed();
        store.close().await;

        let begun = Instant::now();
        common::frames::bare(lines.iter().flat_map(|guest| &guest.lines), &redactor);
        prepared += begun.elapsed();
        let looped = sqlite_loop(&file, &other).await;
        say(format!("SQLite, round {}: ours {stored:.2?}, prepared loop {looped:.2?}", round + 1));
        ours += stored;
        bare += looped;
    }
    let rate = |took: Duration| (samples.len() * ROUNDS) as f64 / took.as_secs_f64();
    let note = format!(
        "{:.0} rows/s with compression, in batches of 500 that are each synced, against {:.0} of one prepared insert \
         in one transaction of rows that are packed already",
        rate(ours),
        rate(bare)
    );
    figures.at_least("ingest_sqlite_vs_loop", rate(ours) / rate(bare), "x", SQLITE_BOUND, note);
    let note = format!(
        "the same against {:.0} rows/s of a loop that also decodes, redacts and compresses",
        rate(bare + prepared)
    );
    figures.told("ingest_sqlite_vs_whole_loop", rate(ours) / rate(bare + prepared), "x", note);
}

fn samples(guest: &GuestLines, redactor: &Redactor) -> Vec<MetricsSample> {
    let sample = |line: &Vec<u8>| {
        let text = decode_and_redact(line, redactor);
        let system: Value = serde_json::from_str(&text).unwrap();
        let whole = |pointer: &str| system.pointer(pointer).and_then(Value::as_i64).unwrap();
        MetricsSample {
            id: Uuid::now_v7(),
            vm: VmId::from(guest.vm.uuid()),
            timestamp: Utc::now(),
            received_at: Utc::now(),
            readings: Readings {
                cpu_usage: system["cpu"]["usage_percent"].as_f64().unwrap(),
                memory_used: whole("/memory/used_kb"),
                memory_total: whole("/memory/total_kb"),
                disk: None,
                network: None,
            },
            frame: FrameText::new(text),
        }
    };
    guest.lines.iter().map(sample).collect()
}

/// A value of a row, whatever the schema has there.
enum Cell {
    Null,
    Whole(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One prepared insert, row by row in one transaction, of all that stands in `from`, into a table of
/// the same schema with the same settings.
async fn sqlite_loop(from: &std::path::Path, to: &std::path::Path) -> Duration {
    let mut source =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(from)).await.unwrap();
    let schema: Vec<String> = sqlx::query_scalar(
        "SELECT sql FROM sqlite_master WHERE tbl_name = 'vm_metrics' AND sql IS NOT NULL ORDER BY type DESC",
    )
    .fetch_all(&mut source)
    .await
    .unwrap();
    let rows = sqlx::query("SELECT * FROM vm_metrics ORDER BY rowid").fetch_all(&mut source).await.unwrap();
    let columns: Vec<&str> = rows[0].columns().iter().map(sqlx::Column::name).collect();
    let places = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT INTO vm_metrics ({}) VALUES ({places})", columns.join(", "));
    let cells: Vec<Vec<Cell>> =
        rows.iter().map(|row| (0..columns.len()).map(|n| cell(row, n)).collect()).collect();
    let options = SqliteConnectOptions::new()
        .filename(to)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut target = SqliteConnection::connect_with(&options).await.unwrap();
    for sql in schema {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut target).await.unwrap();
    }
    let begun = Instant::now();
    let mut tx = target.begin().await.unwrap();
    for row in cells {
        let mut query = sqlx::query(AssertSqlSafe(insert.clone()));
        for cell in row {
            query = match cell {
                Cell::Null => query.bind(None::<i64>),
                Cell::Whole(value) => query.bind(value),
                Cell::Real(value) => query.bind(value),
                Cell::Text(value) => query.bind(value),
                Cell::Bytes(value) => query.bind(value),
            };
        }
        query.execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    begun.elapsed()
}

fn cell(row: &SqliteRow, index: usize) -> Cell {
    let value = row.try_get_raw(index).unwrap();
    if value.is_null() {
        return Cell::Null;
    }
    let kind = value.type_info().name().to_owned();
    match kind.as_str() {
        "INTEGER" => Cell::Whole(row.get_unchecked(index)),
        "REAL" => Cell::Real(row.get_unchecked(index)),
        "TEXT" => Cell::Text(row.get_unchecked(index)),
        _ => Cell::Bytes(row.get_unchecked(index)),
    }
}
