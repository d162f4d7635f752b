//! The database is away for so long that the disk's bound is reached: the oldest readings go, a
//! scraper sees how many and why, and when the database is back its operators are told.
//!
//! On SQLite alone: what fills and empties the spool does not know which database is away (each of
//! its own stories runs on both), and this one has to wait until a MiB has come and an alert is
//! looked for.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use fleet::{Fleet, GuestPlan, Kind, Plan};
use serde_json::{Value, json};
use support::{
    away::Away,
    database::{Backend, TestDatabase},
    scrape::Scrape,
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(40);
const GUESTS: usize = 4;
const INTERVAL: Duration = Duration::from_millis(40);
/// Of each guest; together a few times what the spool holds.
const READINGS: u64 = 500;
const ALERTS: &str = "{ alerts(openOnly: false) { nodes { kind vmId severity summary details } } }";

async fn scrape(trial: &Trial) -> Scrape {
    let request =
        reqwest::Client::new().get(format!("{}/metrics", trial.daemon.url)).bearer_auth(&trial.token);
    Scrape::read(&request.send().await.unwrap().text().await.unwrap())
}

/// How many were lost so far for want of room on disk.
async fn lost(trial: &Trial) -> u64 {
    let lost = scrape(trial).await.value("infinibay_readings_lost_total", &[("reason", "spool_full")]);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    lost.map_or(0, |lost| lost as u64)
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so().await {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn alert(trial: &Trial) -> Option<Value> {
    let data = trial.client.ask(ALERTS, json!({})).await;
    data["alerts"]["nodes"].as_array().unwrap().iter().find(|alert| alert["kind"] == "READINGS_LOST").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_spool_costs_is_counted_and_alarmed() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let mut away = Away::new(&db).await;
    let trial = Trial::start_over(
        &away.url,
        &[
            ("INFINIBAY__DATABASE__ACQUIRE_TIMEOUT", "1s"),
            ("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s"),
            ("INFINIBAY__METRICS__SPOOL_MAX_BYTES", "1048576"),
            ("INFINIBAY__AGENTS__MAX_FRAMES_PER_SECOND", "1000"),
        ],
    )
    .await;
    let mut plan = Plan::of(Kind::WellBehaved, GUESTS, INTERVAL, 11);
    for guest in &mut plan.guests {
        *guest = GuestPlan { limit: Some(READINGS), ..guest.clone() };
    }
    let fleet = Fleet::start(&trial.home.socket_dir(), plan).unwrap();
    for (number, vm) in fleet.ids().enumerate() {
        let mut request = trial.request(&format!("guest-{number}"));
        request["id"] = json!(vm);
        let (_, operation) = trial.client.create(request).await;
        trial.client.succeeded(&operation, SOON).await;
    }
    for vm in fleet.ids() {
        trial.client.agent_is(&vm.to_string(), "ONLINE", SOON).await;
    }

    away.cut().await;
    until("the oldest go and are counted", async || lost(&trial).await > 0).await;
    let all = READINGS * GUESTS as u64;
    until("everything is sent", async || {
        fleet.reports().iter().map(|report| report.frames_sent).sum::<u64>() == all
    })
    .await;
    let spooled = scrape(&trial).await.value("infinibay_spool_bytes", &[]).unwrap();
    assert!(spooled <= f64::from(1 << 20), "{spooled} bytes wait on disk");
    assert_eq!(alert(&trial).await, None, "its table is away, too");
    away.restore().await;

    until("the alert", async || alert(&trial).await.is_some()).await;
    until("the disk is empty", async || {
        scrape(&trial).await.value("infinibay_spool_bytes", &[]) == Some(0.0)
    })
    .await;
    // Nothing is lost any more; an alert that was looked for in between is told again.
    let lost = lost(&trial).await;
    let of_it = json!({ "lostSinceStart": lost, "byReason": { "spool_full": lost } });
    until("the alert says it all", async || alert(&trial).await.unwrap()["details"] == of_it).await;
    let figures = scrape(&trial).await;
    let taken = figures.value("infinibay_readings_total", &[]);
    let stored = u64::try_from(db.number("SELECT count(*) FROM vm_metrics").await).unwrap();
    assert_eq!(stored + lost, all, "{stored} stored, {lost} lost, {taken:?} taken");
    let told = alert(&trial).await.unwrap();
    assert_eq!((&told["vmId"], &told["severity"]), (&Value::Null, &json!("CRITICAL")), "{told}");
    let words = format!("{lost} (no room on disk)");
    assert!(told["summary"].as_str().unwrap().contains(&words), "{told}");
    trial.daemon.stop();
    fleet.stop().await;
}
