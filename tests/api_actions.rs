//! Safe actions: every one with its own parameters, refused where the guest cannot carry it out,
//! its result typed where the shape is known, and nothing kept that an operator calls a secret.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::{io, time::Duration};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    guest::{FakeGuest, Received, metrics_line, now},
    trial::Trial,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

const SOON: Duration = Duration::from_secs(20);
const RUN: &str = "mutation($vm: UUID!, $command: CommandInput!) {
    executeVmCommand(vmId: $vm, command: $command, timeoutSeconds: 30) {
        id status success command response result { __typename
            ... on Services { services { name activeState } truncated }
            ... on HealthReport { status checks { name status value } }
            ... on Processes { total processes { pid name commandLine } } } } }";

/// What the guest answers an action with.
fn data(action: &str) -> Value {
    match action {
        "ServiceList" => json!({"services": [{"name": "ssh\u{7}.service", "active_state": "active"}, 5],
            "truncated": false}),
        "RunHealthCheck" => {
            json!({"status": "ok", "checks": [{"name": "load", "status": "ok", "value": 0.5}]})
        }
        "ProcessList" => json!({"processes": [{"id": 7, "name": "x",
            "command_line": "x --password hunter2 --pin 4711"}], "total": 1}),
        // Another agent's shape.
        "OsInfo" => json!(["Debian", 12]),
        _ => Value::Null,
    }
}

/// An agent that says this of itself, and answers what it is sent; `PackageList` with a failure.
async fn agent(stream: UnixStream, received: Received, said: Value) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut hello = json!({"type": "handshake", "timestamp": now(), "max_concurrent_commands": 4});
    hello.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    let status = json!({"type": "connection_status", "timestamp": now(), "vm_id": "x", "state": "degraded"});
    writer.write_all(format!("{hello}\n{status}\n{}", metrics_line(5.0)).as_bytes()).await?;
    let mut incoming = BufReader::new(reader).lines();
    while let Some(line) = incoming.next_line().await? {
        let message: Value = serde_json::from_str(&line)?;
        received.lock().expect("received").push(message.clone());
        if !message["id"].is_string() {
            continue;
        }
        let action = message["command_type"]["action"].as_str().unwrap_or_default();
        let answer = json!({
            "id": message["id"], "success": action != "PackageList", "exit_code": 0, "stdout": "", "stderr": "",
            "execution_time_ms": 1, "command_type": "safe",
            "data": if action == "PackageList" { json!({"packages": []}) } else { data(action) },
        });
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

/// A VM whose agent is heard, and said this of itself.
async fn heard(trial: &Trial, name: &str, said: Value) -> (String, FakeGuest) {
    let id = VmId::generate();
    let guest = FakeGuest::listen(&trial.home.socket_dir(), id, move |s, r| agent(s, r, said.clone()));
    let mut request = trial.request(name);
    request["id"] = json!(id.to_string());
    let (vm, _) = trial.client.create(request).await;
    trial.client.agent_is(&vm, "ONLINE", SOON).await;
    (vm, guest)
}

async fn run(trial: &Trial, vm: &str, safe: Value) -> Value {
    trial.client.ask(RUN, json!({"vm": vm, "command": {"safe": safe}})).await["executeVmCommand"].take()
}

/// The code, the field and the words of a refusal.
async fn refused(trial: &Trial, vm: &str, safe: Value) -> (String, Option<String>, String) {
    let answer = trial.client.send(RUN, json!({"vm": vm, "command": {"safe": safe}})).await;
    let error = &answer["errors"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let code = text(&error["extensions"]["code"]).unwrap_or_else(|| panic!("not refused: {answer}"));
    (code, text(&error["extensions"]["field"]), text(&error["message"]).unwrap())
}

on_both! {
    async fn every_action_reaches_a_guest_that_has_it(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        // It never said what it offers, so that it may offer anything of Windows.
        let (vm, guest) = heard(&trial, "windows", json!({"platform": "windows"})).await;
        for (safe, wire) in [
            (json!({"action": "PACKAGE_LIST"}), json!({"action": "PackageList"})),
            (json!({"action": "PACKAGE_INSTALL", "package": "vim"}), json!({"action": "PackageInstall", "package": "vim"})),
            (json!({"action": "PACKAGE_REMOVE", "package": "vim"}), json!({"action": "PackageRemove", "package": "vim"})),
            (json!({"action": "PACKAGE_UPDATE", "package": "vim"}), json!({"action": "PackageUpdate", "package": "vim"})),
            (json!({"action": "PACKAGE_SEARCH", "query": "vi"}), json!({"action": "PackageSearch", "query": "vi"})),
            (json!({"action": "PROCESS_LIST", "limit": 5}), json!({"action": "ProcessList", "limit": 5})),
            (json!({"action": "SYSTEM_INFO"}), json!({"action": "SystemInfo"})),
            (json!({"action": "OS_INFO"}), json!({"action": "OsInfo"})),
            (
                json!({"action": "CHECK_DISK_SPACE", "warningThreshold": 70.5, "criticalThreshold": 90}),
                json!({"action": "CheckDiskSpace", "warning_threshold": 70.5, "critical_threshold": 90.0}),
            ),
            (
                json!({"action": "CHECK_RESOURCE_OPTIMIZATION", "evaluationWindowDays": 365}),
                json!({"action": "CheckResourceOptimization", "evaluation_window_days": 365}),
            ),
            (
                json!({"action": "RUN_HEALTH_CHECK", "checkName": "load"}),
                json!({"action": "RunHealthCheck", "check_name": "load"}),
            ),
            (json!({"action": "RUN_ALL_HEALTH_CHECKS"}), json!({"action": "RunAllHealthChecks"})),
            (
                json!({"action": "DISK_CLEANUP", "drive": "C:", "targets": ["temp_files", "cache"]}),
                json!({"action": "DiskCleanup", "drive": "C:", "targets": ["temp_files", "cache"]}),
            ),
            (json!({"action": "CHECK_WINDOWS_UPDATES"}), json!({"action": "CheckWindowsUpdates"})),
            (json!({"action": "GET_UPDATE_HISTORY", "days": 30}), json!({"action": "GetUpdateHistory", "days": 30})),
            (json!({"action": "GET_UPDATE_HISTORY"}), json!({"action": "GetUpdateHistory"})),
            (json!({"action": "GET_PENDING_UPDATES"}), json!({"action": "GetPendingUpdates"})),
            (json!({"action": "CHECK_WINDOWS_DEFENDER"}), json!({"action": "CheckWindowsDefender"})),
            (json!({"action": "GET_DEFENDER_STATUS"}), json!({"action": "GetDefenderStatus"})),
            (json!({"action": "RUN_DEFENDER_QUICK_SCAN"}), json!({"action": "RunDefenderQuickScan"})),
            (json!({"action": "GET_THREAT_HISTORY"}), json!({"action": "GetThreatHistory"})),
            (json!({"action": "GET_INSTALLED_APPLICATIONS_WMI"}), json!({"action": "GetInstalledApplicationsWMI"})),
            (json!({"action": "CHECK_APPLICATION_UPDATES"}), json!({"action": "CheckApplicationUpdates"})),
            (
                json!({"action": "GET_APPLICATION_DETAILS", "appId": "{90160000-008C}"}),
                json!({"action": "GetApplicationDetails", "app_id": "{90160000-008C}"}),
            ),
            (
                json!({"action": "CHECK_SPECIFIC_APP_UPDATES", "appId": "Vim.Vim"}),
                json!({"action": "CheckSpecificAppUpdates", "app_id": "Vim.Vim"}),
            ),
            (
                json!({"action": "ESTIMATE_UPDATE_SIZE", "appId": "Vim.Vim"}),
                json!({"action": "EstimateUpdateSize", "app_id": "Vim.Vim"}),
            ),
            (json!({"action": "GET_AVAILABLE_UPDATES"}), json!({"action": "GetAvailableUpdates"})),
            (json!({"action": "GET_SECURITY_UPDATES"}), json!({"action": "GetSecurityUpdates"})),
        ] {
            let done = run(&trial, &vm, safe.clone()).await;
            assert_eq!((&done["status"], &done["command"]), (&json!("ANSWERED"), &wire), "{done}");
            assert_eq!(guest.received_of("SafeCommand").pop().unwrap()["command_type"], wire);
        }
    }

    async fn parameters_are_checked_before_anything_is_sent(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, guest) = heard(&trial, "checked", json!({})).await;
        let targets = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        for (safe, field) in [
            (json!({"action": "RUN_HEALTH_CHECK"}), "checkName"),
            (json!({"action": "RUN_HEALTH_CHECK", "checkName": "a b"}), "checkName"),
            (json!({"action": "RUN_ALL_HEALTH_CHECKS", "checkName": "load"}), "checkName"),
            (json!({"action": "DISK_CLEANUP", "targets": ["temp"]}), "drive"),
            (json!({"action": "DISK_CLEANUP", "drive": "C:"}), "targets"),
            (json!({"action": "DISK_CLEANUP", "drive": "C:", "targets": []}), "targets"),
            (json!({"action": "DISK_CLEANUP", "drive": "C:", "targets": targets(33)}), "targets"),
            (json!({"action": "DISK_CLEANUP", "drive": "C:", "targets": ["a;b"]}), "targets"),
            (json!({"action": "DISK_CLEANUP", "drive": "/var/../etc", "targets": ["a"]}), "drive"),
            (json!({"action": "CHECK_RESOURCE_OPTIMIZATION", "evaluationWindowDays": 366}), "evaluationWindowDays"),
            (json!({"action": "CHECK_RESOURCE_OPTIMIZATION", "evaluationWindowDays": -1}), "evaluationWindowDays"),
            (json!({"action": "GET_UPDATE_HISTORY", "days": 0}), "days"),
            (json!({"action": "GET_PENDING_UPDATES", "days": 5}), "days"),
            (json!({"action": "GET_APPLICATION_DETAILS"}), "appId"),
            (json!({"action": "GET_APPLICATION_DETAILS", "appId": "../x"}), "appId"),
            (json!({"action": "ESTIMATE_UPDATE_SIZE", "appId": "$(x)"}), "appId"),
            (json!({"action": "CHECK_DISK_SPACE", "criticalThreshold": 100.5}), "criticalThreshold"),
            (json!({"action": "PROCESS_KILL", "pid": 1}), "pid"),
            (json!({"action": "SERVICE_CONTROL", "service": "-x", "operation": "STOP"}), "service"),
        ] {
            let (code, named, words) = refused(&trial, &vm, safe.clone()).await;
            assert_eq!((code.as_str(), named.as_deref()), ("INVALID_INPUT", Some(field)), "{safe}: {words}");
            assert!(words.starts_with(&format!("{field}: ")), "{words}");
        }
        // A nested parameter is not of the schema.
        for safe in [
            json!({"action": "PACKAGE_INSTALL", "package": {"name": "vim"}}),
            json!({"action": "DISK_CLEANUP", "drive": "C:", "targets": [["temp"]]}),
            json!({"action": {"PACKAGE_LIST": {}}}),
            json!({"action": "FLY"}),
        ] {
            assert_eq!(refused(&trial, &vm, safe.clone()).await.0, "INVALID_QUERY", "{safe}");
        }
        assert!(guest.received_of("SafeCommand").is_empty(), "something was sent");
    }

    async fn what_a_guest_cannot_do_is_refused_before_it_is_logged(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let said = json!({"platform": "linux", "actions": ["OsInfo", "ServiceList", "GetThreatHistory"]});
        let (vm, guest) = heard(&trial, "linux", said).await;
        for (safe, words) in [
            (
                json!({"action": "CHECK_WINDOWS_UPDATES"}),
                "CheckWindowsUpdates is for Windows guests; this agent says it runs on linux",
            ),
            (
                json!({"action": "GET_THREAT_HISTORY"}),
                "GetThreatHistory is for Windows guests; this agent says it runs on linux",
            ),
            (
                json!({"action": "RUN_ALL_HEALTH_CHECKS"}),
                "RunAllHealthChecks is not among the actions that this agent offers",
            ),
        ] {
            assert_eq!(refused(&trial, &vm, safe).await, ("ACTION_UNSUPPORTED".into(), None, words.into()));
        }
        assert!(guest.received_of("SafeCommand").is_empty(), "something was sent");
        let agent = "query($id: UUID!) { vm(id: $id) { agent { actions reportedState } } }";
        let told = trial.client.ask(agent, json!({"id": vm})).await["vm"]["agent"].take();
        let actions = ["OsInfo", "ServiceList", "GetThreatHistory"];
        assert_eq!(told, json!({"actions": actions, "reportedState": "degraded"}));
        let log = trial.client.ask("query($vm: UUID!) { commandLog(vmId: $vm) { nodes { id } } }", json!({"vm": vm}));
        assert_eq!(log.await["commandLog"]["nodes"], json!([]));
        assert_eq!(run(&trial, &vm, json!({"action": "OS_INFO"})).await["status"], "ANSWERED");
    }

    async fn results_are_typed_where_their_shape_is_known(db: TestDatabase) {
        let env = [("INFINIBAY__REDACTION__NAMES", "pin"), ("INFINIBAY__REDACTION__PATTERNS", "AKIA[0-9]+")];
        let trial = Trial::start_with(&db, &env).await;
        let (vm, _guest) = heard(&trial, "typed", json!({"platform": "linux"})).await;
        let done = run(&trial, &vm, json!({"action": "SERVICE_LIST"})).await;
        assert_eq!(
            done["result"],
            json!({"__typename": "Services", "truncated": false,
                "services": [{"name": "ssh.service", "activeState": "active"}]})
        );
        assert_eq!(done["response"]["data"]["services"][1], json!(5), "raw, as it came");
        let done = run(&trial, &vm, json!({"action": "RUN_HEALTH_CHECK", "checkName": "load"})).await;
        assert_eq!(
            done["result"],
            json!({"__typename": "HealthReport", "status": "ok",
                "checks": [{"name": "load", "status": "ok", "value": 0.5}]})
        );
        let done = run(&trial, &vm, json!({"action": "PROCESS_LIST"})).await;
        let hidden = json!("x --password *** --pin ***");
        assert_eq!(done["result"]["processes"][0]["commandLine"], hidden, "{done}");
        assert_eq!(done["response"]["data"]["processes"][0]["command_line"], hidden, "{done}");
        // Another shape, a failure, and an action without a known shape.
        let done = run(&trial, &vm, json!({"action": "OS_INFO"})).await;
        assert_eq!((&done["result"], &done["response"]["data"]), (&Value::Null, &json!(["Debian", 12])));
        for action in ["PACKAGE_LIST", "RUN_ALL_HEALTH_CHECKS"] {
            assert_eq!(run(&trial, &vm, json!({"action": action})).await["result"], Value::Null, "{action}");
        }
        let line = json!({"unsafe": {"rawCommand": "tool PIN=4711 --key AKIA123 --other 5"}});
        let done = trial.client.ask(RUN, json!({"vm": vm, "command": line})).await["executeVmCommand"].take();
        assert_eq!(done["command"]["raw_command"], json!("tool PIN=*** --key *** --other 5"));
        assert_eq!(done["result"], Value::Null);
        // The log tells the same afterwards.
        let log = "query($vm: UUID!) { commandLog(vmId: $vm) { nodes { command result { __typename } } } }";
        let log = trial.client.ask(log, json!({"vm": vm})).await["commandLog"]["nodes"].take();
        let first = log.as_array().unwrap().last().unwrap();
        assert_eq!((&first["command"]["action"], &first["result"]["__typename"]), (&json!("ServiceList"), &json!("Services")));
    }
}
