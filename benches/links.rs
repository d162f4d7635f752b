//! What links cost that have little to say: processor and memory of a daemon with a thousand VMs at
//! one frame per 30 s, and memory of ten thousand links that are idle.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{path::Path, time::Duration};

use common::{
    figures::{Figures, say},
    fleet::FleetProcess,
    limits,
    process::{processor_time, resident},
    sized,
    stage::{Stage, ids},
};
use infinibay::{agents::Links, config::AgentsConfig, vm::VmId};
use tokio::time::Instant;

/// Before it is measured: what creating the VMs left to do is done, buffers are warm.
const SETTLE: Duration = Duration::from_secs(35);
const WATCH: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_secs(5);

const PROCESSOR_BOUND: f64 = 2.0;
const MEMORY_BOUND_MIB: f64 = 150.0;
const IDLE_BOUND_KIB: f64 = 32.0;

#[expect(clippy::cast_precision_loss, reason = "sizes of memory in this century")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

#[tokio::main]
async fn main() {
    let mut figures = Figures::of("links");
    idle(&mut figures).await;
    busy(&mut figures).await;
    figures.tell();
}

async fn busy(figures: &mut Figures) {
    let count = sized("INFINIBAY_BENCH_VMS", 1_000);
    let stage = Stage::set(&[]).await;
    let vms = ids(count, 13);
    let guests: Vec<_> = vms.iter().map(|&vm| (vm, "well-behaved")).collect();
    let fleet = FleetProcess::start(&stage.home.socket_dir(), &guests, &["--interval-ms", "30000"]);
    stage.create(&vms).await;
    stage.online(count).await;
    tokio::time::sleep(SETTLE).await;

    let pid = stage.daemon.pid();
    let frames =
        |fleet: &FleetProcess| fleet.report().and_then(|report| report["frames_sent"].as_u64()).unwrap();
    let (begun, used, sent) = (Instant::now(), processor_time(pid), frames(&fleet));
    let mut most = 0;
    while begun.elapsed() < WATCH {
        tokio::time::sleep(LOOK).await;
        most = most.max(resident(pid));
    }
    let share = (processor_time(pid) - used).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let sent = frames(&fleet) - sent;
    let note =
        format!("{count} links, {sent} frames in {:.0?}, debug logging off; {}", begun.elapsed(), limits());
    figures.at_most("links_processor", share, "% of a core", PROCESSOR_BOUND, note.clone());
    figures.at_most("links_memory", kib(most) / 1024.0, "MiB", MEMORY_BOUND_MIB, note);
    fleet.end();
}

async fn idle(figures: &mut Figures) {
    let count = sized("INFINIBAY_BENCH_LINKS", 10_000);
    let files = fleet::raise_open_files();
    assert!(files > count as u64 + 100, "only {files} files may be open");
    let dir = tempfile::tempdir().unwrap();
    let vms = ids(count, 14);
    let guests: Vec<_> = vms.iter().map(|&vm| (vm, "well-behaved")).collect();
    let silent = ["--interval-ms", "36000000", "--keep-alive-ms", "0", "--frames", "1"];
    // Each guest is two open files there, a socket and its client: more than one process may have.
    let fleets: Vec<_> =
        guests.chunks(4_000).map(|some| FleetProcess::start(dir.path(), some, &silent)).collect();

    let config = AgentsConfig { max_links: 10_000, ..AgentsConfig::default() };
    let (links, mut inbox) = Links::new(config);
    let drain = tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(_) = inbox.frames.recv() => {}
                Some(_) = inbox.hints.recv() => {}
                else => break,
            }
        }
    });
    // What the process allocates once is not the links'.
    let warm = VmId::from(vms[0]);
    open(&links, dir.path(), warm);
    heard(&links, 1).await;
    let own = std::process::id();
    let before = resident(own);
    for &vm in &vms[1..] {
        open(&links, dir.path(), vm.into());
    }
    heard(&links, count).await;
    let after = resident(own);
    #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
    let each = kib(after.saturating_sub(before)) / (count - 1) as f64;
    let note = format!(
        "{count} links, all heard; {:.0} MiB before, {:.0} MiB after; {}",
        kib(before) / 1024.0,
        kib(after) / 1024.0,
        limits()
    );
    figures.at_most("links_idle", each, "KiB each", IDLE_BOUND_KIB, note);
    links.shutdown(Duration::from_secs(10)).await;
    drop(links);
    drain.await.unwrap();
    for fleet in fleets {
        fleet.end();
    }
}

fn open(links: &Links, dir: &Path, vm: VmId) {
    links.open(vm, dir.join(vm.socket_name()));
}

async fn heard(links: &Links, count: usize) {
    let begun = Instant::now();
    loop {
        let all = links.observe_all();
        let heard = all
            .values()
            .filter(|link| link.open().is_some_and(|open| open.last_message_at.is_some()))
            .count();
        if heard >= count {
            say(format!("{heard} links are heard after {:.1?}", begun.elapsed()));
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "only {heard} of {count} links are heard");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
