//! What became of a VM's commands and which alerts there were, as people look for it: by outcome, kind,
//! action, who asked and when; by VM, kind, severity and whether it goes on. Page by page, filtered by the
//! database, and never showing what may not be seen.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    daemon::Client,
    guest::{FakeGuest, now, well_behaved},
    node::SOON,
    trial::Trial,
};

const LOG: &str = "query($vm: UUID!, $first: Int!, $after: String, $filter: CommandLogFilter) {
    commandLog(vmId: $vm, first: $first, after: $after, filter: $filter) {
        nodes { id type command status requestedBy createdAt } pageInfo { hasNextPage endCursor } } }";
const ALERTS: &str = "query($first: Int!, $after: String, $open: Boolean!, $filter: AlertFilter) {
    alerts(first: $first, after: $after, openOnly: $open, filter: $filter) {
        nodes { id kind severity vmId resolvedAt } pageInfo { hasNextPage endCursor } } }";
const RUN: &str = "mutation($vm: UUID!, $command: CommandInput!, $seconds: Int!) {
    executeVmCommand(vmId: $vm, command: $command, timeoutSeconds: $seconds) { id status } }";

/// All nodes of a list, in pages of this size.
async fn pages(client: &Client, query: &str, mut variables: Value, first: usize) -> Vec<Value> {
    variables["first"] = json!(first);
    let mut seen = Vec::new();
    loop {
        let data = client.ask(query, variables.clone()).await;
        let (_, page) = data.as_object().unwrap().iter().next().unwrap();
        let nodes = page["nodes"].as_array().unwrap();
        assert!(nodes.len() <= first);
        seen.extend(nodes.iter().cloned());
        if page["pageInfo"]["hasNextPage"] == false {
            return seen;
        }
        assert_eq!(nodes.len(), first, "a page with a hole: {page}");
        variables["after"] = page["pageInfo"]["endCursor"].clone();
        assert!(seen.len() < 100, "the pages go round: {seen:?}");
    }
}

/// The shell lines and actions that the log has of this filter, the same in pages of every size.
async fn logged(client: &Client, vm: &str, filter: Value) -> Vec<String> {
    let variables = json!({ "vm": vm, "filter": filter });
    let whole = pages(client, LOG, variables.clone(), 100).await;
    for first in [1, 2] {
        assert_eq!(pages(client, LOG, variables.clone(), first).await, whole, "{filter} by {first}");
    }
    let word = |entry: &Value| {
        let command = &entry["command"];
        command["action"].as_str().or(command["raw_command"].as_str()).unwrap().to_owned()
    };
    whole.iter().map(word).collect()
}

/// The same of alerts: kind and VM.
async fn alerted(client: &Client, open: bool, filter: Value) -> Vec<(String, String)> {
    let variables = json!({ "open": open, "filter": filter });
    let whole = pages(client, ALERTS, variables.clone(), 100).await;
    assert_eq!(pages(client, ALERTS, variables, 1).await, whole, "{filter} one by one");
    let word = |alert: &Value, field: &str| alert[field].as_str().unwrap_or_default().to_owned();
    whole.iter().map(|alert| (word(alert, "kind"), word(alert, "vmId"))).collect()
}

async fn run(client: &Client, vm: &str, command: Value, seconds: u32) -> Value {
    let variables = json!({ "vm": vm, "command": command, "seconds": seconds });
    client.ask(RUN, variables).await["executeVmCommand"].take()
}

/// Has a shell line begin, and cancels it.
async fn cancelled(client: &Client, vm: &str, line: &str) {
    const BEGIN: &str = "mutation($vm: UUID!, $id: UUID!, $command: CommandInput!) {
        executeVmCommand(vmId: $vm, command: $command, commandId: $id) { status } }";
    const CANCEL: &str =
        "mutation($vm: UUID!, $id: UUID!) { cancelVmCommand(vmId: $vm, commandId: $id) { status } }";
    let id = uuid::Uuid::new_v4();
    let begun = client.ask(BEGIN, json!({ "vm": vm, "id": id, "command": shell(line) }));
    let cancel = async {
        let since = Instant::now();
        while client.send(CANCEL, json!({ "vm": vm, "id": id })).await.get("errors").is_some() {
            assert!(since.elapsed() < SOON, "it does not begin");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (begun, ()) = tokio::join!(begun, cancel);
    assert_eq!(begun["executeVmCommand"]["status"], "CANCELLED");
}

fn shell(line: &str) -> Value {
    json!({ "unsafe": { "rawCommand": line } })
}

fn action(name: &str) -> Value {
    json!({ "safe": { "action": name } })
}

/// A VM with an agent that says `opening` after its greeting.
async fn guest(trial: &Trial, client: &Client, name: &str, opening: &str) -> (String, FakeGuest) {
    let (id, opening) = (VmId::generate(), opening.as_bytes().to_vec());
    let dir = trial.home.socket_dir();
    let agent = FakeGuest::listen(&dir, id, move |s, r| well_behaved(s, r, 4, opening.clone()));
    let mut request = trial.request(name);
    request["id"] = json!(id.to_string());
    let (vm, _) = client.create(request).await;
    trial.client.agent_is(&vm, "ONLINE", SOON).await;
    (vm, agent)
}

fn error_line(error: &str) -> String {
    format!("{}\n", json!({ "type": "error", "timestamp": now(), "error": error, "details": {} }))
}

on_both! {
    async fn people_find_what_became_of_their_commands(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &["--permission", "unsafe_commands"]));
        trial.client = trial.daemon.client(&trial.token);
        let (admin, eve) = (trial.client.clone(), trial.daemon.client(&eve));
        let (vm, _agent) = guest(&trial, &eve, "web", "").await;
        let (other, _other) = guest(&trial, &admin, "other", "").await;
        run(&admin, &other, shell("elsewhere"), 20).await;
        run(&eve, &vm, shell("one"), 20).await;
        run(&admin, &vm, action("OS_INFO"), 20).await;
        cancelled(&eve, &vm, "sleep 9000").await;
        run(&eve, &vm, action("SYSTEM_INFO"), 20).await;
        run(&admin, &vm, shell("two"), 20).await;
        let all = ["two", "SystemInfo", "sleep 9000", "OsInfo", "one"];
        let id = async |client: &Client| client.ask("{ me { id } }", json!({})).await["me"]["id"].take();
        let (admins, eves) = (id(&admin).await, id(&eve).await);
        assert_eq!(logged(&eve, &vm, Value::Null).await, all);
        for (filter, found) in [
            (json!({}), &all[..]),
            (json!({ "status": "CANCELLED" }), &["sleep 9000"]),
            (json!({ "status": "LOST" }), &[]),
            (json!({ "type": "SAFE" }), &["SystemInfo", "OsInfo"]),
            (json!({ "type": "UNSAFE", "status": "ANSWERED" }), &["two", "one"]),
            (json!({ "action": "OS_INFO" }), &["OsInfo"]),
            (json!({ "action": "GET_INSTALLED_APPLICATIONS_WMI" }), &[]),
            (json!({ "requestedBy": admins }), &["two", "OsInfo"]),
            (json!({ "requestedBy": eves, "type": "SAFE", "action": "SYSTEM_INFO", "status": "ANSWERED" }), &["SystemInfo"]),
            (json!({ "requestedBy": uuid::Uuid::nil() }), &[]),
            (json!({ "since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z" }), &all),
            // Further away than either database can say.
            (json!({ "since": "-262143-01-01T00:00:00Z", "until": "+262142-12-31T23:59:59Z" }), &all),
            (json!({ "until": "-262143-01-01T00:00:00Z" }), &[]),
            (json!({ "since": "+262142-12-31T23:59:59Z" }), &[]),
        ] {
            assert_eq!(logged(&eve, &vm, filter.clone()).await, found, "{filter}");
        }
        // A moment belongs to what begins with it, to the microsecond.
        let entries = pages(&eve, LOG, json!({ "vm": vm }), 100).await;
        let at = &entries[1]["createdAt"];
        assert_eq!(logged(&eve, &vm, json!({ "since": at })).await, all[..2]);
        assert_eq!(logged(&eve, &vm, json!({ "until": at })).await, all[2..]);
        // A page goes on after a row that the filter leaves out.
        let after = json!({ "vm": vm, "after": entries[2]["id"], "filter": { "type": "SAFE" } });
        let rest = pages(&eve, LOG, after, 1).await;
        assert_eq!((rest.len(), &rest[0]["id"]), (1, &entries[3]["id"]));

        let refused = async |filter: Value| eve.send(LOG, json!({ "vm": vm, "first": 9, "filter": filter })).await;
        for (filter, field) in [
            (json!({ "since": at, "until": at }), "filter.until"),
            (json!({ "type": "UNSAFE", "action": "OS_INFO" }), "filter.action"),
        ] {
            let told = refused(filter).await;
            let extensions = &told["errors"][0]["extensions"];
            assert_eq!((&extensions["code"], &extensions["field"]), (&json!("INVALID_INPUT"), &json!(field)), "{told}");
        }
        for filter in [json!({ "status": "GONE" }), json!({ "since": "yesterday" }), json!({ "requestedBy": "eve" })] {
            assert_eq!(refused(filter).await["errors"][0]["extensions"]["code"], "INVALID_QUERY");
        }
        // Another's log is none, whatever is searched for.
        let code = eve.refused(LOG, json!({ "vm": other, "first": 9, "filter": { "type": "SAFE" } })).await;
        assert_eq!(code, "VM_NOT_FOUND");
        trial.daemon.stop();
    }

    async fn people_find_the_alerts_that_concern_them(db: TestDatabase) {
        let env = [
            ("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s"),
            ("INFINIBAY__AGENTS__OFFLINE_AFTER", "2s"),
            ("INFINIBAY__AGENTS__LIVENESS_INTERVAL", "1s"),
            ("INFINIBAY__ALERTS__OFFLINE_FOR", "1s"),
        ];
        let mut trial = Trial::start_with(&db, &env).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let (admin, eve) = (trial.client.clone(), trial.daemon.client(&eve));
        let (web, silent) = guest(&trial, &eve, "web", &error_line("disk full")).await;
        let (db, _db) = guest(&trial, &admin, "db", &error_line("disk slow")).await;
        let both = |filter: &Value| json!({ "kind": "GUEST_ERROR", "vmId": filter });
        let since = Instant::now();
        while alerted(&admin, true, both(&json!(web))).await.len() + alerted(&admin, true, both(&json!(db))).await.len() < 2 {
            assert!(since.elapsed() < SOON, "the guests' errors are no alerts");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // One goes silent, and is stopped on purpose when that was told.
        drop(silent);
        let offline = json!({ "kind": "VM_OFFLINE", "vmId": web });
        let since = Instant::now();
        while alerted(&eve, true, offline.clone()).await.is_empty() {
            assert!(since.elapsed() < SOON, "nobody misses the agent");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        admin.change("stopVm", &web).await;
        let since = Instant::now();
        while alerted(&eve, false, json!({ "open": false })).await.is_empty() {
            assert!(since.elapsed() < SOON, "the alert does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        let of = |kind: &str, vm: &str| (kind.to_owned(), vm.to_owned());
        let (ended, full, slow) = (of("VM_OFFLINE", &web), of("GUEST_ERROR", &web), of("GUEST_ERROR", &db));
        assert_eq!(alerted(&eve, false, json!({ "vmId": web })).await, [ended.clone(), full.clone()]);
        assert_eq!(alerted(&eve, false, json!({ "open": false })).await, std::slice::from_ref(&ended));
        assert_eq!(alerted(&eve, false, json!({ "open": true, "vmId": web })).await, std::slice::from_ref(&full));
        assert_eq!(alerted(&eve, true, json!({ "vmId": web })).await, std::slice::from_ref(&full));
        assert_eq!(alerted(&eve, true, json!({ "vmId": web, "kind": "VM_OFFLINE" })).await, []);
        assert_eq!(alerted(&admin, false, json!({ "vmId": db, "kind": "GUEST_ERROR" })).await, [slow]);
        // Of another's VM, and of one that there is not, nothing is told.
        assert_eq!(alerted(&eve, false, json!({ "vmId": db })).await, []);
        assert_eq!(alerted(&eve, false, json!({ "vmId": uuid::Uuid::nil() })).await, []);
        // Every severity has its own, and together they are all.
        let whole = alerted(&admin, false, Value::Null).await;
        let mut parts = 0;
        for severity in ["INFO", "WARNING", "CRITICAL"] {
            let part = alerted(&admin, false, json!({ "severity": severity })).await;
            assert_eq!(part.contains(&ended), severity == "WARNING", "{severity}: {part:?}");
            parts += part.len();
        }
        assert_eq!(parts, whole.len());
        let told = admin.send(ALERTS, json!({ "first": 9, "open": true, "filter": { "open": false } })).await;
        let extensions = &told["errors"][0]["extensions"];
        assert_eq!((&extensions["code"], &extensions["field"]), (&json!("INVALID_INPUT"), &json!("filter.open")));
        trial.daemon.stop();
    }
}
