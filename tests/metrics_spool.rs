//! Readings while the database is away: on disk, in order, back once each, within a bound.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[macro_use]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use chrono::Utc;
use infinibay::{agents::GuestFrame, config::MetricsConfig, store::Store, vm::VmId};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use support::{
    database::{Backend, TestDatabase},
    guest::{DEADLINE, eventually},
    pipeline::{Pipeline, eager, stored, stored_cpu, system, until_stored},
};

/// A handle that notices soon when the database is away.
async fn impatient(db: &TestDatabase) -> Store {
    Store::open(&db.url, 4, Duration::from_millis(300)).await.expect("opening the story's database")
}

/// A database that takes nothing until the outage ends.
enum Outage {
    /// Nobody is let in, and who was in is thrown out.
    Postgres { admin: PgConnection, name: String },
    /// Somebody else holds the file.
    Sqlite(SqliteConnection),
}

impl Outage {
    async fn begin(db: &TestDatabase) -> Self {
        match db.backend() {
            Backend::Sqlite => {
                let mut holder = SqliteConnection::connect(&db.url).await.unwrap();
                sqlx::raw_sql("PRAGMA busy_timeout = 20000; BEGIN IMMEDIATE")
                    .execute(&mut holder)
                    .await
                    .unwrap();
                Self::Sqlite(holder)
            }
            Backend::Postgres => {
                let (server, name) = db.url.rsplit_once('/').unwrap();
                let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
                let sql = format!(
                    "ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false;
                     SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
                );
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
                Self::Postgres { admin, name: name.to_owned() }
            }
        }
    }

    async fn end(self) {
        match self {
            Self::Sqlite(mut holder) => {
                sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
                holder.close().await.unwrap();
            }
            Self::Postgres { mut admin, name } => {
                let sql = format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
                admin.close().await.unwrap();
            }
        }
    }
}

/// The spool's files, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn bytes(dir: &Path) -> u64 {
    segments(dir).iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// A frame of so many bytes that cannot be compressed to less than half.
fn large(number: u32, bytes: usize) -> Value {
    let mut frame = system(f64::from(number % 100));
    frame["memory"] = json!({"total_kb": 1_000_000, "used_kb": number});
    frame["noise"] = (0..bytes / 32).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    frame
}

async fn stored_numbers(store: &Store, vm: VmId) -> Vec<i64> {
    stored(store, vm).await.iter().map(|row| row.readings.memory_used).collect()
}

fn upto(count: u32) -> Vec<f64> {
    (0..count).map(f64::from).collect()
}

fn error(vm: VmId) -> GuestFrame {
    let (error, details) = ("disk full".to_owned(), json!({}));
    GuestFrame::Error { vm, received_at: Utc::now(), timestamp: None, error, details }
}

const ERRORS: &str = "SELECT count(*) FROM vm_errors";

/// Waits until that many are one.
async fn until_one(db: &TestDatabase, sql: &'static str) {
    tokio::time::timeout(DEADLINE, async {
        while db.number(sql).await != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("in time");
}

const ROLLED_UP: &str =
    "SELECT CAST(coalesce(sum(count), 0) AS BIGINT) FROM vm_metrics_rollups WHERE width_seconds = 3600";

on_both! {
    async fn an_outage_costs_nothing_but_time(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        let dir = spool.path().join("spool");
        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), &dir);
        let vm = VmId::generate();
        for n in 0..10 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        until_stored(&pipeline.store, vm, 10).await;
        assert_eq!(bytes(&dir), 0, "a database that works needs no disk");

        let outage = Outage::begin(&db).await;
        for n in 10..60 {
            pipeline.send(vm, system(f64::from(n))).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        eventually("readings wait on disk", || (bytes(&dir) > 0).then_some(())).await;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&segments(&dir)[0])), (0o700, 0o600));
        for n in 60..70 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        outage.end().await;

        assert_eq!(until_stored(&pipeline.store, vm, 70).await, upto(70));
        eventually("the disk is empty again", || segments(&dir).is_empty().then_some(())).await;
        assert_eq!(pipeline.metrics.lost().counts.total(), 0);
        let store = pipeline.stop().await;
        assert_eq!(stored_cpu(&store, vm).await, upto(70), "nothing came twice");
        assert_eq!(db.number(ROLLED_UP).await, 70);
    }

    async fn a_controller_that_ends_during_an_outage_hands_on_what_it_has(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        let dir = spool.path().to_owned();
        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), &dir);
        let vm = VmId::generate();
        pipeline.send(vm, system(0.0)).await;
        until_stored(&pipeline.store, vm, 1).await;
        let outage = Outage::begin(&db).await;
        for n in 1..20 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        eventually("readings wait on disk", || (bytes(&dir) > 0).then_some(())).await;
        // These are still in memory when it is told to stop.
        for n in 20..40 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        let metrics = pipeline.metrics.clone();
        pipeline.stop().await.close().await;
        assert_eq!(metrics.lost().counts.total(), 0);
        // One that was killed after the database's word and before the file's removal: the same
        // readings again, as a segment of their own.
        let first = &segments(&dir)[0];
        fs::copy(first, dir.join("00000000000000009999.readings")).unwrap();
        outage.end().await;

        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), &dir);
        for n in 40..50 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        until_stored(&pipeline.store, vm, 50).await;
        eventually("the disk is empty", || segments(&dir).is_empty().then_some(())).await;
        let store = pipeline.stop().await;
        assert_eq!(stored_cpu(&store, vm).await, upto(50));
        assert_eq!(db.number(ROLLED_UP).await, 50);
    }

    async fn a_disk_that_cannot_be_read_for_a_while_costs_time_and_holds_up_no_error(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        let dir = spool.path().to_owned();
        let vm = VmId::generate();
        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), &dir);
        let outage = Outage::begin(&db).await;
        for n in 0..20 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        eventually("readings wait on disk", || (bytes(&dir) > 0).then_some(())).await;
        pipeline.stop().await.close().await;
        outage.end().await;

        let first = segments(&dir)[0].clone();
        let aside = first.with_extension("aside");
        fs::rename(&first, &aside).unwrap();
        fs::create_dir(&first).unwrap();
        let unhurried = MetricsConfig { flush_interval: Duration::from_secs(1), ..MetricsConfig::default() };
        let pipeline = Pipeline::start_at(impatient(&db).await, unhurried, &dir);
        pipeline.send(vm, system(20.0)).await;
        pipeline.frames.send(error(vm)).await.unwrap();
        until_one(&db, ERRORS).await;
        assert!(stored_cpu(&pipeline.store, vm).await.is_empty(), "what came later stays behind");
        fs::remove_dir(&first).unwrap();
        fs::rename(&aside, &first).unwrap();
        assert_eq!(until_stored(&pipeline.store, vm, 21).await, upto(21));
        assert_eq!(pipeline.metrics.lost().counts.total(), 0);
        pipeline.stop().await;
    }

    async fn readings_that_are_refused_hold_up_no_error(db: TestDatabase) {
        let pipeline = Pipeline::start(&db, eager()).await;
        let aside = "ALTER TABLE vm_metrics RENAME TO vm_metrics_aside";
        db.tamper(aside, aside).await;
        let vm = VmId::generate();
        pipeline.send(vm, system(0.0)).await;
        pipeline.frames.send(error(vm)).await.unwrap();
        until_one(&db, ERRORS).await;
        let back = "ALTER TABLE vm_metrics_aside RENAME TO vm_metrics";
        db.tamper(back, back).await;
        until_stored(&pipeline.store, vm, 1).await;
        pipeline.stop().await;
    }

    async fn a_full_spool_gives_up_the_oldest_and_says_so(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        let config = MetricsConfig { spool_max_bytes: 256 << 10, ..eager() };
        let pipeline = Pipeline::start_at(impatient(&db).await, config, spool.path());
        let vm = VmId::generate();
        let outage = Outage::begin(&db).await;
        for n in 0..200 {
            pipeline.send(vm, large(n, 8 << 10)).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(bytes(spool.path()) <= 256 << 10);
        }
        eventually("some are given up", || (pipeline.metrics.lost().counts.total() > 0).then_some(())).await;
        let metrics = pipeline.metrics.clone();
        pipeline.stop().await.close().await;
        let lost = metrics.lost();
        assert!(lost.since.is_some());
        outage.end().await;

        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), spool.path());
        eventually("the disk is empty", || segments(spool.path()).is_empty().then_some(())).await;
        let store = pipeline.stop().await;
        let left = stored_numbers(&store, vm).await;
        assert_eq!(left, (i64::try_from(lost.counts.total()).unwrap()..200).collect::<Vec<_>>());
        assert!((20..190).contains(&left.len()), "{} of 200 fit", left.len());
    }

    async fn torn_and_spoiled_segments_cost_what_is_torn_and_spoiled(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        // Segments of 16 KiB: four frames each.
        let config = MetricsConfig { spool_max_bytes: 256 << 10, ..eager() };
        let pipeline = Pipeline::start_at(impatient(&db).await, config.clone(), spool.path());
        let vm = VmId::generate();
        let outage = Outage::begin(&db).await;
        for n in 0..16 {
            pipeline.send(vm, large(n, 8 << 10)).await;
        }
        pipeline.stop().await.close().await;
        outage.end().await;
        let files = segments(spool.path());
        assert!(files.len() >= 4, "{files:?}");
        // The middle of the first is spoiled, the end of the last is torn.
        let mut first = fs::read(&files[0]).unwrap();
        let middle = first.len() / 2;
        first[middle] ^= 1;
        fs::write(&files[0], first).unwrap();
        let last = fs::OpenOptions::new().write(true).open(files.last().unwrap()).unwrap();
        last.set_len(last.metadata().unwrap().len() - 3).unwrap();
        // One is no segment, the other is one that a crash left empty.
        fs::write(spool.path().join("00000000000000000001.readings.bak"), "x").unwrap();
        fs::write(spool.path().join("00000000000000009999.readings"), "").unwrap();

        let pipeline = Pipeline::start_at(impatient(&db).await, config, spool.path());
        pipeline.send(vm, large(16, 100)).await;
        eventually("the disk is empty", || (segments(spool.path()).len() == 1).then_some(())).await;
        let metrics = pipeline.metrics.clone();
        let store = pipeline.stop().await;
        let left = stored_numbers(&store, vm).await;
        assert!(left.is_sorted() && left.contains(&0) && left.contains(&16), "{left:?}");
        assert!(!left.contains(&15), "the torn one is gone: {left:?}");
        assert!((8..16).contains(&left.len()), "{left:?}");
        assert!(metrics.lost().counts.total() >= 2);
    }

    async fn without_a_disk_readings_wait_in_memory(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        // Where the directory should be is a file.
        let dir = spool.path().join("spool");
        fs::write(&dir, "").unwrap();
        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), &dir);
        let vm = VmId::generate();
        let outage = Outage::begin(&db).await;
        for n in 0..50 {
            pipeline.send(vm, system(f64::from(n))).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        outage.end().await;
        assert_eq!(until_stored(&pipeline.store, vm, 50).await, upto(50));
        assert_eq!(pipeline.metrics.lost().counts.total(), 0);
        pipeline.stop().await;
    }

    async fn a_database_that_is_slow_slows_the_intake_and_loses_nothing(db: TestDatabase) {
        let config = MetricsConfig { buffer_rows: 100, flush_rows: 20, ..eager() };
        let pipeline = Pipeline::start(&db, config).await;
        let vm = VmId::generate();
        pipeline.send(vm, system(0.0)).await;
        until_stored(&pipeline.store, vm, 1).await;
        // Somebody else holds the roll-ups for less than what taking in waits for.
        let holder = tokio::spawn({
            let (url, backend) = (db.url.clone(), db.backend());
            async move {
                let hold = Duration::from_millis(800);
                match backend {
                    Backend::Sqlite => {
                        let mut holder = SqliteConnection::connect(&url).await.unwrap();
                        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
                        tokio::time::sleep(hold).await;
                        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
                    }
                    Backend::Postgres => {
                        let mut holder = PgConnection::connect(&url).await.unwrap();
                        sqlx::raw_sql("BEGIN; LOCK TABLE vm_metrics_rollups").execute(&mut holder).await.unwrap();
                        tokio::time::sleep(hold).await;
                        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
                    }
                }
            }
        });
        for n in 1..3000 {
            pipeline.send(vm, large(n, 100)).await;
        }
        holder.await.unwrap();
        let metrics = pipeline.metrics.clone();
        let numbers = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let numbers = stored_numbers(&pipeline.store, vm).await;
                if numbers.len() >= 3000 { return numbers; }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert_eq!(numbers.await.expect("all are stored").len(), 3000);
        assert_eq!(metrics.lost().counts.total(), 0);
        pipeline.stop().await;
    }

    async fn what_would_be_removed_at_once_is_not_stored(db: TestDatabase) {
        let spool = tempfile::tempdir().unwrap();
        let pipeline = Pipeline::start_at(impatient(&db).await, eager(), spool.path());
        let vm = VmId::generate();
        let outage = Outage::begin(&db).await;
        pipeline.send(vm, system(1.0)).await;
        eventually("it waits on disk", || (bytes(spool.path()) > 0).then_some(())).await;
        pipeline.stop().await.close().await;
        outage.end().await;
        // The next controller keeps readings for no time at all.
        let config = MetricsConfig { retention_days: 0, ..eager() };
        let pipeline = Pipeline::start_at(impatient(&db).await, config, spool.path());
        eventually("the disk is empty", || segments(spool.path()).is_empty().then_some(())).await;
        assert_eq!(pipeline.metrics.lost().counts.total(), 1);
        let store = pipeline.stop().await;
        assert_eq!(stored(&store, vm).await.len(), 0);
    }
}

/// A file system of one MiB.
struct Small(tempfile::TempDir);

impl Small {
    /// Takes root, as the controller does: a story that skipped itself would pass for one that was
    /// told.
    fn mount() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this story needs root: it mounts a file system");
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        assert!(mounted, "mounting a file system of one MiB failed");
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_the_oldest() {
    let small = Small::mount();
    let dir = small.0.path().join("spool");
    let db = TestDatabase::new(Backend::Sqlite).await;
    let config = MetricsConfig { spool_max_bytes: 4 << 20, ..eager() };
    let pipeline = Pipeline::start_at(impatient(&db).await, config, &dir);
    let vm = VmId::generate();
    let outage = Outage::begin(&db).await;
    for n in 0..400 {
        pipeline.send(vm, large(n, 8 << 10)).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eventually("some are given up", || (pipeline.metrics.lost().counts.total() > 0).then_some(())).await;
    let metrics = pipeline.metrics.clone();
    pipeline.stop().await.close().await;
    outage.end().await;
    let lost = i64::try_from(metrics.lost().counts.total()).unwrap();
    let pipeline = Pipeline::start_at(impatient(&db).await, eager(), &dir);
    eventually("the disk is empty", || segments(&dir).is_empty().then_some(())).await;
    let store = pipeline.stop().await;
    assert_eq!(stored_numbers(&store, vm).await, (lost..400).collect::<Vec<_>>());
    assert!((50..390).contains(&lost), "{lost} of 400 were lost");
}
