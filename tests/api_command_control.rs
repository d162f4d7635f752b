//! Commands through the API: for many VMs at once, cancelled by whoever may, lost in a crash, and
//! refused while the database is away.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    away::Away,
    daemon::Client,
    guest::{FakeGuest, eventually, well_behaved},
    trial::Trial,
};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(20);
const RUN: &str = "mutation($vm: UUID!, $id: UUID, $line: String!) {
    executeVmCommand(vmId: $vm, commandId: $id, command: { unsafe: { rawCommand: $line } }) {
        id status success response sentAt queueMs runMs executionMs lateAt lateResponse } }";
const MANY: &str = "mutation($vms: [UUID!]!, $parallelism: Int! = 16) {
    executeVmCommands(vmIds: $vms, command: { safe: { action: OS_INFO } }, parallelism: $parallelism) {
        vmId command { vmId status success requestedBy } error { code message } } }";
const CANCEL: &str = "mutation($vm: UUID!, $id: UUID!) {
    cancelVmCommand(vmId: $vm, commandId: $id) { id status success response sentAt } }";

/// A VM of this client's, with an agent behind it that takes one command at a time.
async fn heard(trial: &Trial, client: &Client, name: &str) -> (String, FakeGuest) {
    let id = VmId::generate();
    let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 1, Vec::new()));
    let mut request = trial.request(name);
    request["id"] = json!(id.to_string());
    let (vm, _) = client.create(request).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    (vm, guest)
}

/// Two more users: Ana may send no shell line, Bob may.
fn others(trial: &mut Trial) -> (Client, Client) {
    let (ana, bob) = trial.home.between(&mut trial.daemon, |home| {
        (home.user("ana", &[]), home.user("bob", &["--permission", "unsafe_commands"]))
    });
    trial.client = trial.daemon.client(&trial.token);
    (trial.daemon.client(&ana), trial.daemon.client(&bob))
}

fn run(client: &Client, vm: &str, id: Uuid, line: &str) -> tokio::task::JoinHandle<Value> {
    let (client, variables) = (client.clone(), json!({ "vm": vm, "id": id, "line": line }));
    tokio::spawn(async move { client.send(RUN, variables).await })
}

async fn log(client: &Client, vm: &str) -> Vec<Value> {
    const LOG: &str = "query($vm: UUID!) { commandLog(vmId: $vm) { nodes { id status sentAt } } }";
    let mut data = client.ask(LOG, json!({ "vm": vm })).await;
    serde_json::from_value(data["commandLog"]["nodes"].take()).unwrap()
}

async fn logged(client: &Client, vm: &str, id: Uuid) {
    let start = Instant::now();
    while !log(client, vm).await.iter().any(|entry| entry["id"] == json!(id)) {
        assert!(start.elapsed() < SOON, "{id} is not logged");
    }
}

on_both! {
    async fn many_vms_at_once_each_with_its_own_result(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (ana, _) = others(&mut trial);
        let (first, _first) = heard(&trial, &ana, "first").await;
        let (second, _second) = heard(&trial, &ana, "second").await;
        let (silent, _) = ana.create(trial.request("silent")).await;
        let (theirs, _theirs) = heard(&trial, &trial.client, "theirs").await;
        let vms = [&second, &silent, &theirs, &first];
        for parallelism in [1, 64] {
            let variables = json!({ "vms": vms, "parallelism": parallelism });
            let results = ana.ask(MANY, variables).await["executeVmCommands"].take();
            let told: Vec<_> = results.as_array().unwrap().iter().map(|result| {
                assert_ne!(result["command"].is_null(), result["error"].is_null(), "{result}");
                (&result["vmId"], &result["command"]["status"], &result["error"]["code"])
            }).collect();
            let (answered, null) = (json!("ANSWERED"), Value::Null);
            assert_eq!(told, [
                (&json!(second), &answered, &null),
                (&json!(silent), &null, &json!("AGENT_NOT_CONNECTED")),
                (&json!(theirs), &null, &json!("VM_NOT_FOUND")),
                (&json!(first), &answered, &null),
            ]);
        }
        for wrong in [
            json!({ "vms": [first, second, first] }),
            json!({ "vms": [] }),
            json!({ "vms": [first], "parallelism": 0 }),
            json!({ "vms": [first], "parallelism": 65 }),
        ] {
            assert_eq!(ana.refused(MANY, wrong.clone()).await, "INVALID_INPUT", "{wrong}");
        }
    }

    async fn who_loses_his_right_meanwhile_sends_no_more(db: TestDatabase) {
        const SLOW: &str = "mutation($vms: [UUID!]!) {
            executeVmCommands(vmIds: $vms, parallelism: 1, command: { unsafe: { rawCommand: \"sleep 4000\" } }) {
                command { status } error { code } } }";
        let mut trial = Trial::start(&db).await;
        let (_, bob) = others(&mut trial);
        let (first, guest) = heard(&trial, &bob, "first").await;
        let (second, other) = heard(&trial, &bob, "second").await;
        let (client, variables) = (bob.clone(), json!({ "vms": [first, second] }));
        let asked = tokio::spawn(async move { client.send(SLOW, variables).await });
        eventually("the first is sent", || guest.received_of("UnsafeCommand").pop()).await;
        db.tamper("DELETE FROM permissions", "DELETE FROM permissions").await;
        let answer = asked.await.unwrap();
        assert_eq!(answer["data"]["executeVmCommands"], json!([
            { "command": { "status": "ANSWERED" }, "error": null },
            { "command": null, "error": { "code": "FORBIDDEN" } },
        ]), "{answer}");
        assert!(other.received_of("UnsafeCommand").is_empty(), "it was sent all the same");
    }

    async fn whoever_may_send_a_command_may_cancel_it(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (ana, bob) = others(&mut trial);
        let (vm, guest) = heard(&trial, &ana, "busy").await;
        let (sent, queued) = (Uuid::now_v7(), Uuid::now_v7());
        let first = run(&trial.client, &vm, sent, "sleep 60000");
        eventually("it is sent", || guest.received_of("UnsafeCommand").pop()).await;
        let second = run(&trial.client, &vm, queued, "queued");
        logged(&trial.client, &vm, queued).await;
        assert_eq!(trial.client.refused(RUN, json!({ "vm": vm, "id": queued, "line": "x" })).await, "ID_TAKEN");

        let which = |id: Uuid| json!({ "vm": vm, "id": id });
        assert_eq!(bob.refused(CANCEL, which(queued)).await, "VM_NOT_FOUND");
        assert_eq!(ana.refused(CANCEL, which(queued)).await, "FORBIDDEN", "it is her VM, and no command of hers");
        assert_eq!(trial.client.refused(CANCEL, which(Uuid::now_v7())).await, "COMMAND_NOT_FOUND");
        for (id, task, ran) in [(queued, second, false), (sent, first, true)] {
            let told = trial.client.ask(CANCEL, which(id)).await["cancelVmCommand"].take();
            assert_eq!((&told["status"], &told["success"]), (&json!("CANCELLED"), &json!(false)), "{told}");
            assert_eq!(told["sentAt"].is_string(), ran, "{told}");
            let answer = task.await.unwrap();
            assert_eq!(answer["data"]["executeVmCommand"]["response"], told["response"], "{answer}");
            let again = trial.client.ask(CANCEL, which(id)).await["cancelVmCommand"].take();
            assert_eq!(again, told);
        }
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.command.cancel'").await, 2);
        assert_eq!(guest.received_of("UnsafeCommand").len(), 1);
    }

    async fn a_vm_that_is_deleted_or_a_crash_ends_what_waits(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (vm, guest) = heard(&trial, &trial.client, "going").await;
        let (sent, queued) = (Uuid::now_v7(), Uuid::now_v7());
        let first = run(&trial.client, &vm, sent, "sleep 60000");
        eventually("it is sent", || guest.received_of("UnsafeCommand").pop()).await;
        let second = run(&trial.client, &vm, queued, "queued");
        logged(&trial.client, &vm, queued).await;
        trial.client.change("deleteVm", &vm).await;
        for (task, ran) in [(first, true), (second, false)] {
            let mut answer = tokio::time::timeout(SOON, task).await.expect("at once").unwrap();
            let ended = answer["data"]["executeVmCommand"].take();
            assert_eq!(ended["status"], "DISCONNECTED", "{ended}");
            let why = ended["response"]["error"].as_str().unwrap();
            assert!(why.contains("the VM was deleted") && why.contains("did not run") != ran, "{why}");
        }

        let (vm, guest) = heard(&trial, &trial.client, "crashing").await;
        let lost = Uuid::now_v7();
        let client = trial.client.clone();
        let variables = json!({ "vm": vm, "id": lost, "line": "sleep 60000" });
        // The daemon dies under it: no answer comes.
        let asked = tokio::spawn(async move { client.send(RUN, variables).await });
        eventually("it is sent", || guest.received_of("UnsafeCommand").pop()).await;
        trial.home.between(&mut trial.daemon, |_| ());
        assert!(asked.await.is_err(), "somebody answered");
        let log = log(&trial.daemon.client(&trial.token), &vm).await;
        assert_eq!(log, [json!({ "id": lost, "status": "LOST", "sentAt": null })]);
        assert_eq!(guest.received_of("UnsafeCommand").len(), 1, "it was sent again");
    }

    async fn while_the_database_is_away_commands_are_refused_soon(db: TestDatabase) {
        let mut away = Away::new(&db).await;
        let trial = Trial::start_with(&db, &[("DATABASE_URL", &away.url)]).await;
        let (vm, guest) = heard(&trial, &trial.client, "patient").await;
        let id = Uuid::now_v7();
        let in_flight = run(&trial.client, &vm, id, "sleep 1500");
        eventually("it is sent", || guest.received_of("UnsafeCommand").pop()).await;
        away.cut().await;
        let start = Instant::now();
        let refused = trial.client.refused(RUN, json!({ "vm": vm, "line": "refused" })).await;
        assert_eq!(refused, "STORE_UNAVAILABLE");
        assert!(start.elapsed() < Duration::from_secs(3), "refused after {:?}", start.elapsed());
        let answer = in_flight.await.unwrap();
        assert_eq!(answer["data"]["executeVmCommand"]["status"], "ANSWERED", "{answer}");
        away.restore().await;
        let start = Instant::now();
        loop {
            let answer = trial.client.send(
                "query($vm: UUID!) { commandLog(vmId: $vm) { nodes { id status } } }", json!({ "vm": vm }),
            ).await;
            let nodes = answer["data"]["commandLog"]["nodes"].as_array().expect("a list");
            // The refused one is there as one that was not sent, if the database was lost while it was
            // being logged.
            let (ours, refused): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node["id"] == json!(id));
            if ours == [&json!({ "id": id, "status": "ANSWERED" })]
                && refused.iter().all(|node| node["status"] == "CANCELLED")
            {
                break;
            }
            assert!(start.elapsed() < 2 * SOON, "{answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(guest.received_of("UnsafeCommand").len(), 1);
    }
}
