//! Guests of every evil kind beside good ones, against a real daemon: its memory stays bounded, good
//! VMs stay online and answer all the while, and what each guest did wrong is counted as its own.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleet::{Fleet, Kind, Lie, Plan, Report};
use serde_json::{Value, json};
use support::{scrape::Scrape, trial::Trial};
use uuid::Uuid;

/// The harm goes on for so long.
const HARM: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);
/// Between two readings, or lies: a hundred times as fast as in earnest.
const INTERVAL: Duration = Duration::from_millis(250);
/// What a link may deliver, lines per second. A good guest has four readings, and an answer to each
/// of the commands that are given to it here, ten per second at most.
const RATE: &str = "20";
/// What a command to a good VM may typically take, and take at most, on a machine busy with other tests.
const TYPICAL: Duration = Duration::from_secs(2);
const WORST: Duration = Duration::from_secs(30);
/// Evil guests beyond one of each kind, drawn anew each time.
const ANY: usize = 4;
/// Repeats what was drawn: a number.
const SEED: &str = "INFINIBAY_FLEET_SEED";
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
        let seed = std::env::var(SEED).map_or_else(|_| Uuid::new_v4().as_u64_pair().0, |seed| seed.parse().unwrap());
        eprintln!("{SEED}={seed} repeats this mix");
        let evil: Vec<Kind> =
            Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::WellBehaved | Kind::Quirky)).collect();
        let kinds = [(Kind::WellBehaved, 3), (Kind::Quirky, 1)].into_iter().chain(evil.iter().map(|&kind| (kind, 1)));
        let plan = kinds.zip(1..).fold(Plan::any_of(&evil, ANY, INTERVAL, seed), |plan, ((kind, count), more)| {
            plan.and(Plan::of(kind, count, INTERVAL, seed.wrapping_add(more)))
        });
        let guests: Vec<(Uuid, Kind)> = plan.guests.iter().map(|guest| (guest.vm, guest.kind)).collect();
        let good: Vec<String> =
            guests.iter().filter(|(_, kind)| *kind == Kind::WellBehaved).map(|(vm, _)| vm.to_string()).collect();
        let started = Instant::now();
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
        let lived = started.elapsed();
        let reports = fleet.stop().await;
        for report in &reports {
            let real = match report.kind {
                Kind::Storm => report.connections > 3,
                Kind::Flooding => report.frames_sent > 200,
                Kind::SlowDripping => report.bytes_sent > 1 << 20,
                Kind::NeverReading => report.frames_sent > 50,
                Kind::Liar => Lie::ALL.iter().all(|lie| report.lies.get(lie).is_some_and(|&told| told > 2)),
                Kind::Silent => report.bytes_sent == 0,
                Kind::WellBehaved | Kind::Quirky => report.frames_sent > 0,
            };
            assert!(real, "{report:?}");
            let vm = report.vm.to_string();
            match report.kind {
                Kind::Liar => assert_eq!(stored(&trial, &vm).await, 0, "a lie is stored"),
                Kind::Silent => assert_eq!(trial.client.vm(&vm).await["agent"]["connectivity"], "NEVER_SEEN"),
                Kind::Storm => {
                    let bound = most_connections(lived, report.rebinds);
                    assert!(report.connections <= bound, "more than {bound} in {lived:?}: {report:?}");
                }
                // Good VMs lost nothing: what they sent is stored.
                Kind::WellBehaved => {
                    let deadline = Instant::now() + SOON;
                    loop {
                        let stored = stored(&trial, &vm).await;
                        if stored >= report.frames_sent {
                            break;
                        }
                        let counted = in_api(&trial, &vm).await;
                        assert!(Instant::now() < deadline, "only {stored} are stored of {report:?}: {counted:?}");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
                _ => {}
            }
        }
        counted_as_their_own(&trial, &reports).await;
        trial.daemon.stop();
    }
}

async fn stored(trial: &Trial, vm: &str) -> u64 {
    const READINGS: &str = "query($vm: UUID!) { getVmMetrics(vmId: $vm, hours: 1) { id } }";
    let data: Value = trial.client.ask(READINGS, json!({ "vm": vm })).await;
    data["getVmMetrics"].as_array().unwrap().len() as u64
}

/// Connections of a guest that is never heard: the wait for the next one doubles from a second on,
/// and begins anew with each new socket. Most are made where all of these runs have the same length.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn most_connections(lived: Duration, rebinds: u64) -> u64 {
    let runs = (rebinds + 1) as f64;
    (runs * (1.0 + ((lived.as_secs_f64() + 1.0) / runs).log2())).ceil() as u64
}

/// Each reason, in the API's words and in Prometheus'.
const REASONS: [(&str, &str); 16] = [
    ("malformed", "malformed"),
    ("oversized", "oversized"),
    ("wrongShape", "wrong_shape"),
    ("unknownType", "unknown_type"),
    ("unsolicited", "unsolicited"),
    ("late", "late"),
    ("sealed", "sealed"),
    ("badSeal", "bad_seal"),
    ("replayed", "replayed"),
    ("stale", "stale"),
    ("unsealed", "unsealed"),
    ("tooLarge", "too_large"),
    ("dropped", "dropped"),
    ("refusedShape", "reading_shape"),
    ("refusedRange", "reading_range"),
    ("refusedSkew", "reading_skew"),
];

type Counts = BTreeMap<&'static str, u64>;

fn reason(lie: Lie) -> &'static str {
    match lie {
        Lie::Malformed | Lie::NotANumber => "malformed",
        Lie::WrongShape => "wrongShape",
        Lie::Missing => "refusedShape",
        Lie::Negative | Lie::MoreThanAll => "refusedRange",
        Lie::Skewed => "refusedSkew",
        Lie::UnknownType => "unknownType",
        Lie::Unsolicited => "unsolicited",
        Lie::TooLong => "oversized",
    }
}

/// Whether this is what a guest with this report has to be counted with: refused is what it did
/// wrong, under the reason that this has, and nothing else.
fn is_right(report: &Report, counted: &Counts) -> bool {
    let nothing_but =
        |allowed: &[&str]| counted.iter().all(|(reason, &n)| n == 0 || allowed.contains(reason));
    match report.kind {
        Kind::WellBehaved | Kind::Silent | Kind::Storm => nothing_but(&[]),
        // The last fragment may wait for the rest of its line.
        Kind::Quirky => {
            nothing_but(&["malformed"])
                && (report.fragments_sent.saturating_sub(1)..=report.fragments_sent)
                    .contains(&counted["malformed"])
        }
        Kind::Flooding => nothing_but(&["dropped"]) && counted["dropped"] > 0,
        Kind::SlowDripping => nothing_but(&["oversized"]),
        Kind::NeverReading => nothing_but(&["dropped"]),
        Kind::Liar => {
            let mut told = Counts::new();
            for (&lie, &times) in &report.lies {
                *told.entry(reason(lie)).or_default() += times;
            }
            // What comes in a burst after the machine was busy may be over the rate: nothing of it
            // is lost from the sum.
            let within =
                |(word, &n): (&&str, &u64)| *word == "dropped" || n <= told.get(word).copied().unwrap_or(0);
            counted.iter().all(within) && counted.values().sum::<u64>() == told.values().sum::<u64>()
        }
    }
}

/// What the daemon counted is what the guests did, in the API and in Prometheus alike.
async fn counted_as_their_own(trial: &Trial, reports: &[Report]) {
    let deadline = Instant::now() + SOON;
    for report in reports {
        let vm = report.vm.to_string();
        loop {
            let counted = in_api(trial, &vm).await;
            let scraped = in_prometheus(trial, &vm).await;
            // What was sent last is still being read; a scrape may be some seconds old.
            if is_right(report, &counted) && counted == scraped {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{report:?} is counted as {counted:?}, in Prometheus as {scraped:?}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn in_api(trial: &Trial, vm: &str) -> Counts {
    let fields = REASONS.map(|(field, _)| field).join(" ");
    let query = format!("query($id: UUID!) {{ vm(id: $id) {{ agent {{ counters {{ {fields} }} }} }} }}");
    let data = trial.client.ask(&query, json!({ "id": vm })).await;
    let counters = &data["vm"]["agent"]["counters"];
    REASONS.map(|(field, _)| (field, counters[field].as_str().unwrap().parse().unwrap())).into()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters")]
async fn in_prometheus(trial: &Trial, vm: &str) -> Counts {
    let page = reqwest::Client::new().get(format!("{}/metrics", trial.daemon.url)).bearer_auth(&trial.token);
    let scrape = Scrape::read(&page.send().await.unwrap().text().await.unwrap());
    let value = |reason| scrape.value("infinibay_vm_frames_refused_total", &[("vm", vm), ("reason", reason)]);
    REASONS.map(|(field, reason)| (field, value(reason).unwrap_or(0.0) as u64)).into()
}
