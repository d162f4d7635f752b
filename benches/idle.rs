//! What a daemon costs that has a thousand VMs and nothing to do: its scans, its looks for alarms, and
//! what it does to find agents that never answer.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::{
    figures::Figures,
    process::processor_time,
    sized,
    stage::{Stage, ids},
};
use tokio::time::Instant;

/// What creating the VMs left to do is done, and attempts to reach agents are at their rarest.
const SETTLE: Duration = Duration::from_secs(120);
const WATCH: Duration = Duration::from_secs(120);
const BOUND: f64 = 1.0;

#[tokio::main]
async fn main() {
    let count = sized("INFINIBAY_BENCH_VMS", 1_000);
    let stage = Stage::set(&[]).await;
    stage.create(&ids(count, 17)).await;
    stage.started(count).await;
    tokio::time::sleep(SETTLE).await;
    let pid = stage.daemon.pid();
    let (begun, used) = (Instant::now(), processor_time(pid));
    tokio::time::sleep(WATCH).await;
    let share = (processor_time(pid) - used).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let note = format!("{count} VMs that run and whose agents are never heard, {:.0?}", begun.elapsed());
    let mut figures = Figures::of("idle");
    figures.at_most("idle_processor", share, "% of a core", BOUND, note);
    figures.tell();
}
