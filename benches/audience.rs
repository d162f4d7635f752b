//! What many who look at the same VM cost: a thousand connections of graphql-transport-ws with one
//! subscription each, to the readings of one guest. How long a frame takes to the last of them, and
//! what each adds to the daemon's memory.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{
    figures::Figures,
    fleet::FleetProcess,
    process::resident,
    quantile, sized,
    stage::{Stage, ids},
};
use serde_json::json;
use support::api::{Said, Socket};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

const WATCH: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(10);
const BOUND_MS: f64 = 50.0;
const BOUND_KIB: f64 = 64.0;
const QUERY: &str =
    "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { vmId timestamp cpuUsage memoryUsed memoryTotal } }";

#[tokio::main]
async fn main() {
    let count = sized("INFINIBAY_BENCH_SUBSCRIBERS", 1_000);
    let files = fleet::raise_open_files();
    assert!(files > count as u64 + 100, "only {files} files may be open");
    // One admin on one address, who may be as many as it takes.
    let stage = Stage::set(&[
        ("INFINIBAY__API__MAX_WEBSOCKETS", "100000"),
        ("INFINIBAY__HTTP__MAX_CONNECTIONS", "20000"),
        ("INFINIBAY__HTTP__MAX_CONNECTIONS_PER_ADDRESS", "20000"),
        ("INFINIBAY__HTTP__REQUESTS_PER_SECOND", "100000"),
        ("INFINIBAY__HTTP__REQUEST_BURST", "100000"),
    ])
    .await;
    let vms = ids(1, 16);
    let guests: Vec<_> = vms.iter().map(|&vm| (vm, "well-behaved")).collect();
    let fleet = FleetProcess::start(&stage.home.socket_dir(), &guests, &["--interval-ms", "1000"]);
    stage.create(&vms).await;
    stage.online(1).await;
    // What the daemon allocates once is not the subscribers'.
    let mut all = vec![listener(&stage, vms[0]).await];
    tokio::time::sleep(SETTLE).await;

    let pid = stage.daemon.pid();
    let before = resident(pid);
    while all.len() < count {
        all.push(listener(&stage, vms[0]).await);
    }
    let begun = Utc::now();
    let mut listeners = JoinSet::new();
    for socket in all {
        listeners.spawn(listen(socket, begun, Instant::now() + WATCH));
    }
    let watched = listeners.join_all();
    let mut most = 0;
    let mut watched = std::pin::pin!(watched);
    let mut times: Vec<Duration> = loop {
        tokio::select! {
            times = &mut watched => break times.concat(),
            () = tokio::time::sleep(Duration::from_secs(1)) => most = most.max(resident(pid)),
        }
    };
    let frames = times.len() / count;
    assert!(frames >= 30, "only {frames} frames arrived at each");
    let mut figures = Figures::of("audience");
    let note = format!(
        "{} readings to {count} connections, about {frames} each; median {:.1} ms, worst {:.1} ms",
        times.len(),
        quantile(&mut times, 0.5),
        quantile(&mut times, 1.0)
    );
    figures.at_most("audience_p99", quantile(&mut times, 0.99), "ms", BOUND_MS, note);
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory in this century")]
    let each = most.saturating_sub(before) as f64 / 1024.0 / (count - 1) as f64;
    let note = format!("{} MiB before, {} MiB at most while it told them", before >> 20, most >> 20);
    figures.at_most("audience_memory", each, "KiB each", BOUND_KIB, note);
    fleet.end();
    figures.tell();
}

/// A connection of its own with its subscription, which has been told something.
async fn listener(stage: &Stage, vm: Uuid) -> Socket {
    let mut socket = Socket::introduced(&stage.daemon, &stage.token).await;
    socket.begin("1", QUERY, json!({ "vm": vm })).await;
    socket.data("1").await;
    socket
}

/// How long each frame took that was sent after `begun` and came until `end`.
async fn listen(mut socket: Socket, begun: DateTime<Utc>, end: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while let Ok(said) = timeout_at(end, socket.next_within(2 * WATCH)).await {
        let arrived = Utc::now();
        let Said::Message(message) = said else { panic!("the server closed") };
        let reading = &message["payload"]["data"]["vmMetrics"];
        let sent = reading["timestamp"].as_str().unwrap_or_else(|| panic!("no reading: {message}"));
        let sent: DateTime<Utc> = sent.parse().unwrap();
        if sent > begun {
            times.push((arrived - sent).to_std().unwrap_or_default());
        }
    }
    times
}
