//! Lists of VMs: whose, in what parts, and at what cost; and requests that must not touch what
//! others made.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::{collections::BTreeSet, time::Duration};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::trial::Trial;

const SOON: Duration = Duration::from_secs(20);
const CREATE: &str =
    "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id name } operation { id } } }";
/// The id of the domain that libvirt's test driver begins with, and which we did not make.
const STRANGER: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// Statements on these tables that the daemon ran so far.
fn statements(trial: &Trial, tables: &[&str]) -> usize {
    let log = std::fs::read_to_string(trial.home.path().join("log-1")).unwrap();
    let queries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let queries = queries.filter(|line| line["target"] == "sqlx::query");
    let summary = |line: Value| format!("{} {}", line["fields"]["summary"], line["fields"]["db.statement"]);
    queries.map(summary).filter(|sql| tables.iter().any(|table| sql.contains(table))).count()
}

on_both! {
    async fn a_list_comes_in_parts_and_is_ones_own(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let Trial { home, daemon, .. } = &mut trial;
        let eves = home.between(daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let eve = trial.daemon.client(&eves);
        let mut mine = BTreeSet::new();
        for n in 0..5 {
            mine.insert(trial.client.create(trial.request(&format!("mine-{n}"))).await.0);
        }
        let (hers, _) = eve.create(trial.request("hers")).await;

        let list = "query($after: String, $filter: VmFilter) { vms(first: 2, after: $after, filter: $filter) {
            nodes { id ownerId } pageInfo { hasNextPage endCursor } } }";
        let me = trial.client.ask("{ me { id } }", json!({})).await["me"]["id"].take();
        let mut seen = Vec::new();
        let mut after = Value::Null;
        loop {
            let page = trial.client.ask(list, json!({ "after": after, "filter": { "ownerId": me } })).await["vms"].take();
            seen.extend(page["nodes"].as_array().unwrap().iter().map(|vm| vm["id"].as_str().unwrap().to_owned()));
            after = page["pageInfo"]["endCursor"].clone();
            if page["pageInfo"]["hasNextPage"] == false {
                break;
            }
        }
        assert_eq!(seen.len(), 5, "a VM was shown twice or not at all: {seen:?}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), mine);

        let all = trial.client.ask("{ vms { nodes { id } } }", json!({})).await;
        assert_eq!(all["vms"]["nodes"].as_array().unwrap().len(), 6, "an admin sees everybody's");
        let own = eve.ask("{ vms { nodes { id } } }", json!({})).await;
        assert_eq!(own["vms"]["nodes"], json!([{ "id": hers }]));
        let others = eve.ask(list, json!({ "filter": { "ownerId": me } })).await;
        assert_eq!(others["vms"]["nodes"], json!([]), "a stranger's list is empty, not forbidden");
        let metrics = "query($vm: UUID!) { getVmMetrics(vmId: $vm) { id } }";
        let private = mine.first().unwrap();
        assert_eq!(eve.refused(metrics, json!({ "vm": private })).await, "VM_NOT_FOUND");
    }

    async fn many_vms_cost_as_many_statements_as_one(db: TestDatabase) {
        let env = [
            ("INFINIBAY__LOG__FILTER", "info,sqlx::query=debug"),
            ("INFINIBAY__RECONCILE__SCAN_INTERVAL", "600s"),
        ];
        let trial = Trial::start_with(&db, &env).await;
        let list = "{ vms { nodes { id phase ipAddresses macAddresses latestMetrics { cpuUsage raw }
            agent { connectivity counters { frames } } conditions { type } } } }";
        let run = "mutation($vms: [UUID!]!) { executeVmCommands(vmIds: $vms, timeoutSeconds: 5,
            command: { safe: { action: OS_INFO } }) { error { code message } } }";
        let cost = async |query: &str, variables: Value| {
            // SQLite's statements are logged by a thread of their own, each after it was run.
            let before = settled(&trial).await;
            let answer = trial.client.ask(query, variables).await;
            (settled(&trial).await - before, answer)
        };
        let (mut costs, mut vms) = (Vec::new(), Vec::new());
        for n in 0..8 {
            let mut request = trial.request(&format!("vm-{n}"));
            request["network"] = json!("default");
            let (vm, _) = trial.client.create(request).await;
            trial.client.phase_is(&vm, "INSTALLING", SOON).await;
            if n == 0 || n == 7 {
                costs.push(cost(list, json!({})).await.0);
            }
            vms.push(vm);
        }
        assert_eq!(costs, [2, 2], "one statement for the VMs and one for their readings");

        // None has an agent, and why is known with whose they are.
        let (cost, answer) = cost(run, json!({ "vms": vms })).await;
        for result in answer["executeVmCommands"].as_array().unwrap() {
            assert_eq!(result["error"]["code"], "AGENT_NOT_CONNECTED", "{result}");
            let why = result["error"]["message"].as_str().unwrap();
            assert!(why.contains("wait for its operation to end"), "{why}");
        }
        // What looks for alerts may have asked meanwhile.
        assert!(cost < vms.len() / 2, "{cost} statements for whose they are and what they do");
    }

    async fn domains_of_others_are_never_taken(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let mut request = trial.request("innocent");
        request["id"] = json!(STRANGER);
        assert_eq!(trial.client.refused(CREATE, json!({ "input": request })).await, "ID_TAKEN");
        assert_eq!(trial.client.refused(CREATE, json!({ "input": trial.request("test") })).await, "NAME_TAKEN");
        for id in [uuid::Uuid::nil(), uuid::Uuid::max()] {
            request["id"] = json!(id);
            assert_eq!(trial.client.refused(CREATE, json!({ "input": request })).await, "INVALID_INPUT");
        }
        let vms = trial.client.ask("{ vms { nodes { id } } }", json!({})).await;
        assert_eq!(vms["vms"]["nodes"], json!([]), "a refused request left a VM");
    }

    async fn a_request_sent_again_finds_its_vm(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let id = VmId::generate().to_string();
        let mut request = trial.request("again");
        request["id"] = json!(id);
        // All at once, and later, when the image is gone.
        let sent = (0..6).map(|_| {
            let (client, request) = (trial.client.clone(), request.clone());
            tokio::spawn(async move { client.create(request).await })
        });
        let mut answers = BTreeSet::new();
        for answer in futures_util::future::join_all(sent).await {
            answers.insert(answer.unwrap());
        }
        trial.client.phase_is(&id, "INSTALLING", SOON).await;
        std::fs::remove_file(trial.library.path().join("blank/manifest.toml")).unwrap();
        answers.insert(trial.client.create(request.clone()).await);
        assert_eq!(answers.len(), 1, "one request made several VMs or operations: {answers:?}");
        request["vcpus"] = json!(2);
        assert_eq!(trial.client.refused(CREATE, json!({ "input": request })).await, "ID_TAKEN");
        assert_eq!(trial.client.refused(CREATE, json!({ "input": trial.request("fresh") })).await, "IMAGE_UNUSABLE");
    }

    async fn the_host_tells_what_it_has(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let host = trial.client.ask("{ host { hostname uri libvirtVersion arch cpus memoryBytes freeMemoryBytes domainType
            pools { name active capacityBytes availableBytes } networks { name active }
            limits { maxVcpus minMemoryMib maxMemoryMib maxDiskBytes } defaultPool defaultNetwork userNetwork }
            images { nodes { name usable problem virtualBytes osFamily } pageInfo { hasNextPage endCursor } } }", json!({})).await;
        let (host, images) = (&host["host"], &host["images"]["nodes"]);
        assert_eq!((&host["uri"], &host["domainType"]), (&json!("test:///default"), &json!("TEST")));
        assert_eq!((&host["pools"][0]["name"], &host["networks"][0]["name"]), (&json!("default-pool"), &json!("default")));
        assert!(host["memoryBytes"].as_str().unwrap().parse::<u64>().unwrap() > 1 << 20, "{host}");
        assert_eq!((&host["userNetwork"], &host["limits"]["maxVcpus"]), (&json!(false), &json!(255)));
        assert_eq!((&images[0]["name"], &images[0]["usable"], &images[0]["virtualBytes"]), (&json!("blank"), &json!(true), &json!("67108864")));
    }
}

/// Statements on VMs and readings, once no more come.
async fn settled(trial: &Trial) -> usize {
    let tables = ["FROM vms WHERE ($1", "FROM vms ", "vm_metrics"];
    let count = || statements(trial, &tables);
    let (mut last, mut since) = (count(), tokio::time::Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = count();
        if now != last {
            (last, since) = (now, tokio::time::Instant::now());
        }
    }
    last
}
