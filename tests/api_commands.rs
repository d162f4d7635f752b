//! Commands through the API: parameters are checked one by one, outcomes are outcomes, and the
//! caller waits as long as the command may take.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::time::Duration;

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    daemon::Client,
    guest::{FakeGuest, well_behaved},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(20);
const RUN: &str = "mutation($vm: UUID!, $command: CommandInput!, $timeout: Int! = 30) {
    executeVmCommand(vmId: $vm, command: $command, timeoutSeconds: $timeout) {
        id commandId vmId type command response success executionMs status createdAt requestedBy } }";

/// A VM whose agent is heard.
async fn heard(trial: &Trial) -> (String, FakeGuest) {
    let id = VmId::generate();
    let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
    let mut request = trial.request("commanded");
    request["id"] = json!(id.to_string());
    let (vm, _) = trial.client.create(request).await;
    trial.client.agent_is(&vm, "ONLINE", SOON).await;
    (vm, guest)
}

async fn run(client: &Client, vm: &str, command: Value, timeout: u64) -> Value {
    let variables = json!({ "vm": vm, "command": command, "timeout": timeout });
    client.ask(RUN, variables).await["executeVmCommand"].take()
}

on_both! {
    async fn every_action_takes_its_own_parameters(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, guest) = heard(&trial).await;
        let refused = async |safe: Value| {
            let command = json!({ "safe": safe });
            let answer = trial.client.send(RUN, json!({ "vm": vm, "command": command })).await;
            let extensions = &answer["errors"][0]["extensions"];
            assert_eq!(extensions["code"], "INVALID_INPUT", "{safe}: {answer}");
            let message = answer["errors"][0]["message"].as_str().unwrap().to_owned();
            (extensions["field"].as_str().map(str::to_owned), message)
        };
        for (safe, field) in [
            (json!({ "action": "SERVICE_CONTROL", "service": "ssh" }), "operation"),
            (json!({ "action": "SERVICE_CONTROL", "operation": "START" }), "service"),
            (json!({ "action": "PACKAGE_INSTALL" }), "package"),
            (json!({ "action": "PROCESS_KILL", "force": true }), "pid"),
            (json!({ "action": "PROCESS_KILL", "pid": -5 }), "pid"),
            (json!({ "action": "OS_INFO", "limit": 5 }), "limit"),
            (json!({ "action": "PACKAGE_LIST", "package": "vim" }), "package"),
            (json!({ "action": "PROCESS_LIST", "sortBy": "CPU" }), "sortBy"),
        ] {
            assert_eq!(refused(safe.clone()).await.0.as_deref(), Some(field), "{safe}");
        }
        // What only the value's own rule forbids names the parameter, too.
        for (safe, word) in [
            (json!({ "action": "PACKAGE_INSTALL", "package": "-y" }), "package"),
            (json!({ "action": "PACKAGE_SEARCH", "query": "$(reboot)" }), "query"),
            (json!({ "action": "PROCESS_KILL", "pid": 1 }), "pid"),
            (json!({ "action": "PROCESS_TOP", "limit": 0 }), "limit"),
            (json!({ "action": "CHECK_DISK_SPACE", "warningThreshold": 101.0 }), "warning"),
        ] {
            let (_, message) = refused(safe.clone()).await;
            assert!(message.contains(word), "{safe}: {message}");
        }
        for (safe, expected) in [
            (json!({ "action": "SERVICE_LIST" }), json!({ "action": "ServiceList" })),
            (
                json!({ "action": "SERVICE_CONTROL", "service": "ssh", "operation": "RESTART" }),
                json!({ "action": "ServiceControl", "service": "ssh", "operation": "restart" }),
            ),
            (
                json!({ "action": "PROCESS_TOP", "limit": 3, "sortBy": "MEMORY" }),
                json!({ "action": "ProcessTop", "limit": 3, "sort_by": "memory" }),
            ),
            (
                json!({ "action": "PROCESS_KILL", "pid": 4242, "force": true }),
                json!({ "action": "ProcessKill", "pid": 4242, "force": true }),
            ),
        ] {
            let done = run(&trial.client, &vm, json!({ "safe": safe }), 30).await;
            assert_eq!((&done["success"], &done["type"]), (&json!(true), &json!("safe")), "{done}");
            let sent = guest.received_of("SafeCommand").pop().unwrap();
            assert_eq!(sent["command_type"], expected);
            assert_eq!(sent["id"], done["commandId"]);
        }
        // Exactly one kind of command.
        for command in [json!({}), json!({ "safe": { "action": "OS_INFO" }, "unsafe": { "rawCommand": "id" } })] {
            let code = trial.client.refused(RUN, json!({ "vm": vm, "command": command })).await;
            assert_eq!(code, "INVALID_QUERY", "{command}");
        }
    }

    async fn outcomes_are_logged_and_secrets_are_not(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, guest) = heard(&trial).await;
        let with_secret = json!({ "unsafe": {
            "rawCommand": "deploy --password=hunter2", "workingDir": "/srv",
            "envVars": [{ "name": "TOKEN", "value": "geheim" }],
        } });
        let done = run(&trial.client, &vm, with_secret, 30).await;
        assert_eq!((&done["success"], &done["status"]), (&json!(true), &json!("ANSWERED")), "{done}");
        let sent = guest.received_of("UnsafeCommand").pop().unwrap();
        assert_eq!((&sent["raw_command"], &sent["env_vars"]["TOKEN"]), (&json!("deploy --password=hunter2"), &json!("geheim")));
        let late = run(&trial.client, &vm, json!({ "unsafe": { "rawCommand": "sleep 60000" } }), 1).await;
        assert_eq!((&late["success"], &late["status"]), (&json!(false), &json!("TIMED_OUT")), "{late}");

        let twice = json!({ "unsafe": { "rawCommand": "env", "envVars": [
            { "name": "A", "value": "1" }, { "name": "A", "value": "2" }] } });
        assert_eq!(trial.client.refused(RUN, json!({ "vm": vm, "command": twice })).await, "INVALID_INPUT");
        for timeout in [0, -1, 100_000] {
            let variables = json!({ "vm": vm, "command": { "safe": { "action": "OS_INFO" } }, "timeout": timeout });
            assert_eq!(trial.client.refused(RUN, variables).await, "INVALID_INPUT", "{timeout}");
        }

        let log = "query($vm: UUID!, $after: String) { commandLog(vmId: $vm, first: 1, after: $after) {
            nodes { id command response status success } pageInfo { hasNextPage endCursor } } }";
        let newest = trial.client.ask(log, json!({ "vm": vm })).await["commandLog"].take();
        assert_eq!((&newest["nodes"][0]["id"], &newest["pageInfo"]["hasNextPage"]), (&late["id"], &json!(true)));
        let older = trial.client.ask(log, json!({ "vm": vm, "after": newest["pageInfo"]["endCursor"] })).await;
        let older = &older["commandLog"];
        assert_eq!((&older["nodes"][0]["id"], &older["pageInfo"]["hasNextPage"]), (&done["id"], &json!(false)));
        let text = older["nodes"][0]["command"].to_string();
        assert!(text.contains("deploy") && text.contains("TOKEN"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("geheim"), "a secret was logged: {text}");
        let errors = trial.client.ask("query($vm: UUID!) { vmErrors(vmId: $vm) { nodes { error } } }", json!({ "vm": vm }));
        assert_eq!(errors.await["vmErrors"]["nodes"], json!([]));
    }

    async fn a_caller_waits_as_long_as_the_command_may_take(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__API__REQUEST_TIMEOUT", "1s")]).await;
        let (vm, _guest) = heard(&trial).await;
        let done = run(&trial.client, &vm, json!({ "unsafe": { "rawCommand": "sleep 3000" } }), 20).await;
        assert_eq!((&done["success"], &done["status"]), (&json!(true), &json!("ANSWERED")), "{done}");
    }

    async fn a_vm_that_goes_ends_its_commands(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, guest) = heard(&trial).await;
        let (client, id) = (trial.client.clone(), vm.clone());
        let waiting = tokio::spawn(async move {
            run(&client, &id, json!({ "unsafe": { "rawCommand": "sleep 60000" } }), 60).await
        });
        support::guest::eventually("the command in the guest", || guest.received_of("UnsafeCommand").pop()).await;
        trial.client.change("deleteVm", &vm).await;
        let ended = tokio::time::timeout(SOON, waiting).await.expect("the command waits for nobody").unwrap();
        assert_eq!((&ended["success"], &ended["status"]), (&json!(false), &json!("DISCONNECTED")), "{ended}");
        // The guest listens still, so the deletion is not over, and nothing more may be asked.
        let command = json!({ "safe": { "action": "OS_INFO" } });
        assert_eq!(trial.client.refused(RUN, json!({ "vm": vm, "command": command })).await, "VM_DELETING");
        let start = "mutation($id: UUID!) { startVm(id: $id) { operation { id } } }";
        assert_eq!(trial.client.refused(start, json!({ "id": vm })).await, "VM_DELETING");
    }
}
