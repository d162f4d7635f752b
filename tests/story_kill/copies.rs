//! A copy of a VM: made whole by whoever comes after, once, and the VM it is made of is free again.

use serde_json::{Value, json};

use super::death::{ask_to_death, points_of};
use crate::support::{
    daemon::{Client, operation_in},
    host::{self, DomainGuard},
    stage::{READY, SOON, Stage},
};

pub const TOLD: &[&str] = &["clone"];

const CLONE: &str = "mutation($id: UUID!, $input: CloneVmInput!) \
    { cloneVm(id: $id, input: $input) { operation { id } vm { id } } }";

pub async fn story() {
    let stage = Stage::set("copied");
    let daemon = stage.home.start();
    let (client, source) = stage.create(&daemon).await;
    let off = client.change("stopVm", &source).await;
    client.succeeded(&off, READY).await;
    client.phase_is(&source, "STOPPED", SOON).await;
    let original = stage.pool.volumes();
    daemon.stop();

    for point in points_of("clone") {
        let copy = uuid::Uuid::new_v4().to_string();
        let name = format!("{}-copy", stage.name);
        let _guard = DomainGuard(name.clone());
        let request = json!({ "id": source, "input": { "id": copy, "name": name } });
        // What may be asked of it depends on what it has seen.
        let ready = async |client: &Client| client.phase_is(&source, "STOPPED", SOON).await;
        ask_to_death((&stage.home, stage.token.as_str()), point, ready, CLONE, &request).await;

        let daemon = stage.home.start();
        let client = daemon.client(&stage.token);
        client.phase_is(&source, "STOPPED", SOON).await;
        // Whoever was not answered asks again, and gets the copy that he asked for.
        let again = client.ask(CLONE, request).await;
        assert_eq!(again["cloneVm"]["vm"]["id"], copy, "{point}");
        client.succeeded(&operation_in(&again), READY).await;
        client.phase_is(&copy, "STOPPED", SOON).await;
        assert_eq!(stage.pool.volumes().len(), original.len() + 1, "{point}: {:?}", stage.pool.volumes());
        loan_is_over(&client, &source, point).await;

        let gone = client.change("deleteVm", &copy).await;
        client.succeeded(&gone, SOON).await;
        assert_eq!(stage.pool.volumes(), original, "{point}");
        assert!(!host::domain_exists(&copy), "{point}");
        daemon.stop();
    }

    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    client.phase_is(&source, "STOPPED", SOON).await;
    stage.delete(&client, &source).await;
    daemon.stop();
}

/// The VM can be asked for something else: nothing of it is under way.
async fn loan_is_over(client: &Client, source: &str, point: &str) {
    const AUTOSTART: &str =
        "mutation($id: UUID!) { setVmAutostart(id: $id, autostart: false) { operation { id } } }";
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let answer: Value = client.send(AUTOSTART, json!({ "id": source })).await;
        if answer.get("errors").is_none() {
            return client.succeeded(&operation_in(&answer["data"]), SOON).await;
        }
        let busy = answer["errors"][0]["extensions"]["code"] == "VM_BUSY";
        assert!(busy && std::time::Instant::now() < deadline, "{point}: {answer}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
