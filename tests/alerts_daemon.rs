//! Alerts of a whole daemon: from a guest's socket to the operator's webhook, and to the log.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::time::Duration;

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    daemon::Client,
    database::TestDatabase,
    guest::{FakeGuest, eventually, well_behaved},
    trial::Trial,
    webhook::{Mood, Receiver, SECRET},
};

const SOON: Duration = Duration::from_secs(20);
const ALERTS: &str = "query($open: Boolean!) { alerts(openOnly: $open) { nodes { kind severity vmId vmName
    summary count resolvedAt delivery { state lastError notified } } } }";

/// Agents count as offline at once, and alerts of that come soon.
const IMPATIENT: [(&str, &str); 3] = [
    ("INFINIBAY__AGENTS__OFFLINE_AFTER", "2s"),
    ("INFINIBAY__AGENTS__LIVENESS_INTERVAL", "1s"),
    ("INFINIBAY__ALERTS__OFFLINE_FOR", "1s"),
];

/// A daemon that stores what guests say at once.
async fn start(db: &TestDatabase, receiver: Option<&Receiver>, more: &[(&str, &str)]) -> Trial {
    let url = receiver.map(Receiver::url);
    let mut env = vec![("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s")];
    env.extend(more);
    if let Some(url) = &url {
        env.extend([
            ("INFINIBAY__ALERTS__WEBHOOK_URL", url.as_str()),
            ("INFINIBAY__ALERTS__WEBHOOK_SECRET", SECRET),
        ]);
    }
    Trial::start_with(db, &env).await
}

/// A VM whose agent says `opening` after its greeting.
async fn guest(trial: &Trial, id: VmId, opening: &str) -> FakeGuest {
    let opening = opening.as_bytes().to_vec();
    FakeGuest::listen(&trial.home.socket_dir(), id, move |s, r| well_behaved(s, r, 1, opening.clone()))
}

async fn create(trial: &Trial, id: VmId, name: &str) {
    let mut request = trial.request(name);
    request["id"] = json!(id.to_string());
    trial.client.create(request).await;
}

async fn listed(client: &Client, open: bool) -> Vec<Value> {
    client.ask(ALERTS, json!({ "open": open })).await["alerts"]["nodes"].as_array().unwrap().clone()
}

/// An error in the guest's words, as one line.
fn error_line(error: &str) -> String {
    let frame = json!({
        "type": "error", "timestamp": support::guest::now(), "error": error,
        "details": { "component": "storage", "command_line": "mount --password hunter2" },
    });
    format!("{frame}\n")
}

/// A reading of a guest whose clock is an hour slow, as one line.
fn stale_line() -> String {
    let mut frame: Value = serde_json::from_str(&support::guest::metrics_line(5.0)).unwrap();
    frame["timestamp"] = json!((chrono::Utc::now() - chrono::TimeDelta::hours(1)).to_rfc3339());
    format!("{frame}\n")
}

on_both! {
    async fn a_guests_error_survives_a_crash_and_reaches_the_webhook(db: TestDatabase) {
        let receiver = Receiver::new().await;
        receiver.mood(Mood::Answers(503));
        let mut trial = start(&db, Some(&receiver), &[]).await;
        let id = VmId::generate();
        let _guest = guest(&trial, id, &error_line("disk \u{1b}[31mfull: mount --password hunter2")).await;
        create(&trial, id, "web").await;
        // Stored and tried, and not taken: then the daemon dies.
        eventually("an attempt", || (!receiver.deliveries().is_empty()).then_some(())).await;
        let before = trial.home.between(&mut trial.daemon, |_| {
            receiver.mood(Mood::Answers(200));
            receiver.deliveries().len()
        });
        eventually("it again", || (receiver.deliveries().len() > before).then_some(())).await;
        let message = receiver.deliveries().pop().unwrap();
        let data = &message["data"];
        assert_eq!((&message["type"], &data["kind"]), (&json!("alert.firing"), &json!("guest_error")));
        assert_eq!(data["vm"], json!({ "id": id.to_string(), "name": "web" }));
        assert!(!message.to_string().contains("hunter2"), "a secret was told: {message}");
        assert!(!data["summary"].as_str().unwrap().contains('\u{1b}'), "{message}");
        assert_eq!(receiver.told().len(), 1, "one message, however often it was sent");

        let stranger = trial.home.between(&mut trial.daemon, |home| home.user("stranger", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let alerts = listed(&trial.client, true).await;
        let of_web = alerts.iter().find(|alert| alert["kind"] == "GUEST_ERROR").expect("it is open");
        assert_eq!((&of_web["vmId"], &of_web["vmName"]), (&json!(id.to_string()), &json!("web")));
        assert_eq!(listed(&trial.daemon.client(&stranger), false).await, Vec::<Value>::new());
    }

    async fn an_agent_that_falls_silent_is_told_and_so_is_its_return(db: TestDatabase) {
        let receiver = Receiver::new().await;
        let trial = start(&db, Some(&receiver), &IMPATIENT).await;
        let id = VmId::generate();
        let first = guest(&trial, id, "").await;
        create(&trial, id, "web").await;
        let vm = id.to_string();
        trial.client.agent_is(&vm, "ONLINE", SOON).await;
        drop(first);
        trial.client.agent_is(&vm, "OFFLINE", SOON).await;
        let fired = receiver.receives("alert.firing", "vm_offline").await;
        assert_eq!(fired["data"]["severity"], "warning", "{fired}");
        assert_eq!(fired["data"]["details"]["agent"], "OFFLINE", "{fired}");

        // Stopped on purpose, it is not missed any more.
        let operation = trial.client.change("stopVm", &vm).await;
        trial.client.succeeded(&operation, SOON).await;
        receiver.receives("alert.resolved", "vm_offline").await;
        let ended = listed(&trial.client, false).await;
        assert!(ended.iter().all(|alert| alert["resolvedAt"].is_string()), "{ended:?}");
        assert_eq!(listed(&trial.client, true).await, Vec::<Value>::new());
    }

    async fn without_a_webhook_the_log_and_the_table_have_it(db: TestDatabase) {
        let trial = start(&db, None, &[]).await;
        let id = VmId::generate();
        let _guest = guest(&trial, id, &(error_line("disk full") + &stale_line())).await;
        create(&trial, id, "web").await;
        let log = trial.home.path().join("log-1");
        for kind in ["clock_skew", "guest_error"] {
            let line = eventually(kind, || {
                let log = std::fs::read_to_string(&log).unwrap();
                let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                lines.into_iter().find(|line| {
                    line["fields"]["message"] == "alert.firing" && line["fields"]["kind"] == kind
                })
            }).await;
            assert_eq!((&line["level"], &line["fields"]["name"]), (&json!("WARN"), &json!("web")));
            assert_eq!(line["fields"]["vm"], json!(id.to_string()));
        }
        let told = tokio::time::timeout(SOON, async {
            loop {
                let alerts = listed(&trial.client, true).await;
                if alerts.len() == 2 && alerts.iter().all(|alert| alert["delivery"]["state"] == "SUPPRESSED") {
                    return alerts;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }).await.expect("both are in the table in time");
        let mut kinds: Vec<_> = told.iter().map(|alert| alert["kind"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["CLOCK_SKEW", "GUEST_ERROR"]);
    }
}
