//! What front ends ask for all the time: a hundred VMs with their latest readings and conditions, a day of
//! one VM's readings, and whether somebody may. Against the same SQL done once per VM, and against the bare
//! query with the writing of its rows.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use common::{figures::Figures, quantile, sized, stage::Stage};
use infinibay::{
    access::{Action, Audience, Target, authorize},
    accounts::Accounts,
    store::{Store, VmSearch, VmsFrom},
    vm::{
        AgentConnectivity, Condition, ConditionKind, ConditionStatus, HostId, UserId, VmId, VmPhase, VmStatus,
    },
};
use serde_json::json;
use support::sample::{create, new_vm, now, sample};

const ROUNDS: usize = 200;
const SAMPLES: usize = 2_880;
const LIST: &str = "{ vms(first: 100) { nodes { id name phase conditions { type status reason message }
    latestMetrics { timestamp cpuUsage memoryUsed memoryTotal } } } }";
const DAY: &str = "query($vm: UUID!) { getVmMetrics(vmId: $vm, hours: 25) {
    id timestamp cpuUsage memoryUsed memoryTotal diskRead diskWritten networkReceived networkSent } }";

#[tokio::main]
async fn main() {
    let count = sized("INFINIBAY_BENCH_VMS", 1_000);
    let stage = Stage::set(&[("INFINIBAY__API__MAX_QUERY_COMPLEXITY", "100000")]).await;
    let store = Store::open(&stage.cluster.url("infinibay"), 8, Duration::from_secs(30)).await.unwrap();
    let one = fill(&store, count).await;
    let mut figures = Figures::of("lists");
    lists(&stage, &store, &mut figures, count).await;
    day(&stage, &store, &mut figures, one).await;
    rights(&stage, &store, &mut figures).await;
    store.close().await;
    figures.tell();
}

/// VMs of another host, each with a reading; one of them has a day of them.
async fn fill(store: &Store, count: usize) -> VmId {
    let (host, owner) = (HostId::generate(), UserId::generate());
    let status = VmStatus {
        phase: VmPhase::Running,
        agent: AgentConnectivity::Online,
        last_seen: Some(now()),
        agent_version: None,
        conditions: conditions(),
    };
    let mut samples = Vec::new();
    let mut one = None;
    for n in 0..count {
        let vm = new_vm(host, owner, &format!("vm-{n}"));
        create(store, &vm).await;
        store.save_status(vm.id, &status).await.unwrap();
        samples.push(sample(vm.id, now(), 1.0));
        one.get_or_insert(vm.id);
    }
    let one = one.expect("at least one VM");
    let step = |n: usize| TimeDelta::seconds(30 * i64::try_from(n).unwrap());
    samples.extend((1..SAMPLES).map(|n| sample(one, now() - step(n), 2.0)));
    for some in samples.chunks(500) {
        store.insert_metrics(some).await.unwrap();
    }
    one
}

/// What a healthy VM has.
fn conditions() -> Vec<Condition> {
    let kinds = [
        ConditionKind::HypervisorReachable,
        ConditionKind::ChannelPresent,
        ConditionKind::AgentConnected,
        ConditionKind::DisksPresent,
        ConditionKind::Reconciled,
    ];
    let one = |kind| Condition {
        kind,
        status: ConditionStatus::True,
        reason: "AsItShouldBe".to_owned(),
        message: "There is nothing to be done about this.".to_owned(),
        since: now(),
    };
    kinds.into_iter().map(one).collect()
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let begun = Instant::now();
    black_box(work.await);
    begun.elapsed()
}

async fn lists(stage: &Stage, store: &Store, figures: &mut Figures, count: usize) {
    let (all, from) = (VmSearch::default(), VmsFrom::Id(None));
    let listing = store.list_vms(Audience::Everybody, &all, &from, 100).await.unwrap();
    let ids: Vec<VmId> = listing.nodes.iter().map(|view| view.record.id).collect();
    let (mut asked, mut each) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        asked.push(timed(stage.client.ask(LIST, json!({}))).await);
        let one_by_one = async {
            for &vm in &ids {
                black_box(store.vm(vm).await.unwrap());
                black_box(store.latest_metrics(&[vm]).await.unwrap());
            }
        };
        each.push(timed(one_by_one).await);
    }
    let (asked, each) = (quantile(&mut asked, 0.5), quantile(&mut each, 0.5));
    let note = format!(
        "of {count} VMs, over HTTP; the SQL once per VM takes {each:.2} ms; medians of {ROUNDS} in turns"
    );
    figures.at_most("list_p50", asked, "ms", 5.0, note.clone());
    figures.at_least("list_vs_each", each / asked, "x", 3.0, note);
}

async fn day(stage: &Stage, store: &Store, figures: &mut Figures, vm: VmId) {
    let (mut asked, mut bare) = (Vec::new(), Vec::new());
    let mut connection = stage.cluster.connect("infinibay").await;
    // What the database itself writes as JSON is the least that an answer takes.
    const SQL: &str =
        "SELECT row_to_json(m)::text FROM (SELECT id, timestamp, cpu_usage, memory_used, memory_total,
        disk_read, disk_written, network_received, network_sent FROM vm_metrics
        WHERE vm_id = $1 AND timestamp >= $2 ORDER BY timestamp DESC LIMIT 10000) m";
    let there = store.metrics_without_frames(vm, Utc::now() - TimeDelta::hours(25), 10_000).await.unwrap();
    assert_eq!(there.len(), SAMPLES, "the day is not whole");
    for _ in 0..ROUNDS {
        asked.push(timed(stage.client.ask(DAY, json!({ "vm": vm.to_string() }))).await);
        let query = async {
            let rows: Vec<String> = sqlx::query_scalar(SQL)
                .bind(vm.uuid())
                .bind(Utc::now() - TimeDelta::hours(25))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            assert_eq!(rows.len(), SAMPLES);
            format!("[{}]", rows.join(","))
        };
        bare.push(timed(query).await);
    }
    let (asked, bare) = (quantile(&mut asked, 0.5), quantile(&mut bare, 0.5));
    let note = format!(
        "{SAMPLES} readings: {asked:.2} ms over HTTP against {bare:.2} ms; medians of {ROUNDS} in turns"
    );
    figures.at_most("day_vs_bare", asked / bare, "x", 2.0, note);
}

async fn rights(stage: &Stage, store: &Store, figures: &mut Figures) {
    const TIMES: u32 = 100;
    let accounts = Accounts::new(store.clone());
    let mut each = Vec::new();
    for _ in 0..ROUNDS {
        // What was looked up holds for a second; this is over sooner.
        accounts.recognise(&stage.token).await.unwrap().expect("the admin");
        let begun = Instant::now();
        for _ in 0..TIMES {
            let actor = accounts.recognise(&stage.token).await.unwrap().expect("the admin");
            let target = Target { vm: VmId::generate(), owner: Some(actor.user) };
            black_box(authorize(&actor, Action::ControlVm(target))).unwrap();
        }
        each.push(begun.elapsed() / (TIMES));
    }
    let micros = quantile(&mut each, 0.5) * 1e3;
    figures.at_most("rights_cached", micros, "µs", 20.0, format!("medians of {ROUNDS} times {TIMES}"));
}
