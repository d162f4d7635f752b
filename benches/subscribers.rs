//! How long a frame takes from the guest to a subscriber: its own timestamp against its arrival over
//! graphql-transport-ws, on one host and one clock, with a thousand VMs at one frame per 30 s.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{
    figures::Figures,
    fleet::FleetProcess,
    limits, quantile, sized,
    stage::{Stage, ids},
};
use serde_json::json;
use support::api::{Said, Socket};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

const WATCH: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(30);
const PER_SOCKET: usize = 50;
const BOUND_MS: f64 = 10.0;
const QUERY: &str =
    "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { vmId timestamp cpuUsage memoryUsed memoryTotal } }";

#[tokio::main]
async fn main() {
    let count = sized("INFINIBAY_BENCH_VMS", 1_000);
    let stage = Stage::set(&[]).await;
    let vms = ids(count, 15);
    let guests: Vec<_> = vms.iter().map(|&vm| (vm, "well-behaved")).collect();
    let fleet = FleetProcess::start(&stage.home.socket_dir(), &guests, &["--interval-ms", "30000"]);
    stage.create(&vms).await;
    stage.online(count).await;
    tokio::time::sleep(SETTLE).await;

    let begun = Utc::now();
    let mut watchers = JoinSet::new();
    for some in vms.chunks(PER_SOCKET) {
        let mut socket = Socket::introduced(&stage.daemon, &stage.token).await;
        for vm in some {
            socket.begin(&vm.to_string(), QUERY, json!({ "vm": vm })).await;
        }
        watchers.spawn(watch(socket, begun, Instant::now() + WATCH));
    }
    let mut times: Vec<Duration> = watchers.join_all().await.concat();
    assert!(times.len() >= count, "only {} frames arrived", times.len());
    let worst = quantile(&mut times, 1.0);
    let mut figures = Figures::of("subscribers");
    figures.at_most(
        "subscriber_p99",
        quantile(&mut times, 0.99),
        "ms",
        BOUND_MS,
        format!(
            "{} frames to {count} subscriptions on {} connections; median {:.2} ms, worst {worst:.1} ms; {}",
            times.len(),
            count.div_ceil(PER_SOCKET),
            quantile(&mut times, 0.5),
            limits()
        ),
    );
    fleet.end();
    figures.tell();
}

/// How long each frame took that was sent after `begun` and came until `end`. Each subscription begins
/// with what is stored, which is older.
async fn watch(mut socket: Socket, begun: DateTime<Utc>, end: Instant) -> Vec<Duration> {
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
