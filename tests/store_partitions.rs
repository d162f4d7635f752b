//! Readings on PostgreSQL lie in a table per day: made ahead, made when needed, dropped as a whole.
//! What an older version stored is carried over, on both databases.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use infinibay::vm::{Resolution, SeriesField, SeriesRequest, VmId};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use support::{
    database::{Backend, TestDatabase},
    sample::{now, sample},
};

/// The days that there is room for.
async fn days(db: &TestDatabase) -> BTreeSet<String> {
    let mut connection = PgConnection::connect(&db.url).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'vm_metrics'::regclass",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    names.into_iter().map(|name| name.trim_start_matches("vm_metrics_").to_owned()).collect()
}

fn named(days: impl IntoIterator<Item = NaiveDate>) -> BTreeSet<String> {
    days.into_iter().map(|day| day.format("%Y%m%d").to_string()).collect()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[tokio::test]
async fn room_is_made_for_the_days_around_now() {
    let db = TestDatabase::new(Backend::Postgres).await;
    let store = db.store().await;
    let now = at("2026-02-27T23:59:59Z");
    for _ in 0..2 {
        store.prepare_metrics(now).await.unwrap();
        let yesterday: NaiveDate = "2026-02-26".parse().unwrap();
        assert_eq!(days(&db).await, named(yesterday.iter_days().take(5)));
    }
    // As another controller, which does not know.
    db.store().await.prepare_metrics(now).await.unwrap();
    assert_eq!(days(&db).await.len(), 5);
}

#[tokio::test]
async fn what_a_batch_needs_is_made_whoever_is_first() {
    let db = TestDatabase::new(Backend::Postgres).await;
    let vm = VmId::generate();
    let (one, other) = (db.store().await, db.store().await);
    let batch: Vec<_> =
        (1..=20).map(|day| sample(vm, at(&format!("2026-03-{day:02}T12:00:00Z")), 1.0)).collect();
    let (first, second) = tokio::join!(one.insert_metrics(&batch), other.insert_metrics(&batch));
    first.unwrap();
    second.unwrap();
    assert_eq!(days(&db).await.len(), 20);
    assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, 20);
}

#[tokio::test]
async fn a_day_that_somebody_dropped_is_made_again() {
    let db = TestDatabase::new(Backend::Postgres).await;
    let store = db.store().await;
    let vm = VmId::generate();
    let first = sample(vm, at("2026-03-01T12:00:00Z"), 1.0);
    store.insert_metrics(&[first]).await.unwrap();
    db.tamper("", "DROP TABLE vm_metrics_20260301").await;
    let second = sample(vm, at("2026-03-01T13:00:00Z"), 2.0);
    store.insert_metrics(std::slice::from_ref(&second)).await.expect_err("the day is not there");
    store.insert_metrics(&[second]).await.expect("the next attempt makes it");
    assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, 1);
}

#[tokio::test]
async fn days_go_when_all_of_them_is_old_and_no_day_before() {
    let db = TestDatabase::new(Backend::Postgres).await;
    let store = db.store().await;
    let vm = VmId::generate();
    let times = [
        "2026-03-01T00:00:00Z",
        "2026-03-02T00:00:00Z",
        "2026-03-02T23:59:59.999999Z",
        "2026-03-03T00:00:00Z",
    ];
    let batch: Vec<_> = times.iter().map(|time| sample(vm, at(time), 1.0)).collect();
    store.insert_metrics(&batch).await.unwrap();
    for (before, dropped, left) in [
        ("2026-03-01T23:59:59Z", 0, 4),
        ("2026-03-02T00:00:00Z", 1, 3),
        ("2026-03-02T23:59:59.999999Z", 0, 3),
        ("2026-03-03T00:00:00Z", 1, 1),
    ] {
        assert_eq!(store.expire_metrics(at(before)).await.unwrap(), dropped, "{before}");
        assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, left, "{before}");
    }
    // A reading of a day that is gone: there is room for it again.
    store.insert_metrics(&batch[..1]).await.unwrap();
    assert_eq!(days(&db).await, ["20260301", "20260303"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_row_with_its_frame_stays_on_its_page() {
    let db = TestDatabase::new(Backend::Postgres).await;
    let store = db.store().await;
    let batch: Vec<_> = (0..100)
        .map(|n| {
            let mut one = sample(VmId::generate(), now() - TimeDelta::seconds(n), 1.0);
            // Some 2.5 KB that cannot be compressed.
            let noise: String = (0..110).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
            one.frame = infinibay::vm::FrameText::from(&serde_json::json!({ "noise": noise }));
            one
        })
        .collect();
    store.insert_metrics(&batch).await.unwrap();
    let outside = db.number(
        "SELECT CAST(sum(pg_relation_size(c.reltoastrelid)) AS BIGINT)
         FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
         WHERE i.inhparent = 'vm_metrics'::regclass",
    );
    assert_eq!(outside.await, 0);
}

/// The schema of the first migration with readings in it, then the others.
async fn carried_over(backend: Backend) {
    let db = TestDatabase::empty(backend).await;
    let (vm, other) = (VmId::generate(), VmId::generate());
    let first = include_str!("../migrations/postgres/0001_first.sql");
    let first_sqlite = include_str!("../migrations/sqlite/0001_first.sql");
    let frame = zstd::bulk::compress(br#"{"cpu":1}"#, 3).unwrap();
    let times =
        ["2026-01-01T10:01:00Z", "2026-01-01T10:04:59.5Z", "2026-01-01T10:05:00Z", "2026-01-03T00:00:00Z"];
    let rows = || [vm, other].into_iter().flat_map(|vm| times.map(|time| (vm, at(time))));
    let insert = "INSERT INTO vm_metrics (id, vm_id, timestamp, cpu_usage, memory_used, memory_total, system, created_at)
                  VALUES ($1, $2, $3, $4, 5, 9223372036854775807, $5, $3)";
    macro_rules! fill {
        ($connection:expr, $schema:expr) => {{
            let mut connection = $connection;
            sqlx::raw_sql(AssertSqlSafe($schema)).execute(&mut connection).await.unwrap();
            for (n, (vm, time)) in (0_u8..).zip(rows()) {
                sqlx::query(insert)
                    .bind(uuid::Uuid::now_v7())
                    .bind(vm.uuid())
                    .bind(time)
                    .bind(f64::from(n % 4))
                    .bind(frame.clone())
                    .execute(&mut connection)
                    .await
                    .unwrap();
            }
            connection.close().await.unwrap();
        }};
    }
    match backend {
        Backend::Sqlite => {
            let store = db.store().await;
            store.close().await;
            fill!(SqliteConnection::connect(&db.url).await.unwrap(), first_sqlite);
        }
        Backend::Postgres => fill!(PgConnection::connect(&db.url).await.unwrap(), first),
    }
    // As the first program left it.
    db.tamper(MIGRATED_SQLITE, MIGRATED_POSTGRES).await;
    mark_first(&db).await;

    let store = db.store().await;
    store.migrate().await.unwrap();
    let kept = store.metrics(vm, at("2025-01-01T00:00:00Z"), 10).await.unwrap();
    let cpu: Vec<_> = kept.iter().map(|row| row.readings.cpu_usage).collect();
    assert_eq!(cpu, [3.0, 2.0, 1.0, 0.0]);
    assert_eq!((kept[0].frame.as_str(), kept[0].readings.memory_total), (r#"{"cpu":1}"#, i64::MAX));
    let series = async |resolution| {
        let fields = vec![SeriesField::CpuUsage];
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-04T00:00:00Z"));
        let series = store.series(&SeriesRequest { vm, from, to, resolution, fields }, 10).await.unwrap();
        let points = series.points.into_iter();
        points.map(|point| (point.at, point.count, point.values[0].unwrap().avg)).collect::<Vec<_>>()
    };
    let (ten, third) = (at("2026-01-01T10:00:00Z"), at("2026-01-03T00:00:00Z"));
    let five = [(ten, 2, 0.5), (ten + TimeDelta::minutes(5), 1, 2.0), (third, 1, 3.0)];
    assert_eq!(series(Resolution::FiveMinutes).await, five);
    assert_eq!(series(Resolution::Hour).await, [(ten, 3, 1.0), (third, 1, 3.0)]);
    // What comes now is added to what was carried over.
    store.insert_metrics(&[sample(vm, ten + TimeDelta::minutes(59), 5.0)]).await.unwrap();
    assert_eq!(series(Resolution::Hour).await, [(ten, 4, 2.0), (third, 1, 3.0)]);
}

const MIGRATED_SQLITE: &str = "CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY, description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)";
const MIGRATED_POSTGRES: &str = "CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY, description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)";

/// Notes that the first migration has run, with the checksum that the program will compare.
async fn mark_first(db: &TestDatabase) {
    macro_rules! mark {
        ($connection:expr, $migrator:expr) => {{
            let mut connection = $connection;
            let migrator = $migrator;
            let first = migrator.iter().next().unwrap();
            sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES ($1, 'first', TRUE, $2, 0)")
                .bind(first.version)
                .bind(first.checksum.to_vec())
                .execute(&mut connection)
                .await
                .unwrap();
            connection.close().await.unwrap();
        }};
    }
    match db.backend() {
        Backend::Sqlite => {
            mark!(SqliteConnection::connect(&db.url).await.unwrap(), sqlx::migrate!("migrations/sqlite"));
        }
        Backend::Postgres => {
            mark!(PgConnection::connect(&db.url).await.unwrap(), sqlx::migrate!("migrations/postgres"));
        }
    }
}

#[tokio::test]
async fn an_older_sqlite_database_is_carried_over() {
    carried_over(Backend::Sqlite).await;
}

#[tokio::test]
async fn an_older_postgresql_database_is_carried_over() {
    carried_over(Backend::Postgres).await;
}
