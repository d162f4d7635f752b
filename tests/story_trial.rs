//! The whole path on libvirt's test driver, on both databases, with an agent of the kind found in
//! the field behind the socket: it answers without a type and loses the second of two lines that
//! wait together.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use infinibay::vm::VmId;
use serde_json::json;
use support::{
    guest::{FakeGuest, quirky},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(20);

on_both! {
    async fn a_vm_lives_on_the_test_driver(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s")]).await;
        let client = &trial.client;
        let id = VmId::generate();
        let mut request = trial.request("trial");
        request["id"] = json!(id.to_string());
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| quirky(s, r, Vec::new()));

        let (vm, operation) = client.create(request.clone()).await;
        assert_eq!(vm, id.to_string());
        client.succeeded(&operation, SOON).await;
        client.agent_is(&vm, "ONLINE", SOON).await;
        client.phase_is(&vm, "RUNNING", SOON).await;

        // A retry gives the same VM and the same operation.
        assert_eq!(client.create(request.clone()).await, (vm.clone(), operation));

        // Two commands at once, and both are answered.
        let (one, two) = tokio::join!(client.shell(&vm, "echo one"), client.shell(&vm, "echo two"));
        for (line, answer) in [("echo one", one), ("echo two", two)] {
            assert_eq!(answer["success"], true, "{answer}");
            assert!(answer["response"]["stdout"].as_str().unwrap().contains(line), "{answer}");
        }

        // Its readings are stored.
        let mut stored = 0;
        for _ in 0..100 {
            let data = client
                .ask("query($vm: UUID!) { getVmMetrics(vmId: $vm) { cpuUsage memoryUsed } }", json!({ "vm": vm }))
                .await;
            stored = data["getVmMetrics"].as_array().unwrap().len();
            if stored >= 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(stored >= 2, "only {stored} readings were stored");

        let stop = client.change("stopVm", &vm).await;
        client.succeeded(&stop, SOON).await;
        client.phase_is(&vm, "STOPPED", SOON).await;
        client.agent_is(&vm, "OFFLINE", SOON).await;
        let start = client.change("startVm", &vm).await;
        client.succeeded(&start, SOON).await;
        client.agent_is(&vm, "ONLINE", SOON).await;

        // Its socket goes with the domain, as QEMU's does.
        drop(guest);
        let delete = client.change("deleteVm", &vm).await;
        client.succeeded(&delete, SOON).await;
        let gone = client.ask("query($id: UUID!) { vm(id: $id) { id } }", json!({ "id": vm }));
        assert!(gone.await["vm"].is_null());
        let (again, _) = client.create(trial.request("trial")).await;
        assert_ne!(again, vm, "the name is free again, the id is not reused");
        trial.daemon.stop();
    }
}
