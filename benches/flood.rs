//! What a flooding guest costs the others: round trips of commands to ten other VMs, while nobody
//! floods and while one guest does, in turns. A calm turn begins when nothing is left of the flood
//! before it: its link is closed and its readings are stored.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::{
    figures::{Figures, say},
    fleet::FleetProcess,
    limits, quantile,
    stage::{Stage, ids},
};
use tokio::time::Instant;
use uuid::Uuid;

const OTHERS: u32 = 10;
const TURNS: usize = 4;
const COMMANDS_PER_TURN: usize = 1_000;
const BOUND: f64 = 2.0;

#[tokio::main]
async fn main() {
    let stage = Stage::set(&[]).await;
    let count = OTHERS as usize;
    let all = ids(count + 1, 12);
    let (others, loud) = (&all[..count], all[count]);
    let quiet: Vec<_> = others.iter().map(|&vm| (vm, "well-behaved")).collect();
    let fleet = FleetProcess::start(&stage.home.socket_dir(), &quiet, &["--interval-ms", "30000"]);
    stage.create(&all).await;
    stage.online(count).await;
    round_trips(&stage, others, 200).await;

    let (mut calm, mut flooded) = (Vec::new(), Vec::new());
    let (mut frames, mut bytes) = (0, 0);
    for turn in 0..TURNS {
        stage.settled(OTHERS).await;
        calm.extend(round_trips(&stage, others, COMMANDS_PER_TURN).await);
        let flood = FleetProcess::start(&stage.home.socket_dir(), &[(loud, "flooding")], &["--frames", "64"]);
        // Its link was without a socket meanwhile and comes back by itself.
        let taken = || flood.report().and_then(|report| report["frames_sent"].as_u64()).unwrap_or(0);
        let begun = Instant::now();
        while taken() < 100 {
            assert!(begun.elapsed() < Duration::from_secs(90), "nobody listens to the flood");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        flooded.extend(round_trips(&stage, others, COMMANDS_PER_TURN).await);
        let end = flood.end();
        let sent = |field: &str| end["end"][field].as_u64().unwrap();
        frames += sent("frames_sent");
        bytes += sent("bytes_sent");
        say(format!("turn {} of {TURNS}: {} frames of the flood were taken", turn + 1, sent("frames_sent")));
    }
    assert!(frames > 1_000, "it did not flood: {frames}");
    let (before, during) = (quantile(&mut calm, 0.99), quantile(&mut flooded, 0.99));
    let mut figures = Figures::of("flood");
    figures.at_most(
        "flood_p99_ratio",
        during / before,
        "x",
        BOUND,
        format!(
            "p99 of {} round trips each, calm {before:.2} ms, flooded {during:.2} ms; medians {:.2} and {:.2} ms; \
             {frames} frames ({} MiB) of the flood were taken; {}",
            calm.len(),
            quantile(&mut calm, 0.5),
            quantile(&mut flooded, 0.5),
            bytes >> 20,
            limits()
        ),
    );
    fleet.end();
    figures.tell();
}

async fn round_trips(stage: &Stage, vms: &[Uuid], count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for round in 0..count {
        times.push(stage.command(vms[round % vms.len()]).await);
    }
    times
}
