//! Changes beyond power: asked for, followed by an operation, refused where the VM's state or
//! another change forbids them.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::trial::Trial;

const SOON: Duration = Duration::from_secs(20);
const AUTOSTART: &str = "mutation($id: UUID!, $on: Boolean!) {
    setVmAutostart(id: $id, autostart: $on) { operation { id kind } } }";

on_both! {
    async fn a_change_is_carried_out_and_told(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, create) = client.create(trial.request("changed")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;

        let asked = client.ask(AUTOSTART, json!({ "id": vm, "on": true })).await;
        let operation = &asked["setVmAutostart"]["operation"];
        assert_eq!(operation["kind"], "SET_AUTOSTART");
        client.succeeded(operation["id"].as_str().unwrap(), SOON).await;
        let effect = client
            .ask("query($id: UUID!) { operation(id: $id) { effect stage progress } }", json!({ "id": operation["id"] }))
            .await;
        assert_eq!(effect["operation"], json!({ "effect": "LIVE", "stage": "done", "progress": 100 }));

        let reset = client.change("resetVm", &vm).await;
        client.succeeded(&reset, SOON).await;
        // What else was asked of the VM goes on.
        let stop = client.change("stopVm", &vm).await;
        client.phase_is(&vm, "STOPPED", SOON).await;
        client.succeeded(&stop, SOON).await;
        assert_ne!(create, stop);
        let reset = "mutation($id: UUID!) { resetVm(id: $id) { operation { id } } }";
        assert_eq!(client.refused(reset, json!({ "id": vm })).await, "WRONG_STATE");
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'vm.change'").await, 2);
        trial.daemon.stop();
    }
}

/// A mutation with the id written as it is given.
fn with_id(mutation: &str, arguments: &str, id: &str) -> String {
    let arguments = [id, arguments].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ");
    let arguments = if arguments.is_empty() { String::new() } else { format!("({arguments})") };
    format!("mutation {{ {mutation}{arguments} {{ operation {{ id }} }} }}")
}

on_both! {
    async fn of_changes_at_once_each_is_carried_out_or_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("crowded")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let id = format!("id: \"{vm}\"");
        let asked: Vec<String> = (0..12)
            .map(|n| match n % 3 {
                0 => with_id("attachVmDisk", "bytes: 1048576", &id),
                1 => with_id("createVmSnapshot", &format!("name: \"s{n}\""), &id),
                _ => with_id("resizeVm", "vcpus: 2", &id),
            })
            .collect();
        let answers = futures_util::future::join_all(asked.iter().map(|query| client.send(query, json!({})))).await;
        let mut accepted = Vec::new();
        for (query, answer) in asked.iter().zip(&answers) {
            match answer["errors"][0]["extensions"]["code"].as_str() {
                None => accepted.push(answer["data"].as_object().unwrap().values().next().unwrap()["operation"]["id"].clone()),
                Some(code) => assert_eq!(code, "VM_BUSY", "{query}: {answer}"),
            }
        }
        assert!(!accepted.is_empty());
        for operation in &accepted {
            client.succeeded(operation.as_str().unwrap(), SOON).await;
        }
        // A deletion ends the change that is under way, and takes along what it made.
        let attach = client.send(&with_id("attachVmDisk", "bytes: 1048576", &id), json!({})).await;
        let delete = client.change("deleteVm", &vm).await;
        client.succeeded(&delete, SOON).await;
        let attach = attach["data"]["attachVmDisk"]["operation"]["id"].clone();
        let ended: Value = client.operation(attach.as_str().unwrap()).await;
        assert!(matches!(ended["status"].as_str(), Some("SUCCEEDED" | "SUPERSEDED")), "{ended}");
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        trial.daemon.stop();
    }
}
