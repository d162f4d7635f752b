//! Guests of every evil kind beside good ones, against a real daemon: its memory stays bounded, good
//! VMs stay online and answer all the while, and what each guest did wrong is counted as its own.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use fleet::{Fleet, Kind, Lie, Plan, Report};
use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::trial::Trial;
use uuid::Uuid;

/// The harm goes on for so long.
const HARM: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);
/// Between two readings, or lies: a hundred times as fast as in earnest.
const INTERVAL: Duration = Duration::from_millis(250);
/// What a link may deliver, readings per second: twice of what good guests do.
const RATE: &str = "8";
/// What a command to a good VM may typically take, and take at most, on a machine busy with other tests.
const TYPICAL: Duration = Duration::from_secs(2);
const WORST: Duration = Duration::from_secs(30);
/// What the daemon may come to hold.
const MAX_RESIDENT_MIB: u64 = 200;

async fn make(trial: &Trial, vm: Uuid, name: &str) {
    let mut request = trial.request(name);
    request["id"] = json!(vm);
    trial.client.create(request).await;
}

fn resident_mib(trial: &Trial) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", trial.daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

on_both! {
    async fn evil_guests_harm_themselves(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[
            ("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s"),
            ("INFINIBAY__AGENTS__MAX_FRAMES_PER_SECOND", RATE),
        ]).await;
        let evil = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::WellBehaved | Kind::Quirky));
        let plan = Plan::of(Kind::WellBehaved, 3, INTERVAL, 1).and(Plan::of(Kind::Quirky, 1, INTERVAL, 2));
        let plan = evil.zip(3..).fold(plan, |plan, (kind, seed)| plan.and(Plan::of(kind, 1, INTERVAL, seed)));
        let guests: Vec<(Uuid, Kind)> = plan.guests.iter().map(|guest| (guest.vm, guest.kind)).collect();
        let good: Vec<String> =
            guests.iter().filter(|(_, kind)| *kind == Kind::WellBehaved).map(|(vm, _)| vm.to_string()).collect();
        let fleet = Fleet::start(&trial.home.socket_dir(), plan).unwrap();
        for (number, (vm, kind)) in guests.iter().enumerate() {
            make(&trial, *vm, &format!("{kind}-{number}")).await;
        }
        for vm in &good {
            trial.client.agent_is(vm, "ONLINE", SOON).await;
        }

        let begun = Instant::now();
        let (mut waits, mut most) = (Vec::new(), 0);
        while begun.elapsed() < HARM {
            for vm in &good {
                let asked = Instant::now();
                let answer = trial.client.action(vm, "OS_INFO").await;
                assert_eq!(answer["success"], true, "{answer}");
                waits.push(asked.elapsed());
                let agent = trial.client.vm(vm).await["agent"].take();
                assert_eq!(agent["connectivity"], "ONLINE", "{agent}");
            }
            most = most.max(resident_mib(&trial));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        waits.sort_unstable();
        let (typical, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        assert!(typical < TYPICAL && worst < WORST, "good VMs' callers waited {typical:?}, at most {worst:?}");
        assert!(most <= MAX_RESIDENT_MIB, "the daemon came to {most} MiB");

        // The harm was real, and none of it was believed.
        let report = |kind: Kind| {
            fleet.reports().into_iter().find(|report| report.kind == kind).unwrap()
        };
        assert!(report(Kind::Storm).connections > 3, "{:?}", report(Kind::Storm));
        assert!(report(Kind::Flooding).frames_sent > 200, "{:?}", report(Kind::Flooding));
        assert!(report(Kind::SlowDripping).bytes_sent > 1 << 20, "{:?}", report(Kind::SlowDripping));
        assert!(report(Kind::NeverReading).frames_sent > 50, "{:?}", report(Kind::NeverReading));
        assert_eq!(report(Kind::Silent).bytes_sent, 0);
        let liar: Report = report(Kind::Liar);
        assert!(Lie::ALL.iter().all(|lie| liar.lies.get(lie).is_some_and(|&told| told > 2)), "{liar:?}");
        assert_eq!(stored(&trial, &liar.vm.to_string()).await, 0, "a lie is stored");
        let silent = trial.client.vm(&report(Kind::Silent).vm.to_string()).await;
        assert_ne!(silent["agent"]["connectivity"], "ONLINE");

        // Good VMs lost nothing: what they sent until now is stored.
        for vm in &good {
            let id: VmId = vm.parse().unwrap();
            let sent = fleet.report(id.uuid()).unwrap().frames_sent;
            let deadline = Instant::now() + SOON;
            while stored(&trial, vm).await < sent {
                assert!(Instant::now() < deadline, "not all {sent} readings of {vm} are stored");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        trial.daemon.stop();
        fleet.stop().await;
    }
}

async fn stored(trial: &Trial, vm: &str) -> u64 {
    const READINGS: &str = "query($vm: UUID!) { getVmMetrics(vmId: $vm, hours: 1) { id } }";
    let data: Value = trial.client.ask(READINGS, json!({ "vm": vm })).await;
    data["getVmMetrics"].as_array().unwrap().len() as u64
}
