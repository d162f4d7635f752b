//! How fast readings get from guests into the database, whole, against what loads the same frames in
//! the simplest way.
//!
//! PostgreSQL, with its default settings and `fsync` on, from 100 and from 1,000 links: (a) `psql`'s
//! `\copy` into the specification's literal table, (b) one thread that decodes, redacts and compresses
//! the frames and then lets the server COPY the very rows we store, (c) the space of both tables.
//! SQLite: the store's insert against a prepared insert of the same rows in one transaction.
//! The rivals run in turn, the other way round in the second round, and their times are added. Before
//! each turn the server writes what the one before left to be written.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use chrono::Utc;
use common::{
    cluster::Cluster,
    compare::{COMPARED, compare},
    figures::{Figures, say},
    fleet::FleetProcess,
    frames::{GuestLines, bare, decode_and_redact, of_fleet},
    literal,
    pipeline::{self, Pipeline},
    prepared::Stored,
    sized,
    stage::ids,
};
use infinibay::{
    store::{PackedSample, Store},
    vm::{FrameText, MetricsSample, Readings, Redactor, VmId},
};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

const ROUNDS: usize = 2;
const LITERAL_BOUND: f64 = 3.0;
const BARE_BOUND: f64 = 0.6;
const SPACE_BOUND: f64 = 0.5;
const SQLITE_BOUND: f64 = 0.6;

/// Rows that SQLite gets at once, as from the daemon when it is behind.
const BATCH: usize = 2000;

/// All is sent, and there is no new row for so long: what is missing is lost.
const NOTHING_NEW: Duration = Duration::from_secs(15);
/// One round takes no longer.
const PATIENCE: Duration = Duration::from_secs(300);

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

/// Who loads the frames.
#[derive(Clone, Copy)]
enum Rival {
    Literal,
    Ours,
    Bare,
}

/// Their turns, round by round: what one leaves to the next befalls the others as well.
const ORDERS: [[Rival; 3]; ROUNDS] =
    [[Rival::Literal, Rival::Ours, Rival::Bare], [Rival::Bare, Rival::Ours, Rival::Literal]];

/// What one rival's turns took, how many rows they left and in how much space.
#[derive(Default)]
struct Sums {
    took: Duration,
    rows: usize,
    bytes: i64,
}

impl Sums {
    #[expect(clippy::cast_precision_loss, reason = "some ten thousand rows")]
    fn rate(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "some hundred megabytes")]
    fn mib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }
}

async fn postgres(figures: &mut Figures, cluster: &Cluster, links: usize, frames: usize) {
    let each = frames / links;
    let seed = (links * 1000) as u64;
    let vms = ids(links, seed);
    let lines = of_fleet(&vms, seed, each);
    let literal_file = cluster.scratch("literal.copy");
    literal::write(&lines, &literal_file);
    // Rows of ours, for whoever copies them next, and how many those are.
    let (our_file, mut kept) = (cluster.scratch("rows.copy"), 0);
    let (mut literal, mut ours, mut bare) = (Sums::default(), Sums::default(), Sums::default());
    for (round, order) in ORDERS.iter().enumerate() {
        let name = format!("ingest_{links}_{round}");
        let store = Store::open(&cluster.database(&name).await, 10, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        for rival in order {
            let (took, rows) = match rival {
                Rival::Literal => {
                    let took = copy_literal(cluster, &name, &literal_file);
                    literal.bytes += size(cluster, &name, "literal").await;
                    add(&mut literal, took, links * each)
                }
                Rival::Ours => {
                    let (took, rows) = ingest(cluster, &name, &store, &vms, &lines, seed).await;
                    ours.bytes += size(cluster, &name, "vm_metrics").await;
                    ours.bytes += size(cluster, &name, "vm_metrics_rollups").await;
                    kept = rows;
                    let copy = format!(
                        "COPY (SELECT * FROM vm_metrics) TO '{}' (FORMAT binary)",
                        our_file.display()
                    );
                    cluster.psql(&name, &copy);
                    add(&mut ours, took, rows)
                }
                Rival::Bare => {
                    let took = bare_loop(cluster, &name, &lines, &our_file, kept).await;
                    add(&mut bare, took, kept)
                }
            };
            say(format!("{links} links, round {}: {} loaded {rows} in {took:.2?}", round + 1, rival.name()));
        }
        store.close().await;
        cluster.psql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    }
    std::fs::remove_file(literal_file).unwrap();
    std::fs::remove_file(our_file).unwrap();
    tell(figures, links, links * each * ROUNDS, [&literal, &ours, &bare]);
}

impl Rival {
    fn name(self) -> &'static str {
        match self {
            Self::Literal => "\\copy",
            Self::Ours => "ours",
            Self::Bare => "bare",
        }
    }
}

fn add(sums: &mut Sums, took: Duration, rows: usize) -> (Duration, usize) {
    sums.took += took;
    sums.rows += rows;
    (took, rows)
}

fn copy_literal(cluster: &Cluster, database: &str, file: &Path) -> Duration {
    cluster.psql(database, literal::CREATE);
    cluster.checkpoint();
    let begun = Instant::now();
    cluster.psql(database, &format!("\\copy {} FROM '{}'", literal::COLUMNS, file.display()));
    begun.elapsed()
}

#[expect(clippy::cast_precision_loss, reason = "some ten thousand rows")]
fn tell(figures: &mut Figures, links: usize, sent: usize, [literal, ours, bare]: [&Sums; 3]) {
    let names = if links == 100 {
        ["ingest_100_vs_copy", "ingest_100_vs_bare", "ingest_100_space", "ingest_100_lost"]
    } else {
        ["ingest_1000_vs_copy", "ingest_1000_vs_bare", "ingest_1000_space", "ingest_1000_lost"]
    };
    let limits = pipeline::limits();
    let note = format!(
        "{:.0} rows/s against {:.0} of \\copy; {links} links, {sent} frames in {ROUNDS} rounds; {limits}",
        ours.rate(),
        literal.rate()
    );
    figures.at_least(names[0], ours.rate() / literal.rate(), "x", LITERAL_BOUND, note);
    let note =
        format!("{:.0} rows/s against {:.0} of one thread and COPY; {limits}", ours.rate(), bare.rate());
    figures.at_least(names[1], ours.rate() / bare.rate(), "x", BARE_BOUND, note);
    // Lost rows take no space: reckoned per row.
    let space = (ours.mib() / ours.rows as f64) / (literal.mib() / literal.rows as f64);
    let note = format!(
        "{:.0} MiB with indexes and roll-ups against {:.0} MiB with indexes",
        ours.mib(),
        literal.mib()
    );
    figures.at_most(names[2], space, "x", SPACE_BOUND, note);
    figures.at_most(
        names[3],
        (sent - ours.rows) as f64,
        "frames",
        0.0,
        format!("of {sent}; those of {COMPARED} guests in each round compared as trees; {limits}"),
    );
}

/// From the fleet through links, readings and store; how long until all rows are there, and how many
/// that are.
async fn ingest(
    cluster: &Cluster,
    database: &str,
    store: &Store,
    vms: &[Uuid],
    lines: &[GuestLines],
    seed: u64,
) -> (Duration, usize) {
    let sent: usize = lines.iter().map(|guest| guest.lines.len()).sum();
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

    cluster.checkpoint();
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
    compare(store, lines, stored == sent).await;
    pipeline.end().await;
    fleet.end();
    (newest, stored)
}

/// As many frames as rows were stored, on one thread, and then those very rows, copied by the server
/// itself into a table as ours.
async fn bare_loop(
    cluster: &Cluster,
    database: &str,
    lines: &[GuestLines],
    rows: &Path,
    count: usize,
) -> Duration {
    let mut connection = cluster.connect(database).await;
    // Our partitions have the same parameter: a row stays on one page.
    let create = "CREATE TABLE bare (LIKE vm_metrics INCLUDING ALL) WITH (toast_tuple_target = 8160)";
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let copy = format!("COPY bare FROM '{}' (FORMAT binary)", rows.display());
    let redactor = Redactor::default();
    cluster.checkpoint();
    let begun = Instant::now();
    let packed = bare(lines.iter().flat_map(|guest| &guest.lines).take(count), &redactor);
    let prepared = begun.elapsed();
    let copied = sqlx::query(AssertSqlSafe(copy)).execute(&mut connection).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(copied.rows_affected(), count as u64, "what is copied is what was stored");
    say(format!(
        "bare: {prepared:.2?} on the thread, {:.2?} of COPY; {} MiB packed",
        took - prepared,
        packed >> 20
    ));
    sqlx::query("DROP TABLE bare").execute(&mut connection).await.unwrap();
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
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    // What we stored first is what the loop inserts in each round.
    let mut stored = None;
    for (round, ours_first) in [true, false].into_iter().enumerate() {
        // A directory in memory would not be a disk.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (file, other) = (dir.path().join("ours.db"), dir.path().join("bare.db"));
        let (mut our_turn, mut loop_turn) = (Duration::ZERO, Duration::ZERO);
        for is_ours in [ours_first, !ours_first] {
            // Nothing of the turn before is left to be written.
            rustix::fs::sync();
            if is_ours {
                our_turn = sqlite_ours(&file, &samples).await;
                if stored.is_none() {
                    stored = Some(Stored::read(&file).await);
                }
            } else {
                let stored = stored.as_ref().expect("the first round begins with ours");
                assert_eq!(stored.count(), samples.len(), "all are stored");
                loop_turn = stored.insert(&other).await;
            }
        }
        say(format!("SQLite, round {}: ours {our_turn:.2?}, prepared loop {loop_turn:.2?}", round + 1));
        ours += our_turn;
        bare += loop_turn;
    }
    let rate = |took: Duration| (samples.len() * ROUNDS) as f64 / took.as_secs_f64();
    let note = format!(
        "{:.0} rows/s of packed rows, with their roll-ups, in batches of {BATCH} that are each synced, against {:.0} of \
         one prepared insert of the same rows in one transaction, through the same driver; no links, no rate limit",
        rate(ours),
        rate(bare)
    );
    figures.at_least("ingest_sqlite_vs_loop", rate(ours) / rate(bare), "x", SQLITE_BOUND, note);
}

/// How long the store's inserts of these into a new database take.
async fn sqlite_ours(file: &Path, samples: &[MetricsSample]) -> Duration {
    let store = Store::open(&format!("sqlite:{}", file.display()), 4, Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    let (rows, failed) = PackedSample::pack(samples);
    assert!(failed.is_empty());
    let begun = Instant::now();
    for batch in rows.chunks(BATCH) {
        store.insert_packed(batch).await.unwrap();
    }
    let took = begun.elapsed();
    store.close().await;
    took
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
