//! Power beyond on and off, names and policies, on libvirt's test driver: halting, saving, rebooting,
//! renaming, and what is refused.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{daemon::Client, trial::Trial};

const SOON: Duration = Duration::from_secs(20);
const START: &str = "mutation($id: UUID!, $discard: Boolean!) {
    startVm(id: $id, discardSaved: $discard) { operation { id kind } } }";
const REBOOT: &str =
    "mutation($id: UUID!, $force: Boolean!) { rebootVm(id: $id, force: $force) { operation { id kind } } }";
const RENAME: &str =
    "mutation($id: UUID!, $name: String!) { renameVm(id: $id, name: $name) { operation { id kind } } }";
const POLICY: &str = "mutation($id: UUID!, $off: OnPowerOff!, $crash: OnCrash!) {
    setVmPolicy(id: $id, onPowerOff: $off, onCrash: $crash) { operation { id kind } } }";
const KEPT: &str = "query($id: UUID!) {
    vm(id: $id) { name phase power autostart policy { onPowerOff onCrash } } }";

/// Asks, and waits until it is done; the operation's kind.
async fn done(client: &Client, mutation: &str, variables: Value) -> String {
    let asked = client.ask(mutation, variables).await;
    let operation = &asked.as_object().unwrap().values().next().unwrap()["operation"];
    client.succeeded(operation["id"].as_str().unwrap(), SOON).await;
    operation["kind"].as_str().unwrap().to_owned()
}

async fn asked(client: &Client, mutation: &str, vm: &str) {
    let operation = client.change(mutation, vm).await;
    client.succeeded(&operation, SOON).await;
}

fn plain(mutation: &str) -> String {
    format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}")
}

on_both! {
    async fn a_vm_is_halted_saved_rebooted_and_started_from_cold(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, create) = client.create(trial.request("power")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;

        for _ in 0..2 {
            asked(client, "suspendVm", &vm).await;
            client.phase_is(&vm, "PAUSED", SOON).await;
        }
        let power = client.ask(KEPT, json!({ "id": vm })).await["vm"]["power"].take();
        assert_eq!(power, "PAUSED");
        assert_eq!(client.refused(REBOOT, json!({ "id": vm, "force": false })).await, "WRONG_STATE");
        asked(client, "resumeVm", &vm).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;

        // Nothing can prove it here: it is done once libvirt has taken it.
        assert_eq!(done(client, REBOOT, json!({ "id": vm, "force": false })).await, "REBOOT");
        assert_eq!(done(client, REBOOT, json!({ "id": vm, "force": true })).await, "REBOOT");

        asked(client, "saveVm", &vm).await;
        client.phase_is(&vm, "SAVED", SOON).await;
        for mutation in ["suspendVm", "resumeVm", "saveVm", "resetVm", "rebootVm"] {
            assert_eq!(client.refused(&plain(mutation), json!({ "id": vm })).await, "WRONG_STATE", "{mutation}");
        }
        let renamed = client.refused(RENAME, json!({ "id": vm, "name": "other" }));
        assert_eq!(renamed.await, "WRONG_STATE", "what is saved belongs to its name");
        // None of that ended what was begun before. Off is what it is, and what was saved is kept; but a
        // stop ends the making.
        assert_eq!(client.operation(&create).await["status"], "RUNNING");
        asked(client, "stopVm", &vm).await;
        assert_eq!(client.operation(&create).await["status"], "SUPERSEDED");
        client.phase_is(&vm, "SAVED", SOON).await;
        assert_eq!(done(client, START, json!({ "id": vm, "discard": false })).await, "START");
        client.phase_is(&vm, "INSTALLING", SOON).await;
        asked(client, "saveVm", &vm).await;
        client.phase_is(&vm, "SAVED", SOON).await;
        assert_eq!(done(client, START, json!({ "id": vm, "discard": true })).await, "START");
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let kept = client.ask(KEPT, json!({ "id": vm })).await;
        assert_eq!(kept["vm"]["power"], "RUNNING", "however it was started");

        asked(client, "stopVm", &vm).await;
        client.phase_is(&vm, "STOPPED", SOON).await;
        for mutation in ["suspendVm", "resumeVm", "saveVm", "rebootVm"] {
            assert_eq!(client.refused(&plain(mutation), json!({ "id": vm })).await, "WRONG_STATE", "{mutation}");
        }

        // A deletion takes along what is saved.
        asked(client, "startVm", &vm).await;
        asked(client, "saveVm", &vm).await;
        asked(client, "deleteVm", &vm).await;
        let powers = "SELECT count(*) FROM audit_log WHERE action = 'vm.power'";
        assert_eq!(db.number(powers).await, 11);
        trial.daemon.stop();
    }

    async fn names_and_policies_are_changed_kept_and_guarded(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let stranger = trial.home.between(&mut trial.daemon, |home| home.user("stranger", &[]));
        let stranger = trial.daemon.client(&stranger);
        let client = trial.daemon.client(&trial.token);
        let (vm, _) = client.create(trial.request("named")).await;
        let (other, _) = client.create(trial.request("taken")).await;
        for id in [&vm, &other] {
            client.phase_is(id, "INSTALLING", SOON).await;
        }
        let rename = |name: &str| json!({ "id": vm, "name": name });
        assert_eq!(client.refused(RENAME, rename("free")).await, "WRONG_STATE", "it runs");
        asked(&client, "stopVm", &vm).await;
        client.phase_is(&vm, "STOPPED", SOON).await;

        // `test` is the domain that the driver comes with.
        for taken in ["taken", "test"] {
            assert_eq!(client.refused(RENAME, rename(taken)).await, "NAME_TAKEN", "{taken}");
        }
        for bad in ["", "../etc/passwd", "a b", "<name>", "-x", "a\nb", &"x".repeat(64)] {
            let answer = client.send(RENAME, rename(bad)).await;
            let extensions = &answer["errors"][0]["extensions"];
            assert_eq!((&extensions["code"], &extensions["field"]), (&json!("INVALID_INPUT"), &json!("name")), "{bad:?}");
        }
        assert_eq!(stranger.refused(RENAME, rename("mine")).await, "VM_NOT_FOUND");
        for mutation in ["suspendVm", "resumeVm", "saveVm", "rebootVm"] {
            assert_eq!(stranger.refused(&plain(mutation), json!({ "id": vm })).await, "VM_NOT_FOUND", "{mutation}");
        }

        for _ in 0..2 {
            assert_eq!(done(&client, RENAME, rename("renamed")).await, "RENAME");
        }
        let drift = client.vm(&vm).await["conditions"].take();
        let drift = drift.as_array().unwrap().iter().find(|it| it["type"] == "DRIFTED_FROM_INTENT").cloned();
        assert_eq!(drift.unwrap()["status"], "FALSE");
        // The old name is free, the new one is not.
        let (third, _) = client.create(trial.request("named")).await;
        assert_ne!(third, vm);
        let again = client.send("mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }",
            json!({ "input": trial.request("renamed") })).await;
        assert_eq!(again["errors"][0]["extensions"]["code"], "NAME_TAKEN");

        let kept = client.ask(KEPT, json!({ "id": vm })).await;
        assert_eq!(kept["vm"]["policy"], json!({ "onPowerOff": "FOLLOW", "onCrash": "STAY" }));
        assert_eq!(kept["vm"]["autostart"], false);
        let policy = json!({ "id": vm, "off": "CORRECT", "crash": "RESTART" });
        assert_eq!(stranger.refused(POLICY, policy.clone()).await, "VM_NOT_FOUND");
        assert_eq!(done(&client, POLICY, policy).await, "SET_POLICY");
        let autostart = "mutation($id: UUID!) { setVmAutostart(id: $id, autostart: true) { operation { id kind } } }";
        assert_eq!(done(&client, autostart, json!({ "id": vm })).await, "SET_AUTOSTART");

        // What was set survives the daemon. (The test driver's domains live in it and do not.)
        trial.home.between(&mut trial.daemon, |_| ());
        let client = trial.daemon.client(&trial.token);
        let kept = client.ask(KEPT, json!({ "id": vm })).await["vm"].take();
        assert_eq!(kept["name"], "renamed");
        assert_eq!(kept["policy"], json!({ "onPowerOff": "CORRECT", "onCrash": "RESTART" }));
        assert_eq!(kept["autostart"], true);
        trial.daemon.stop();
    }
}
