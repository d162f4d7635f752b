//! Changes beyond power: asked for, followed by an operation, refused where the VM's state or
//! another change forbids them.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::json;
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
