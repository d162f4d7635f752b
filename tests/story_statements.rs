//! A list of a thousand VMs with their latest readings and conditions takes the database as many
//! statements by pages of 200 as by pages of ten: counted in what the daemon's driver says it ran.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{fs, path::Path};

use infinibay::{
    store::Store,
    vm::{AgentConnectivity, Condition, ConditionKind, ConditionStatus, HostId, UserId, VmPhase, VmStatus},
};
use serde_json::json;
use support::{
    sample::{create, new_vm, now, sample},
    trial::Trial,
};

const VMS: usize = 1_000;
/// How often each list is asked for. What the daemon does besides takes fewer statements than that.
const TIMES: usize = 20;
const LIST: &str = "query($first: Int!) { vms(first: $first) { nodes {
    id name phase conditions { type status message } latestMetrics { cpuUsage memoryUsed } agent { connectivity } } } }";

/// VMs of another host, which nobody here looks after, each with a reading and a condition.
async fn fill(store: &Store, tamper: impl AsyncFn()) {
    let (host, owner) = (HostId::generate(), UserId::generate());
    let mut samples = Vec::new();
    for n in 0..VMS {
        let vm = new_vm(host, owner, &format!("vm-{n}"));
        create(store, &vm).await;
        if n == 0 {
            store.save_status(vm.id, &status()).await.unwrap();
        }
        samples.push(sample(vm.id, now(), 1.0));
    }
    for some in samples.chunks(250) {
        store.insert_metrics(some).await.unwrap();
    }
    tamper().await;
}

fn status() -> VmStatus {
    VmStatus {
        phase: VmPhase::Running,
        agent: AgentConnectivity::Online,
        last_seen: Some(now()),
        agent_version: None,
        conditions: vec![Condition {
            kind: ConditionKind::AgentConnected,
            status: ConditionStatus::True,
            reason: "Heard".to_owned(),
            message: "It was heard.".to_owned(),
            since: now(),
        }],
    }
}

/// Statements that the daemon has run since it was started, but for those of the worker that looks through
/// all readings for what is too old.
fn statements(log: &Path) -> usize {
    const OF_EXPIRY: [&str; 2] =
        ["\"summary\":\"DELETE FROM vm_", "\"summary\":\"SELECT vm_id FROM vm_metrics"];
    let log = fs::read_to_string(log).unwrap();
    log.lines()
        .filter(|line| line.contains("\"target\":\"sqlx::query\""))
        .filter(|line| !OF_EXPIRY.iter().any(|summary| line.contains(summary)))
        .count()
}

on_both! {
    async fn a_page_of_many_takes_as_many_statements_as_one_of_few(db: TestDatabase) {
        const SAME: &str = "UPDATE vms SET status = (SELECT status FROM vms WHERE status IS NOT NULL)";
        let store = db.store().await;
        fill(&store, async || db.tamper(SAME, SAME).await).await;
        store.close().await;
        let trial = Trial::start_with(&db, &[
            ("INFINIBAY__LOG__FILTER", "info,sqlx::query=debug"),
            ("INFINIBAY__API__MAX_QUERY_COMPLEXITY", "100000"),
        ]).await;
        let log = trial.home.path().join("log-1");
        // What is asked for once only is asked for now.
        trial.client.ask(LIST, json!({ "first": 1 })).await;
        let mut taken = Vec::new();
        for first in [10, 200] {
            let before = statements(&log);
            for _ in 0..TIMES {
                let page = trial.client.ask(LIST, json!({ "first": first })).await;
                let nodes = page["vms"]["nodes"].as_array().unwrap();
                assert_eq!(nodes.len(), first);
                let whole = nodes.iter().all(|vm| {
                    vm["latestMetrics"]["cpuUsage"] == 1.0 && vm["conditions"].as_array().unwrap().len() == 1
                });
                assert!(whole, "{:.500}", page.to_string());
            }
            taken.push(statements(&log) - before);
        }
        let (few, many) = (taken[0], taken[1]);
        assert!(few >= TIMES, "{few} statements for {TIMES} lists: they are not counted");
        assert!(many.abs_diff(few) < TIMES, "{TIMES} pages of 10 took {few} statements, of 200 {many}");
        println!("{TIMES} pages of 10 took {few} statements, of 200 {many}");
        trial.daemon.stop();
    }
}
