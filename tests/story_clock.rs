//! The host's clock is set an hour forth, and later back, while guests report, a command runs and
//! operations are under way: nobody is told to be away who is there, or there who is away, nothing
//! times out, no retry waits for the hour, and readings are stored with times that both clocks share.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    clock::Clock,
    daemon::Client,
    guest::{FakeGuest, answer_line, handshake_line, metrics_line},
    trial::Trial,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    task::JoinHandle,
};

const SOON: Duration = Duration::from_secs(40);
const HOUR: i64 = 3600;
/// Between two readings. Several looks at a guest find nothing new of it.
const INTERVAL: Duration = Duration::from_secs(2);
/// What a guest is given before it counts as away.
const SILENCE: &str = "6s";
/// Between two looks of the story.
const GLANCE: Duration = Duration::from_millis(50);

/// A guest with a clock of its own.
#[derive(Clone, Default)]
struct Guest {
    /// By how many seconds its clock is off.
    clock: Arc<AtomicI64>,
    mute: Arc<AtomicBool>,
}

impl Guest {
    fn listen(&self, trial: &Trial) -> FakeGuest {
        let guest = self.clone();
        FakeGuest::listen(&trial.home.socket_dir(), VmId::generate(), move |stream, _| {
            guest.clone().serve(stream)
        })
    }

    /// Reports all the time, and answers shell lines at once, but for `sleep`.
    async fn serve(self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut ticks = tokio::time::interval(INTERVAL);
        writer.write_all(handshake_line(4).as_bytes()).await?;
        let mut asleep: Option<(tokio::time::Instant, Value)> = None;
        loop {
            let wakes = asleep.as_ref().map_or_else(tokio::time::Instant::now, |(at, _)| *at);
            tokio::select! {
                _ = ticks.tick() => if !self.mute.load(SeqCst) {
                    writer.write_all(self.reading().as_bytes()).await?;
                },
                () = tokio::time::sleep_until(wakes), if asleep.is_some() => {
                    let (_, id) = asleep.take().unwrap();
                    writer.write_all(answer_line(&id, "slept").as_bytes()).await?;
                }
                line = lines.next_line() => {
                    let Some(line) = line? else { return Ok(()) };
                    let message: Value = serde_json::from_str(&line)?;
                    if message["id"].is_string() {
                        asleep = Some((tokio::time::Instant::now() + Duration::from_secs(4), message["id"].clone()));
                    }
                }
            }
        }
    }

    fn reading(&self) -> String {
        let mut reading: Value = serde_json::from_str(&metrics_line(5.0)).unwrap();
        let now = Utc::now() + TimeDelta::seconds(self.clock.load(SeqCst));
        reading["timestamp"] = json!(now.to_rfc3339());
        format!("{reading}\n")
    }
}

/// Asks on and on whether the agent is online, and fails when it is not.
fn online_all_the_time(client: Client, vm: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let now = client.vm(&vm).await;
            assert_eq!(now["agent"]["connectivity"], "ONLINE", "{now}");
            tokio::time::sleep(GLANCE).await;
        }
    })
}

/// When the newest reading was made, by the daemon's clock, which is off by so many seconds; waits
/// for one that is younger than this minute.
async fn stored_within_a_minute(client: &Client, vm: &str, clock: i64) {
    const READINGS: &str = "query($vm: UUID!) { getVmMetrics(vmId: $vm, hours: 2) { timestamp } }";
    let deadline = Instant::now() + SOON;
    loop {
        let data = client.ask(READINGS, json!({ "vm": vm })).await;
        let times = data["getVmMetrics"].as_array().unwrap().iter();
        let times = times.map(|row| row["timestamp"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap());
        let now = Utc::now() + TimeDelta::seconds(clock);
        if times.into_iter().any(|at| (now - at).abs() < TimeDelta::minutes(1)) {
            return;
        }
        assert!(Instant::now() < deadline, "no reading of this minute is stored");
        tokio::time::sleep(GLANCE).await;
    }
}

async fn skewed(client: &Client, vm: &str, status: &str) {
    client.condition(vm, "CLOCK_SKEW", |it| it["status"] == status).await;
}

async fn is_under_way(client: &Client, operation: &str) {
    let now = client.operation(operation).await;
    assert!(["PENDING", "RUNNING"].contains(&now["status"].as_str().unwrap()), "{now}");
}

async fn made(trial: &Trial, name: &str, guest: &FakeGuest) -> (String, String) {
    let mut request = trial.request(name);
    request["id"] = json!(guest.vm.to_string());
    trial.client.create(request).await
}

on_both! {
    async fn an_hour_forth_and_back_is_lived_through(db: TestDatabase) {
        let clock = Clock::new();
        let mut env = clock.env();
        for (key, value) in [
            ("INFINIBAY__AGENTS__OFFLINE_AFTER", SILENCE),
            ("INFINIBAY__AGENTS__LIVENESS_INTERVAL", "1s"),
            ("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s"),
        ] {
            env.push((key.to_owned(), value.to_owned()));
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let trial = Trial::start_with(&db, &env).await;
        let client = &trial.client;

        let (talker, quiet) = (Guest::default(), Guest::default());
        let (talks, falls_quiet) = (talker.listen(&trial), quiet.listen(&trial));
        let (vm, create) = made(&trial, "talker", &talks).await;
        client.succeeded(&create, SOON).await;
        let (other, create) = made(&trial, "quiet", &falls_quiet).await;
        client.succeeded(&create, SOON).await;
        for vm in [&vm, &other] {
            client.agent_is(vm, "ONLINE", SOON).await;
        }
        // Its first boot does not end.
        let (booting, install) = client.create(trial.request("booting")).await;
        client.phase_is(&booting, "INSTALLING", SOON).await;
        let online = online_all_the_time(client.clone(), vm.clone());
        stored_within_a_minute(client, &vm, 0).await;

        // An hour forth, in the middle of a command. The guest's clock does not follow at first: its
        // readings are refused, and it is there.
        let command = tokio::spawn({
            let (client, vm) = (client.clone(), vm.clone());
            async move { client.shell(&vm, "sleep").await }
        });
        tokio::time::sleep(GLANCE).await;
        clock.set(HOUR);
        skewed(client, &vm, "TRUE").await;
        let answer = command.await.unwrap();
        assert_eq!(answer["status"], "ANSWERED", "{answer}");
        let took: u64 = answer["executionMs"].as_str().unwrap().parse().unwrap();
        assert!((4000..60_000).contains(&took), "{answer}");
        is_under_way(client, &install).await;
        talker.clock.store(HOUR, SeqCst);
        skewed(client, &vm, "FALSE").await;
        stored_within_a_minute(client, &vm, HOUR).await;

        // An hour back, in the middle of a deletion that is tried again and again; another guest falls
        // silent that moment.
        let held_up = Guest::default();
        let holds_up = held_up.listen(&trial);
        let (going, create) = made(&trial, "going", &holds_up).await;
        client.succeeded(&create, SOON).await;
        let delete = client.change("deleteVm", &going).await;
        let held = |it: &Value| it["message"].as_str().unwrap().contains("listens");
        client.condition(&going, "RECONCILED", held).await;
        quiet.mute.store(true, SeqCst);
        clock.set(0);
        client.agent_is(&other, "OFFLINE", SOON).await;
        skewed(client, &vm, "TRUE").await;
        talker.clock.store(0, SeqCst);
        skewed(client, &vm, "FALSE").await;
        stored_within_a_minute(client, &vm, 0).await;
        is_under_way(client, &install).await;
        drop(holds_up);
        client.succeeded(&delete, SOON).await;
        assert_eq!(client.shell(&vm, "sleep").await["status"], "ANSWERED");
        // The loop goes on with what it had.
        let stop = client.change("stopVm", &booting).await;
        client.succeeded(&stop, SOON).await;

        assert!(!online.is_finished(), "{:?}", online.await);
        online.abort();
        assert_eq!(db.number("SELECT count(*) FROM alerts WHERE kind = 'vm_offline'").await, 0);
        trial.daemon.stop();
    }
}
