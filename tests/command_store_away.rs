//! Commands while the database is away: new ones are refused soon, those in flight are answered,
//! and what became of them is in the log when it is back.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::{
    config::CommandsConfig,
    store::{CommandStatus, Store},
    vm::CommandId,
};
use sqlx::Connection as _;
use support::{
    away::Away,
    database::{Backend, TestDatabase},
    guest::{DEADLINE, eventually},
    journey::{Journey, one_at_a_time, shell},
};

async fn journey(away: &Away) -> Journey {
    let store = Store::open(&away.url, 8, Duration::from_secs(10)).await.unwrap();
    Journey::over(store, CommandsConfig::default(), one_at_a_time).await
}

on_both! {
    async fn new_ones_are_refused_and_those_in_flight_end_well(db: TestDatabase) {
        let mut away = Away::new(&db).await;
        let journey = journey(&away).await;
        let id = CommandId::generate();
        let in_flight = journey.begin(id, &journey.actor, "sleep 2000");
        eventually("it is sent", || journey.lines().pop()).await;
        away.cut().await;
        for _ in 0..2 {
            let start = Instant::now();
            let refused = journey.run(shell("refused")).await.unwrap_err();
            assert_eq!(refused.code(), "STORE_UNAVAILABLE", "{refused:?}");
            assert!(start.elapsed() < Duration::from_secs(2), "refused after {:?}", start.elapsed());
        }
        let record = tokio::time::timeout(DEADLINE, in_flight).await.expect("answered").unwrap().unwrap();
        assert_eq!(record.status, CommandStatus::Answered);
        away.restore().await;
        assert!(journey.commands.drain(2 * DEADLINE).await, "its outcome waits on");
        let kept = db.store().await.command(id).await.unwrap().unwrap();
        assert_eq!((kept.status, kept.response), (CommandStatus::Answered, record.response));
        assert_eq!((kept.queue_ms, kept.run_ms, kept.sent_at), (record.queue_ms, record.run_ms, record.sent_at));
        assert_eq!(journey.run(shell("after")).await.unwrap().status, CommandStatus::Answered);
        assert_eq!(journey.lines(), ["sleep 2000", "after"], "a refused one was sent");
        assert_eq!(db.number("SELECT count(*) FROM command_log WHERE status = 'pending'").await, 0);
    }
}

/// Nobody stands between the store and a file, so that this is PostgreSQL's alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_may_have_been_logged_is_not_sent_and_its_row_says_so() {
    let db = TestDatabase::new(Backend::Postgres).await;
    // One connection, which has prepared its statement: then the whole command is under way.
    let store = Store::open(&db.url, 1, Duration::from_secs(30)).await.unwrap();
    let journey = Journey::over(store, CommandsConfig::default(), one_at_a_time).await;
    journey.run(shell("before")).await.unwrap();
    // Somebody keeps the database from doing what it was asked; it does it later.
    let mut somebody = sqlx::PgConnection::connect(&db.url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE command_log").execute(&mut somebody).await.unwrap();
    let refused = journey.run(shell("unknown")).await.unwrap_err();
    assert_eq!(refused.code(), "STORE_UNAVAILABLE", "{refused:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut somebody).await.unwrap();
    let start = Instant::now();
    while db.number("SELECT count(*) FROM command_log WHERE status = 'pending'").await == 0 {
        assert!(start.elapsed() < DEADLINE, "the database gave it up, too");
    }
    assert!(journey.commands.drain(2 * DEADLINE).await, "the row waits on");
    let record = journey.log().await.remove(0);
    assert_eq!(
        (record.status, record.success, record.sent_at),
        (CommandStatus::Cancelled, Some(false), None)
    );
    let words = record.response.unwrap().tree()["error"].to_string();
    assert!(words.contains("was not sent and did not run"), "{words}");
    assert_eq!(journey.lines(), ["before"]);
}
