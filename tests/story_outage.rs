//! The database goes away in the middle of everything: readings, commands and subscribers of a real
//! daemon at once. It stays away for longer than anything in the daemon waits for it.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use fleet::{Fleet, GuestPlan, Kind, Plan};
use serde_json::{Value, json};
use support::{
    api::{Said, Socket},
    away::Away,
    daemon::Client,
    trial::Trial,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);
const GUESTS: usize = 4;
const INTERVAL: Duration = Duration::from_millis(100);
/// Readings of each guest: it goes on sending beyond the outage.
const READINGS: u64 = 450;
/// What the command takes that is under way when the database goes.
const COMMAND_MS: u64 = 5000;
/// From the subscription's begin: it is past the look at its rights every 30 s, the daemon past two
/// looks at its lock every 15 s.
const RECHECKED: Duration = Duration::from_secs(32);
const BACK: Duration = Duration::from_secs(34);
/// How long a refusal may take while requests wait a second for a connection.
const REFUSAL: Duration = Duration::from_secs(5);

const RUN: &str = "mutation($vm: UUID!, $line: String!) { executeVmCommand(vmId: $vm,
    command: { unsafe: { rawCommand: $line } }, timeoutSeconds: 30) { id } }";
const LOG: &str = "query($vm: UUID!) { commandLog(vmId: $vm) { nodes { id status success } } }";
const READ: &str = "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { id } }";

/// Somebody who watches a VM's readings; `Err` with what ended it.
struct Watcher {
    seen: Arc<AtomicU64>,
    task: JoinHandle<String>,
}

impl Watcher {
    async fn begin(trial: &Trial, vm: &str) -> Self {
        let mut socket = Socket::introduced(&trial.daemon, &trial.token).await;
        socket.begin("m", READ, json!({ "vm": vm })).await;
        let seen = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    match socket.next().await {
                        Said::Message(m) if m["payload"]["data"]["vmMetrics"]["id"].is_string() => {
                            seen.fetch_add(1, SeqCst);
                        }
                        end => return format!("{end:?}"),
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// Waits for so many more, which must come.
    async fn sees(&mut self, more: u64) {
        let until = self.seen.load(SeqCst) + more;
        let seen = Arc::clone(&self.seen);
        let enough = async {
            while seen.load(SeqCst) < until {
                tokio::time::sleep(INTERVAL / 2).await;
            }
        };
        tokio::select! {
            end = &mut self.task => panic!("the subscription ended: {end:?}"),
            enough = tokio::time::timeout(SOON, enough) => enough.expect("it goes on giving readings"),
        }
    }
}

async fn is_refused(client: &Client, vm: &str) {
    let asked = Instant::now();
    let code = client.refused(RUN, json!({ "vm": vm, "line": "refused" })).await;
    assert_eq!(code, "STORE_UNAVAILABLE");
    assert!(asked.elapsed() < REFUSAL, "refused after {:?}", asked.elapsed());
}

async fn logged(client: &Client, vm: &str) -> Vec<Value> {
    client.ask(LOG, json!({ "vm": vm })).await["commandLog"]["nodes"].as_array().unwrap().clone()
}

/// Waits until this is so.
async fn until(what: &str, limit: Duration, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !so().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

on_both! {
    async fn an_outage_costs_refusals_and_nothing_else(db: TestDatabase) {
        let mut away = Away::new(&db).await;
        let trial = Trial::start_over(&away.url, &[
            ("INFINIBAY__DATABASE__ACQUIRE_TIMEOUT", "1s"),
            ("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s"),
            // What a guest kept until its VM was made comes at once.
            ("INFINIBAY__AGENTS__MAX_FRAMES_PER_SECOND", "500"),
        ]).await;
        let mut plan = Plan::of(Kind::WellBehaved, GUESTS, INTERVAL, 7);
        for guest in &mut plan.guests {
            *guest = GuestPlan { limit: Some(READINGS), ..guest.clone() };
        }
        let fleet = Fleet::start(&trial.home.socket_dir(), plan).unwrap();
        let ids: Vec<Uuid> = fleet.ids().collect();
        for (number, vm) in ids.iter().enumerate() {
            let mut request = trial.request(&format!("guest-{number}"));
            request["id"] = json!(vm);
            let (_, operation) = trial.client.create(request).await;
            trial.client.succeeded(&operation, SOON).await;
        }
        let vm = ids[0].to_string();
        for vm in &ids {
            trial.client.agent_is(&vm.to_string(), "ONLINE", SOON).await;
        }
        let commands = || fleet.report(ids[0]).unwrap().commands_received;
        let before = commands();
        let watched = Instant::now();
        let mut watcher = Watcher::begin(&trial, &vm).await;
        watcher.sees(3).await;
        let in_flight = tokio::spawn({
            let (client, vm) = (trial.client.clone(), vm.clone());
            async move { client.shell(&vm, &format!("sleep {COMMAND_MS}")).await }
        });
        until("the guest has the command", SOON, async || commands() == before + 1).await;

        away.cut().await;
        is_refused(&trial.client, &vm).await;
        assert!(!in_flight.is_finished(), "it was answered before the database was away");
        // To its caller it is answered all the same.
        let answer = tokio::time::timeout(SOON, in_flight).await.expect("answered").unwrap();
        assert_eq!((&answer["success"], &answer["status"]), (&json!(true), &json!("ANSWERED")), "{answer}");
        while watched.elapsed() < RECHECKED {
            is_refused(&trial.client, &vm).await;
            watcher.sees(5).await;
        }
        let left = BACK.saturating_sub(watched.elapsed());
        tokio::join!(tokio::time::sleep(left), watcher.sees(5));
        assert_eq!(commands(), before + 1, "a refused command was sent");
        let sent: u64 = fleet.reports().iter().map(|report| report.frames_sent).sum();
        assert!(sent > 300, "{sent} readings: hardly anything happened");
        away.restore().await;

        until("commands are taken again", SOON, async || {
            let answer = trial.client.send(RUN, json!({ "vm": vm, "line": "after" })).await;
            answer.get("errors").is_none()
        }).await;
        assert_eq!(commands(), before + 2);
        until("the outcome is in the log", SOON, async || {
            let log = logged(&trial.client, &vm).await;
            let kept = log.iter().find(|entry| entry["id"] == answer["id"]).expect("its row is there");
            kept["status"] == "ANSWERED" && kept["success"] == true
        }).await;
        watcher.sees(1).await;

        // Every reading is stored once, and counted once in every roll-up.
        let all = READINGS * GUESTS as u64;
        until("everything is sent", SOON, async || {
            fleet.reports().iter().map(|report| report.frames_sent).sum::<u64>() == all
        }).await;
        let all = i64::try_from(all).unwrap();
        until("everything is stored", SOON, async || db.number("SELECT count(*) FROM vm_metrics").await >= all).await;
        trial.daemon.stop();
        assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, all);
        assert_eq!(db.number("SELECT count(DISTINCT id) FROM vm_metrics").await, all);
        for rolled_up in [
            "SELECT CAST(sum(count) AS BIGINT) FROM vm_metrics_rollups WHERE width_seconds = 300",
            "SELECT CAST(sum(count) AS BIGINT) FROM vm_metrics_rollups WHERE width_seconds = 3600",
        ] {
            assert_eq!(db.number(rolled_up).await, all, "{rolled_up}");
        }
        assert_eq!(db.number("SELECT count(*) FROM command_log WHERE status = 'pending'").await, 0);
        watcher.task.abort();
        fleet.stop().await;
    }
}
