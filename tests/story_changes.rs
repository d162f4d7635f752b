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

/// Every mutation that changes a VM: its arguments beside the id, and whether they may be left out.
const MUTATIONS: [(&str, &str); 20] = [
    ("startVm", "discardSaved: false"),
    ("stopVm", "force: true"),
    ("suspendVm", ""),
    ("resumeVm", ""),
    ("saveVm", ""),
    ("resetVm", ""),
    ("rebootVm", "force: true"),
    ("deleteVm", ""),
    ("setVmAutostart", "autostart: true"),
    ("renameVm", "name: \"mine\""),
    ("setVmPolicy", "onPowerOff: CORRECT, onCrash: RESTART"),
    ("resizeVm", "vcpus: 2, memoryMib: 256"),
    ("growVmDisk", "target: \"vda\", bytes: 1073741824"),
    ("attachVmDisk", "bytes: 1048576"),
    ("detachVmDisk", "target: \"vdb\", deleteVolume: true"),
    ("insertVmMedium", "pool: \"default-pool\", volume: \"a.iso\""),
    ("attachVmInterface", "network: \"default\""),
    ("createVmSnapshot", "name: \"a\", memory: false, quiesce: REQUIRED"),
    ("revertVmSnapshot", "name: \"a\""),
    ("deleteVmSnapshot", "name: \"a\", children: true"),
];

/// The same with the id written as it is given.
fn with_id(mutation: &str, arguments: &str, id: &str) -> String {
    let arguments = [id, arguments].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", ");
    let arguments = if arguments.is_empty() { String::new() } else { format!("({arguments})") };
    format!("mutation {{ {mutation}{arguments} {{ operation {{ id }} }} }}")
}

on_both! {
    async fn nobody_changes_what_is_not_his_or_not_there(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let stranger = trial.home.between(&mut trial.daemon, |home| home.user("stranger", &[]));
        let (client, stranger) = (trial.daemon.client(&trial.token), trial.daemon.client(&stranger));
        let (vm, _) = client.create(trial.request("not-yours")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let (nobody, nil) = (uuid::Uuid::new_v4(), uuid::Uuid::nil());
        let long = "a".repeat(10_000);
        for (mutation, arguments) in MUTATIONS {
            // Not there, and somebody else's: nobody can tell the one from the other.
            for (who, id) in [(&client, nobody.to_string()), (&client, nil.to_string()), (&stranger, vm.clone())] {
                let query = with_id(mutation, arguments, &format!("id: \"{id}\""));
                assert_eq!(who.refused(&query, json!({})).await, "VM_NOT_FOUND", "{query}");
            }
            for id in ["", "id: null", "id: 7", "id: -1", "id: \"../../etc/passwd\"", "id: \"\"", "id: [\"a\"]",
                "id: \"' OR '1'='1\"", &format!("id: \"{long}\"")] {
                let query = with_id(mutation, arguments, id);
                let answer = client.send(&query, json!({})).await;
                assert!(answer["errors"][0]["message"].is_string(), "{query:.200} was accepted: {answer}");
                assert!(answer["data"].is_null(), "{query:.200}: {answer}");
            }
        }
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1, "only the one that made it");
        let now = client.vm(&vm).await;
        assert_eq!((&now["phase"], &now["name"]), (&json!("INSTALLING"), &json!("not-yours")));
        trial.daemon.stop();
    }

    async fn arguments_that_are_missing_or_huge_change_nothing(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("guarded")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let id = format!("id: \"{vm}\"");
        let long = "a".repeat(30_000);
        // Not of the kind that the schema wants, or not there.
        for (mutation, arguments) in [
            ("setVmAutostart", ""),
            ("setVmAutostart", "autostart: \"yes\""),
            ("renameVm", ""),
            ("renameVm", "name: null"),
            ("setVmPolicy", "onPowerOff: CORRECT"),
            ("setVmPolicy", "onPowerOff: EXPLODE, onCrash: STAY"),
            ("resizeVm", "vcpus: 2147483648"),
            ("resizeVm", "vcpus: 1.5"),
            ("resizeVm", "memoryMib: \"256\""),
            ("growVmDisk", ""),
            ("growVmDisk", "bytes: \"9223372036854775808\""),
            ("growVmDisk", "bytes: \"1e12\""),
            ("growVmDisk", "bytes: \"\""),
            ("attachVmDisk", "bytes: -99999999999999999999"),
            ("attachVmDisk", "pool: \"default-pool\""),
            ("detachVmDisk", ""),
            ("detachVmDisk", "target: \"vdb\", deleteVolume: \"all\""),
            ("insertVmMedium", "pool: \"default-pool\""),
            ("insertVmMedium", "volume: \"a.iso\""),
            ("ejectVmMedium", ""),
            ("detachVmInterface", ""),
            ("createVmSnapshot", ""),
            ("createVmSnapshot", "name: \"a\", quiesce: SOMETIMES"),
            ("createVmSnapshot", "name: \"a\", memory: \"yes\""),
            ("revertVmSnapshot", ""),
            ("deleteVmSnapshot", "name: \"a\", children: 1"),
            ("stopVm", "force: \"yes\""),
            ("startVm", "discardSaved: 1"),
            ("rebootVm", "force: null"),
        ] {
            let answer = client.send(&with_id(mutation, arguments, &id), json!({})).await;
            assert!(answer["errors"][0]["message"].is_string(), "{mutation}({arguments}) was accepted: {answer}");
        }
        // Of the right kind, and beyond all bounds.
        for (mutation, arguments) in [
            ("renameVm", format!("name: \"{long}\"")),
            ("resizeVm", "vcpus: 2147483647".to_owned()),
            ("resizeVm", "vcpus: -2147483648".to_owned()),
            ("resizeVm", "memoryMib: -2147483648".to_owned()),
            ("resizeVm", "vcpus: 2, memoryMib: 1".to_owned()),
            ("growVmDisk", format!("target: \"{long}\", bytes: 1073741824")),
            ("growVmDisk", "bytes: -9223372036854775808".to_owned()),
            ("attachVmDisk", format!("bytes: 1048576, pool: \"{long}\"")),
            ("detachVmDisk", format!("target: \"{long}\"")),
            ("insertVmMedium", format!("pool: \"default-pool\", volume: \"{long}.iso\"")),
            ("insertVmMedium", format!("pool: \"{long}\", volume: \"a.iso\"")),
            ("insertVmMedium", format!("pool: \"default-pool\", volume: \"a.iso\", target: \"{long}\"")),
            ("ejectVmMedium", format!("target: \"{long}\"")),
            ("attachVmInterface", format!("network: \"{long}\"")),
            ("attachVmInterface", format!("bridge: \"{long}\"")),
            ("detachVmInterface", format!("mac: \"{long}\"")),
            ("createVmSnapshot", format!("name: \"{long}\"")),
            ("createVmSnapshot", format!("name: \"a\", description: \"{long}\"")),
            ("revertVmSnapshot", format!("name: \"{long}\"")),
            ("deleteVmSnapshot", format!("name: \"{long}\"")),
        ] {
            let answer = client.send(&with_id(mutation, &arguments, &id), json!({})).await;
            let told = &answer["errors"][0]["extensions"];
            assert_eq!(told["code"], "INVALID_INPUT", "{mutation}({arguments:.80}): {answer}");
            assert!(told["field"].is_string(), "{mutation}({arguments:.80}): {answer}");
            assert!(answer.to_string().len() < 2_000, "{mutation}({arguments:.80}) is echoed");
        }
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1, "only the one that made it");
        trial.daemon.stop();
    }

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
