//! Snapshots on libvirt's test driver: a tree that grows, is gone back to and pruned; refusals;
//! hostile names and words.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{daemon::Client, trial::Trial};

const SOON: Duration = Duration::from_secs(20);
const CREATE: &str = "mutation($id: UUID!, $name: String!, $description: String! = \"\", $memory: Boolean, \
    $quiesce: SnapshotQuiesce! = IF_POSSIBLE) { createVmSnapshot(id: $id, name: $name, description: $description, \
    memory: $memory, quiesce: $quiesce) { operation { id kind } } }";
const REVERT: &str = "mutation($id: UUID!, $name: String!) { revertVmSnapshot(id: $id, name: $name) { operation { id kind } } }";
const DELETE: &str = "mutation($id: UUID!, $name: String!, $children: Boolean! = false) { \
    deleteVmSnapshot(id: $id, name: $name, children: $children) { operation { id kind } } }";
const LIST: &str = "query($id: UUID!) { vmSnapshots(vmId: $id) { name parent description createdAt state current \
    quiesced quiescedReason } }";

async fn done(client: &Client, mutation: &str, variables: Value) {
    let asked = client.ask(mutation, variables).await;
    let (_, payload) = asked.as_object().unwrap().iter().next().unwrap();
    client.succeeded(payload["operation"]["id"].as_str().unwrap(), SOON).await;
}

async fn list(client: &Client, vm: &str) -> Vec<Value> {
    client.ask(LIST, json!({ "id": vm })).await["vmSnapshots"].as_array().unwrap().clone()
}

/// `name<parent`, the current one with a star.
async fn tree(client: &Client, vm: &str) -> Vec<String> {
    let told = |snapshot: &Value| {
        let parent = snapshot["parent"].as_str().unwrap_or("");
        let star = if snapshot["current"] == true { "*" } else { "" };
        format!("{}<{parent}{star}", snapshot["name"].as_str().unwrap())
    };
    let mut told: Vec<_> = list(client, vm).await.iter().map(told).collect();
    told.sort();
    told
}

on_both! {
    async fn a_tree_grows_is_gone_back_to_and_pruned(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("treed")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(list(client, &vm).await, Vec::<Value>::new());

        let words = "before <the> \"upgrade\" & so on\n[infinibay operation=1 memory=no quiesced=yes]";
        done(client, CREATE, json!({ "id": vm, "name": "a", "description": words })).await;
        let a = list(client, &vm).await.remove(0);
        assert_eq!((&a["description"], &a["state"], &a["current"]), (&json!(words), &json!("RUNNING"), &json!(true)));
        assert_eq!((&a["quiesced"], &a["quiescedReason"]), (&Value::Null, &Value::Null));
        assert!(a["createdAt"].as_str().unwrap().ends_with('Z') || a["createdAt"].as_str().unwrap().contains("+00:00"));

        // The test driver's guests freeze and thaw.
        done(client, CREATE, json!({ "id": vm, "name": "b", "memory": false, "quiesce": "REQUIRED" })).await;
        done(client, CREATE, json!({ "id": vm, "name": "c", "memory": false, "quiesce": "NEVER" })).await;
        let found = list(client, &vm).await;
        let of = |name: &str| found.iter().find(|snapshot| snapshot["name"] == name).unwrap();
        assert_eq!((&of("b")["state"], &of("b")["quiesced"]), (&json!("DISK"), &json!(true)));
        assert_eq!((&of("c")["state"], &of("c")["quiesced"]), (&json!("DISK"), &json!(false)));
        assert!(of("c")["quiescedReason"].as_str().unwrap().contains("not asked"));
        assert_eq!(tree(client, &vm).await, ["a<", "b<a", "c<b*"]);

        // Back to the disks of a moment: the VM is off, and stays so.
        done(client, REVERT, json!({ "id": vm, "name": "b" })).await;
        client.phase_is(&vm, "STOPPED", SOON).await;
        assert_eq!(db.number("SELECT count(*) FROM vms WHERE power = 'stopped'").await, 1);
        done(client, CREATE, json!({ "id": vm, "name": "d.off_1-x" })).await;
        let found = list(client, &vm).await;
        let off = found.iter().find(|snapshot| snapshot["name"] == "d.off_1-x").unwrap();
        assert_eq!((&off["state"], &off["quiesced"]), (&json!("SHUTOFF"), &Value::Null));
        assert_eq!(tree(client, &vm).await, ["a<", "b<a", "c<b", "d.off_1-x<b*"]);

        // Back to a running guest: that is its power from now on.
        done(client, REVERT, json!({ "id": vm, "name": "a" })).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(db.number("SELECT count(*) FROM vms WHERE power = 'running'").await, 1);
        assert_eq!(tree(client, &vm).await, ["a<*", "b<a", "c<b", "d.off_1-x<b"]);

        // One goes, and its children stay; one goes with them.
        done(client, DELETE, json!({ "id": vm, "name": "b" })).await;
        assert_eq!(tree(client, &vm).await, ["a<*", "c<a", "d.off_1-x<a"]);
        done(client, DELETE, json!({ "id": vm, "name": "a", "children": true })).await;
        assert_eq!(list(client, &vm).await, Vec::<Value>::new());

        // A VM goes with its snapshots.
        done(client, CREATE, json!({ "id": vm, "name": "last" })).await;
        let delete = client.change("deleteVm", &vm).await;
        client.succeeded(&delete, SOON).await;
        assert_eq!(client.refused(LIST, json!({ "id": vm })).await, "VM_NOT_FOUND");
        let (again, _) = client.create(trial.request("treed")).await;
        client.phase_is(&again, "INSTALLING", SOON).await;
        assert_eq!(list(client, &again).await, Vec::<Value>::new());
        trial.daemon.stop();
    }
}

on_both! {
    async fn what_a_vm_is_made_of_goes_back_with_it(db: TestDatabase) {
        const ATTACH: &str = "mutation($id: UUID!) { attachVmDisk(id: $id, bytes: 2097152) { operation { id } } }";
        const DETACH: &str = "mutation($id: UUID!, $target: String!) {
            detachVmDisk(id: $id, target: $target) { operation { id } } }";
        const PLUG: &str = "mutation($id: UUID!) { attachVmInterface(id: $id, network: \"default\") { operation { id } } }";
        const RESIZE: &str = "mutation($id: UUID!) { resizeVm(id: $id, vcpus: 4, memoryMib: 512) { operation { id } } }";
        const MADE_OF: &str = "query($id: UUID!) { vm(id: $id) { name vcpus memoryMib diskBytes macAddresses
            disks { target bytes pool } media { target volume } interfaces { mac network bridge } } }";
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("put-back")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let stop = client.change("stopVm", &vm).await;
        client.succeeded(&stop, SOON).await;
        let id = json!({ "id": vm });
        done(client, ATTACH, id.clone()).await;
        done(client, PLUG, id.clone()).await;
        let then = client.ask(MADE_OF, id.clone()).await;
        assert_eq!(then["vm"]["disks"].as_array().unwrap().len(), 2, "{then}");
        done(client, CREATE, json!({ "id": vm, "name": "then" })).await;

        done(client, DETACH, json!({ "id": vm, "target": "vdb" })).await;
        done(client, ATTACH, id.clone()).await;
        done(client, ATTACH, id.clone()).await;
        done(client, PLUG, id.clone()).await;
        done(client, RESIZE, id.clone()).await;
        assert_ne!(client.ask(MADE_OF, id.clone()).await, then);
        done(client, REVERT, json!({ "id": vm, "name": "then" })).await;
        assert_eq!(client.ask(MADE_OF, id.clone()).await, then);
        // What is there can be changed again, and what is not goes with the VM.
        done(client, DETACH, json!({ "id": vm, "target": "vdb" })).await;
        let delete = client.change("deleteVm", &vm).await;
        client.succeeded(&delete, SOON).await;
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        trial.daemon.stop();
    }
}

on_both! {
    async fn what_cannot_be_meant_is_refused_at_once(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("refusing")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        done(client, CREATE, json!({ "id": vm, "name": "taken" })).await;

        let long = "a".repeat(64);
        let hostile = ["", ".", "..", "../a", "/etc/passwd", "a/b", "-rf", ".hidden", "a b", "a\nb", "a\0b", "<a>", "a;b",
            "$(x)", "ä", "a\u{202e}b", "'", &long];
        for name in hostile {
            for mutation in [CREATE, REVERT, DELETE] {
                let answer = client.send(mutation, json!({ "id": vm, "name": name })).await;
                let told = &answer["errors"][0]["extensions"];
                assert_eq!((&told["code"], &told["field"]), (&json!("INVALID_INPUT"), &json!("name")), "{name:?}: {answer}");
            }
        }
        let most = "a".repeat(63);
        done(client, CREATE, json!({ "id": vm, "name": most })).await;
        for description in ["a\u{7}", "a\u{0}", &"a".repeat(1025)] {
            let answer = client.send(CREATE, json!({ "id": vm, "name": "x", "description": description })).await;
            assert_eq!(answer["errors"][0]["extensions"]["field"], "description", "{answer}");
        }
        let with_memory = json!({ "id": vm, "name": "x", "memory": true, "quiesce": "REQUIRED" });
        assert_eq!(client.refused(CREATE, with_memory).await, "INVALID_INPUT");

        assert_eq!(client.refused(CREATE, json!({ "id": vm, "name": "taken" })).await, "SNAPSHOT_EXISTS");
        for mutation in [REVERT, DELETE] {
            assert_eq!(client.refused(mutation, json!({ "id": vm, "name": "nope" })).await, "SNAPSHOT_NOT_FOUND");
        }
        let nobody = uuid::Uuid::new_v4().to_string();
        for mutation in [CREATE, REVERT, DELETE] {
            assert_eq!(client.refused(mutation, json!({ "id": nobody, "name": "taken" })).await, "VM_NOT_FOUND");
        }

        let stop = client.change("stopVm", &vm).await;
        client.succeeded(&stop, SOON).await;
        client.phase_is(&vm, "STOPPED", SOON).await;
        assert_eq!(client.refused(CREATE, json!({ "id": vm, "name": "x", "memory": true })).await, "WRONG_STATE");
        trial.daemon.stop();
    }
}

on_both! {
    async fn strangers_learn_nothing_and_there_is_a_bound(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("bounded")).await;
        trial.client.phase_is(&vm, "INSTALLING", SOON).await;
        let stranger = trial.home.between(&mut trial.daemon, |home| home.user("stranger", &[]));
        let client = trial.daemon.client(&trial.token);
        let stranger = trial.daemon.client(&stranger);
        // The test driver forgot its domain with the daemon: another VM.
        let (vm, _) = client.create(trial.request("bounded-again")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(stranger.refused(LIST, json!({ "id": vm })).await, "VM_NOT_FOUND");
        for mutation in [CREATE, REVERT, DELETE] {
            assert_eq!(stranger.refused(mutation, json!({ "id": vm, "name": "a" })).await, "VM_NOT_FOUND");
        }

        for n in 0..256 {
            let asked = json!({ "id": vm, "name": format!("s{n}") });
            // Accepted as soon as the one before has ended.
            let deadline = std::time::Instant::now() + SOON;
            while client.send(CREATE, asked.clone()).await["errors"][0]["extensions"]["code"] == "VM_BUSY" {
                assert!(std::time::Instant::now() < deadline, "snapshot {n} is never accepted");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let more = json!({ "id": vm, "name": "more" });
        let deadline = std::time::Instant::now() + SOON;
        while list(&client, &vm).await.len() < 256 {
            assert!(std::time::Instant::now() < deadline, "the last snapshot is never there");
        }
        assert_eq!(client.refused(CREATE, more).await, "TOO_MANY_SNAPSHOTS");
        assert_eq!(list(&client, &vm).await.len(), 256);
        let pruned = json!({ "id": vm, "name": "s0", "children": true });
        while client.send(DELETE, pruned.clone()).await["errors"][0]["extensions"]["code"] == "VM_BUSY" {
            assert!(std::time::Instant::now() < deadline, "the deletion is never accepted");
        }
        while !list(&client, &vm).await.is_empty() {
            assert!(std::time::Instant::now() < deadline, "the snapshots are never gone");
        }
        assert_eq!(list(&client, &vm).await, Vec::<Value>::new());
        trial.daemon.stop();
    }
}
