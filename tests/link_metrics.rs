//! A reading's way: from the links' channel to those who watch and into the database, whatever
//! guests send and however the database fares.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[macro_use]
mod support;

use std::time::Duration;

use agent_protocol::SystemReading;
use chrono::{TimeDelta, Utc};
use infinibay::{
    agents::GuestFrame,
    config::MetricsConfig,
    events::Notice,
    metrics::Rejections,
    store::Page,
    vm::{VmEvent, VmId},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use support::{
    database::{Backend, TestDatabase},
    guest::{DEADLINE, eventually},
    pipeline::{Pipeline, eager, stored, system, until_stored},
};

/// Changes the database behind the store's back.
async fn meddle(db: &TestDatabase, sqlite: &str, postgres: &str) {
    match db.backend() {
        Backend::Sqlite => {
            let mut connection = SqliteConnection::connect(&db.url).await.expect("connecting");
            connection.execute(AssertSqlSafe(sqlite)).await.expect(sqlite);
            connection.close().await.expect("closing");
        }
        Backend::Postgres => {
            let mut connection = PgConnection::connect(&db.url).await.expect("connecting");
            connection.execute(AssertSqlSafe(postgres)).await.expect(postgres);
            connection.close().await.expect("closing");
        }
    }
}

on_both! {
    async fn a_valid_reading_is_told_at_once_and_stored_by_the_stop(db: TestDatabase) {
        // The interval never comes: what is stored was stored by the stop.
        let config = MetricsConfig { flush_interval: Duration::from_secs(3600), ..MetricsConfig::default() };
        let mut pipeline = Pipeline::start(&db, config).await;
        let vm = VmId::generate();
        pipeline.send(vm, system(12.5)).await;
        let told = tokio::time::timeout(DEADLINE, pipeline.told.next()).await.expect("told in time");
        let Some(Notice::Event(VmEvent::Metrics(sample))) = told else { panic!("{told:?}") };
        assert_eq!((sample.vm, sample.readings.cpu_usage, sample.readings.memory_used, sample.readings.memory_total), (vm, 12.5, 40, 100));
        assert!(!sample.frame.as_str().contains("hunter2"), "a secret was told");
        assert!(stored(&pipeline.store, vm).await.is_empty());
        let store = pipeline.stop().await;
        let rows = stored(&store, vm).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].id, sample.id);
        // What was hidden was all that changed: the text is the guest's own.
        assert_eq!(rows[0].frame.as_str(), system(12.5).to_string().replace("hunter2", "***"));
        assert_eq!(rows[0].frame.tree()["processes"][0]["command_line"], json!("x --password ***"));
    }

    async fn enough_rows_are_stored_before_the_interval(db: TestDatabase) {
        let config = MetricsConfig {
            flush_interval: Duration::from_secs(3600),
            flush_rows: 5,
            ..MetricsConfig::default()
        };
        let pipeline = Pipeline::start(&db, config).await;
        let vm = VmId::generate();
        for n in 0..5 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        assert_eq!(until_stored(&pipeline.store, vm, 5).await, [0.0, 1.0, 2.0, 3.0, 4.0]);
        pipeline.stop().await;
    }

    async fn what_is_refused_is_counted_by_reason_and_not_stored(db: TestDatabase) {
        let pipeline = Pipeline::start(&db, eager()).await;
        let (vm, other) = (VmId::generate(), VmId::generate());
        pipeline.send(vm, json!({"cpu": {}})).await;
        pipeline.send(vm, system(101.0)).await;
        pipeline.send(vm, json!({"cpu": {"usage_percent": 1}, "memory": {"used_kb": 2, "total_kb": 1}})).await;
        let now = Utc::now();
        let skewed = GuestFrame::Metrics {
            vm, received_at: now, timestamp: now - TimeDelta::hours(2), system: SystemReading::of(&system(3.0)),
        };
        pipeline.frames.send(skewed).await.expect("taken");
        pipeline.send(vm, system(1.0)).await;
        assert_eq!(until_stored(&pipeline.store, vm, 1).await, [1.0]);
        assert_eq!(pipeline.metrics.rejections(vm), Rejections { shape: 1, range: 2, skew: 1, errors_muted: 0 });
        assert_eq!(pipeline.metrics.rejections(other), Rejections::default());
        pipeline.stop().await;
    }

    async fn rates_of_the_network_are_told_between_frames_of_one_vm(db: TestDatabase) {
        let mut pipeline = Pipeline::start(&db, eager()).await;
        let (vm, other) = (VmId::generate(), VmId::generate());
        let now = Utc::now();
        let counted = |cpu, received, sent| {
            let mut system = system(cpu);
            system["network"] = json!({"interfaces": [
                {"name": "lo", "bytes_received": 1, "bytes_sent": 1},
                {"name": "eth0", "bytes_received": received, "bytes_sent": sent},
            ]});
            SystemReading::of(&system)
        };
        for (vm, seconds, system) in [
            (vm, 0, counted(1.0, 1000, 10)),
            (other, 1, counted(1.0, 5, 5)),
            // Refused, so that nothing is told against it.
            (vm, 5, counted(101.0, 9, 9)),
            (vm, 10, counted(1.0, 4000, 10)),
            // The guest began anew.
            (vm, 20, counted(1.0, 3, 3)),
            (vm, 30, counted(1.0, 3, 13)),
        ] {
            let frame = GuestFrame::Metrics { vm, received_at: now, timestamp: now + TimeDelta::seconds(seconds), system };
            pipeline.frames.send(frame).await.expect("taken");
        }
        let mut told = Vec::new();
        while told.len() < 5 {
            let notice = tokio::time::timeout(DEADLINE, pipeline.told.next()).await.expect("told in time");
            let Some(Notice::Event(VmEvent::Metrics(sample))) = notice else { panic!("{notice:?}") };
            told.push(sample.readings.network.map(|rates| (rates.received, rates.sent)));
        }
        assert_eq!(told, [None, None, Some((300.0, 0.0)), None, Some((0.0, 1.0))]);
        pipeline.stop().await;
    }

    async fn a_guests_errors_are_stored_and_told_but_not_without_end(db: TestDatabase) {
        let mut pipeline = Pipeline::start(&db, eager()).await;
        let vm = VmId::generate();
        let received_at = Utc::now();
        for n in 0..500 {
            let frame = GuestFrame::Error {
                vm,
                received_at,
                // A clock of another century: the error is dated by ours.
                timestamp: Some(received_at - TimeDelta::days(40_000)),
                error: format!("error {n}: x --token hunter2"),
                details: json!({"command_line": "x --token hunter2", "message": "x --token hunter2"}),
            };
            pipeline.frames.send(frame).await.expect("taken");
        }
        let told = tokio::time::timeout(DEADLINE, pipeline.told.next()).await.expect("told in time");
        let Some(Notice::Event(VmEvent::Error { vm: of, error, .. })) = told else { panic!("{told:?}") };
        assert_eq!((of, error.as_str()), (vm, "error 0: x --token ***"));
        let metrics = pipeline.metrics.clone();
        let store = pipeline.stop().await;
        let errors = store.vm_errors(vm, Page { first: 1000, after: None }).await.unwrap().nodes;
        let muted = usize::try_from(metrics.rejections(vm).errors_muted).unwrap();
        assert_eq!(errors.len() + muted, 500, "what is not kept is counted");
        assert!((60..=120).contains(&errors.len()), "{} errors stored", errors.len());
        let first = errors.iter().find(|error| error.error == "error 0: x --token ***").expect("the first is stored");
        assert_eq!(first.timestamp, first.created_at);
        assert_eq!(first.details, json!({"command_line": "x --token ***", "message": "x --token ***"}));
    }

    async fn readings_survive_a_database_that_fails_for_a_while_in_order(db: TestDatabase) {
        let pipeline = Pipeline::start(&db, eager()).await;
        let vm = VmId::generate();
        pipeline.send(vm, system(0.0)).await;
        until_stored(&pipeline.store, vm, 1).await;
        let away = "ALTER TABLE vm_metrics RENAME TO vm_metrics_away";
        meddle(&db, away, away).await;
        for n in 1..20 {
            pipeline.send(vm, system(f64::from(n))).await;
            // Several flushes fail meanwhile; none of them may take the readings with it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let back = "ALTER TABLE vm_metrics_away RENAME TO vm_metrics";
        meddle(&db, back, back).await;
        let cpu = until_stored(&pipeline.store, vm, 20).await;
        assert_eq!(cpu, (0..20).map(f64::from).collect::<Vec<_>>());
        pipeline.stop().await;
    }

    async fn a_row_that_the_database_refuses_does_not_hold_up_the_others(db: TestDatabase) {
        meddle(
            &db,
            "CREATE TRIGGER no_thirteen BEFORE INSERT ON vm_metrics WHEN NEW.cpu_usage = 13
             BEGIN SELECT RAISE(ABORT, 'thirteen'); END",
            "ALTER TABLE vm_metrics ADD CONSTRAINT no_thirteen CHECK (cpu_usage <> 13)",
        )
        .await;
        let pipeline = Pipeline::start(&db, eager()).await;
        let vm = VmId::generate();
        for n in 0..40 {
            pipeline.send(vm, system(f64::from(n))).await;
        }
        let cpu = until_stored(&pipeline.store, vm, 39).await;
        assert_eq!(cpu, (0..40).filter(|n| *n != 13).map(f64::from).collect::<Vec<_>>());
        eventually("the refused one is counted", || (pipeline.metrics.lost().counts.total() == 1).then_some(())).await;
        pipeline.stop().await;
    }

    async fn a_stop_while_the_database_is_away_ends_in_time(db: TestDatabase) {
        let mut pipeline = Pipeline::start(&db, eager()).await;
        let vm = VmId::generate();
        pipeline.store.close().await;
        pipeline.send(vm, system(1.0)).await;
        let told = tokio::time::timeout(DEADLINE, pipeline.told.next()).await.expect("told all the same");
        assert!(matches!(told, Some(Notice::Event(VmEvent::Metrics(_)))), "{told:?}");
        pipeline.stop().await;
    }
}

#[tokio::test]
async fn a_pipeline_outlives_its_links_until_it_is_stopped() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let pipeline = Pipeline::start(&db, eager()).await;
    let vm = VmId::generate();
    pipeline.send(vm, system(7.0)).await;
    let Pipeline { store, frames, stop, task, .. } = pipeline;
    drop(frames);
    until_stored(&store, vm, 1).await;
    assert!(!task.is_finished(), "it ended before it was stopped");
    stop.cancel();
    eventually("it stops", || task.is_finished().then_some(())).await;
}
