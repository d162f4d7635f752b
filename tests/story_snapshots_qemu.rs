//! Snapshots of a real guest on real QEMU: what it had in memory and on disk comes back, its file
//! systems are brought to rest and let go again, and nothing is left of any of it.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    daemon::{Client, wait},
    host, qemu_agent,
    stage::{READY, SOON, Stage},
};

const CREATE: &str = "mutation($id: UUID!, $name: String!, $memory: Boolean, $quiesce: SnapshotQuiesce! = IF_POSSIBLE) \
    { createVmSnapshot(id: $id, name: $name, memory: $memory, quiesce: $quiesce) { operation { id } } }";
const REVERT: &str =
    "mutation($id: UUID!, $name: String!) { revertVmSnapshot(id: $id, name: $name) { operation { id } } }";
const DELETE: &str = "mutation($id: UUID!, $name: String!, $children: Boolean! = false) { \
    deleteVmSnapshot(id: $id, name: $name, children: $children) { operation { id } } }";
const LIST: &str =
    "query($id: UUID!) { vmSnapshots(vmId: $id) { name parent state current quiesced quiescedReason } }";

async fn write(client: &Client, vm: &str, words: &str) {
    let line = format!("echo {words} >/root/mark; echo {words} | dd of=/dev/vda bs=512 conv=sync,fsync");
    client.output(vm, &line).await;
}

async fn memory_and_disk(client: &Client, vm: &str) -> (String, String) {
    let memory = client.output(vm, "cat /root/mark 2>/dev/null || echo none").await;
    let disk = client.output(vm, "head -n 1 /dev/vda").await;
    (memory, disk)
}

async fn list(client: &Client, vm: &str) -> Vec<Value> {
    client.ask(LIST, json!({ "id": vm })).await["vmSnapshots"].as_array().unwrap().clone()
}

async fn start(client: &Client, vm: &str) {
    let start = client.change("startVm", vm).await;
    client.succeeded(&start, SOON).await;
    client.agent_is(vm, "ONLINE", READY).await;
}

fn pair(memory: &str, disk: &str) -> (String, String) {
    (memory.to_owned(), disk.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_had_comes_back() {
    let stage = Stage::set("snapshots");
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;

    write(&client, &vm, "one").await;
    client.done(CREATE, json!({ "id": vm, "name": "with-memory" })).await;
    write(&client, &vm, "two").await;
    client.done(CREATE, json!({ "id": vm, "name": "unrested", "memory": false })).await;
    let required = json!({ "id": vm, "name": "x", "memory": false, "quiesce": "REQUIRED" });
    let refused = client.accepted(CREATE, required).await;
    let told = wait_for_end(&client, &refused).await;
    assert_eq!(told["error"]["code"], "QUIESCE_FAILED", "{told}");

    qemu_agent::start(&client, &vm, 0).await;
    client.done(CREATE, json!({ "id": vm, "name": "rested", "memory": false, "quiesce": "REQUIRED" })).await;
    assert_eq!(qemu_agent::told(&client, &vm).await, "freeze\nthaw");
    let told: Vec<_> = list(&client, &vm)
        .await
        .iter()
        .map(|snapshot| {
            let of = |field: &str| snapshot[field].to_string().replace('"', "");
            format!("{} {} {} {} {}", of("name"), of("parent"), of("state"), of("quiesced"), of("current"))
        })
        .collect();
    let mut sorted = told.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "rested unrested DISK true true",
            "unrested with-memory DISK false false",
            "with-memory null RUNNING null false"
        ]
    );
    assert_eq!(stage.pool.volumes().len(), 1, "snapshots are inside the disk: {:?}", stage.pool.volumes());

    // Back to a running guest, which goes on where it was.
    write(&client, &vm, "three").await;
    client.done(REVERT, json!({ "id": vm, "name": "with-memory" })).await;
    client.phase_is(&vm, "RUNNING", SOON).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    assert_eq!(memory_and_disk(&client, &vm).await, pair("one", "one"));

    // Back to disks that were at rest: off, and nobody starts it.
    client.done(REVERT, json!({ "id": vm, "name": "rested" })).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    assert_eq!(host::domain_state(&vm).as_deref(), Some("shut off"));
    client.done(CREATE, json!({ "id": vm, "name": "off" })).await;
    start(&client, &vm).await;
    assert_eq!(memory_and_disk(&client, &vm).await, pair("none", "two"));

    // A running VM goes back to one that was off.
    write(&client, &vm, "four").await;
    client.done(REVERT, json!({ "id": vm, "name": "off" })).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    start(&client, &vm).await;
    assert_eq!(memory_and_disk(&client, &vm).await, pair("none", "two"));

    client.done(DELETE, json!({ "id": vm, "name": "unrested", "children": true })).await;
    let names: Vec<_> = list(&client, &vm).await.iter().map(|snapshot| snapshot["name"].clone()).collect();
    assert_eq!(names, ["with-memory"]);
    stage.delete(&client, &vm).await;
}

async fn wait_for_end(client: &Client, operation: &str) -> Value {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let now = client.operation(operation).await;
        if !matches!(now["status"].as_str(), Some("PENDING" | "RUNNING")) {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "{now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An agent that does not thaw is asked again, until it does or a person has to.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_thaw_is_asked_again_until_a_person_has_to() {
    let stage = Stage::with("stuck", &[("INFINIBAY__RECONCILE__RETRY_MAX", "1s")]);
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;
    qemu_agent::start(&client, &vm, 0).await;
    let rested = |name: &str| json!({ "id": vm, "name": name, "memory": false, "quiesce": "REQUIRED" });
    let thaws = async || qemu_agent::told(&client, &vm).await.lines().filter(|line| *line == "thaw").count();

    // No answer: it is asked again when the time for one is over, and nothing is called done before.
    qemu_agent::thaws(&client, &vm, "never").await;
    let operation = client.accepted(CREATE, rested("late")).await;
    let deadline = std::time::Instant::now() + SOON;
    while thaws().await < 2 {
        assert!(std::time::Instant::now() < deadline, "it is not asked again");
    }
    assert_eq!(client.operation(&operation).await["status"], "RUNNING");
    qemu_agent::thaws(&client, &vm, "well").await;
    client.succeeded(&operation, SOON).await;
    assert!(qemu_agent::told(&client, &vm).await.ends_with("thaw"));

    // It says that it cannot, again and again: whoever asked is told what to do.
    qemu_agent::forget(&client, &vm).await;
    qemu_agent::thaws(&client, &vm, "badly").await;
    let operation = client.accepted(CREATE, rested("stuck")).await;
    let told = wait_for_end(&client, &operation).await;
    assert_eq!(told["error"]["code"], "THAW_FAILED", "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("virsh domfsthaw"), "{told}");
    assert!(thaws().await >= 30, "it was given up too soon");

    // Doing that helps.
    qemu_agent::thaws(&client, &vm, "well").await;
    host::virsh(&["domfsthaw", &vm]);
    client.done(CREATE, rested("again")).await;
    let again = list(&client, &vm).await.into_iter().find(|snapshot| snapshot["name"] == "again");
    assert_eq!(again.unwrap()["quiesced"], true);
    stage.delete(&client, &vm).await;
}

/// The daemon dies while the guest freezes: the next one lets it go, and takes the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_guest_is_frozen() {
    let stage = Stage::set("frozen");
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;
    qemu_agent::start(&client, &vm, 3).await;
    let operation = client
        .accepted(CREATE, json!({ "id": vm, "name": "rested", "memory": false, "quiesce": "REQUIRED" }))
        .await;
    let deadline = std::time::Instant::now() + SOON;
    while qemu_agent::told(&client, &vm).await != "freeze" {
        assert!(std::time::Instant::now() < deadline, "the guest is never frozen");
    }
    daemon.kill();
    // Whatever was under way at libvirt ends there.
    wait("libvirt to be free", SOON, || Some(host::domain_state(&vm)));
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    client.agent_is(&vm, "ONLINE", SOON).await;
    client.succeeded(&operation, SOON).await;
    let log = qemu_agent::told(&client, &vm).await;
    assert!(log.starts_with("freeze\nthaw") && log.ends_with("thaw"), "{log}");
    let found = list(&client, &vm).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["quiesced"], true);
    stage.delete(&client, &vm).await;
}
