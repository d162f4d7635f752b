//! Sizes and devices on libvirt's test driver: changed while the VM runs and while it does not, told
//! as they are, and refused where they cannot be.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    daemon::Client,
    trial::{Blank, Trial, image},
};

const SOON: Duration = Duration::from_secs(30);
const RESIZE: &str = "mutation($id: UUID!, $vcpus: Int, $memory: Int) {
    resizeVm(id: $id, vcpus: $vcpus, memoryMib: $memory) { operation { id } } }";
const GROW: &str = "mutation($id: UUID!, $target: String! = \"vda\", $bytes: BigInt!) {
    growVmDisk(id: $id, target: $target, bytes: $bytes) { operation { id } } }";
const ATTACH: &str = "mutation($id: UUID!, $pool: String, $bytes: BigInt!) {
    attachVmDisk(id: $id, pool: $pool, bytes: $bytes) { operation { id } } }";
const DETACH: &str = "mutation($id: UUID!, $target: String!, $delete: Boolean! = false) {
    detachVmDisk(id: $id, target: $target, deleteVolume: $delete) { operation { id } } }";
const INSERT: &str = "mutation($id: UUID!, $pool: String!, $volume: String!, $target: String) {
    insertVmMedium(id: $id, pool: $pool, volume: $volume, target: $target) { operation { id } } }";
const EJECT: &str =
    "mutation($id: UUID!, $target: String!) { ejectVmMedium(id: $id, target: $target) { operation { id } } }";
const PLUG: &str = "mutation($id: UUID!, $network: String, $bridge: String) {
    attachVmInterface(id: $id, network: $network, bridge: $bridge) { operation { id } } }";
const UNPLUG: &str =
    "mutation($id: UUID!, $mac: String!) { detachVmInterface(id: $id, mac: $mac) { operation { id } } }";

/// Asks for a change and waits for its end: effect, or the error's code.
async fn change(client: &Client, query: &str, variables: Value) -> Result<String, String> {
    let asked = client.ask(query, variables).await;
    let id = asked.as_object().unwrap().values().next().unwrap()["operation"]["id"].clone();
    let deadline = Instant::now() + SOON;
    loop {
        let look = "query($id: UUID!) { operation(id: $id) { status effect error { code message } } }";
        let now = client.ask(look, json!({ "id": id })).await["operation"].take();
        match now["status"].as_str() {
            Some("SUCCEEDED") => return Ok(now["effect"].as_str().unwrap().to_owned()),
            Some("FAILED") => return Err(now["error"]["code"].as_str().unwrap().to_owned()),
            _ => assert!(Instant::now() < deadline, "{query}: still at {now}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn made_of(client: &Client, vm: &str) -> Value {
    const LOOK: &str = "query($id: UUID!) { vm(id: $id) { vcpus memoryMib diskBytes macAddresses
        disks { target bytes pool } media { target volume } interfaces { mac network bridge } } }";
    client.ask(LOOK, json!({ "id": vm })).await["vm"].take()
}

/// What the VM's condition says of changes that wait, if it has one.
async fn waits(client: &Client, vm: &str) -> Option<String> {
    let vm = client.vm(vm).await;
    let mut conditions = vm["conditions"].as_array().unwrap().iter();
    let found = conditions.find(|condition| condition["type"] == "RESTART_REQUIRED")?;
    assert_eq!(found["status"], "TRUE");
    Some(found["message"].as_str().unwrap().to_owned())
}

/// Waits until what is told of changes that wait is as it should be.
async fn told(client: &Client, vm: &str, what: &str, holds: impl Fn(Option<&str>) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let words = waits(client, vm).await;
        if holds(words.as_deref()) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {words:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn power(client: &Client, vm: &str, mutation: &str) {
    let operation = client.change(mutation, vm).await;
    client.succeeded(&operation, SOON).await;
}

on_both! {
    async fn a_size_is_changed_and_told_as_it_is(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("sized")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(waits(client, &vm).await, None);

        // Room to grow was not left when it started.
        assert_eq!(change(client, RESIZE, json!({ "id": vm, "vcpus": 2 })).await.unwrap(), "NEXT_BOOT");
        told(client, &vm, "processors wait", |words| {
            words.is_some_and(|words| words.contains("2 virtual processors (now 1)") && !words.contains("memory"))
        })
        .await;
        let both = json!({ "id": vm, "vcpus": 2, "memory": 256 });
        for _ in 0..2 {
            assert_eq!(change(client, RESIZE, both.clone()).await.unwrap(), "NEXT_BOOT");
        }
        told(client, &vm, "both wait", |words| {
            words.is_some_and(|words| words.contains("2 virtual") && words.contains("256 MiB of memory (now 128)"))
        })
        .await;
        let now = made_of(client, &vm).await;
        assert_eq!((&now["vcpus"], &now["memoryMib"]), (&json!(2), &json!("256")));

        power(client, &vm, "stopVm").await;
        told(client, &vm, "nothing waits in a VM that is off", |words| words.is_none()).await;
        power(client, &vm, "startVm").await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        told(client, &vm, "the start brought it", |words| words.is_none()).await;
        assert_eq!(change(client, RESIZE, both).await.unwrap(), "LIVE", "it is as asked");
        // Back to less memory, which the running domain can give away.
        assert_eq!(change(client, RESIZE, json!({ "id": vm, "memory": 128 })).await.unwrap(), "LIVE");
        assert_eq!(waits(client, &vm).await, None);

        power(client, &vm, "stopVm").await;
        assert_eq!(change(client, RESIZE, json!({ "id": vm, "vcpus": 4, "memory": 512 })).await.unwrap(), "LIVE");
        let now = made_of(client, &vm).await;
        assert_eq!((&now["vcpus"], &now["memoryMib"]), (&json!(4), &json!("512")));
        trial.daemon.stop();
    }

    async fn devices_come_and_go(db: TestDatabase) {
        const VOLUMES: &str = "SELECT count(*) FROM resources WHERE kind = 'volume'";
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("plugged")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        power(client, &vm, "stopVm").await;
        client.phase_is(&vm, "STOPPED", SOON).await;

        let disk = json!({ "id": vm, "bytes": "1500000" });
        assert_eq!(change(client, ATTACH, disk.clone()).await.unwrap(), "LIVE");
        assert_eq!(change(client, ATTACH, disk).await.unwrap(), "LIVE");
        let root = json!({ "target": "vda", "bytes": "67108864", "pool": "default-pool" });
        let plugged = |target: &str| json!({ "target": target, "bytes": "2097152", "pool": "default-pool" });
        assert_eq!(made_of(client, &vm).await["disks"], json!([root, plugged("vdb"), plugged("vdc")]));
        assert_eq!(db.number(VOLUMES).await, 3);
        // Refused before anything is touched: it would shrink, or stay as it is.
        for bytes in ["1048576", "2097152"] {
            let grow = json!({ "id": vm, "target": "vdb", "bytes": bytes });
            assert_eq!(client.refused(GROW, grow).await, "INVALID_INPUT");
        }
        // The test driver has no volumes that grow.
        let grow = json!({ "id": vm, "target": "vdb", "bytes": "4194304" });
        assert_eq!(change(client, GROW, grow).await.unwrap_err(), "NOT_SUPPORTED");
        assert_eq!(made_of(client, &vm).await["disks"][1], plugged("vdb"));

        let detach = |target: &str, delete: bool| json!({ "id": vm, "target": target, "delete": delete });
        assert_eq!(change(client, DETACH, detach("vdb", true)).await.unwrap(), "LIVE");
        assert_eq!(db.number(VOLUMES).await, 2);
        assert_eq!(client.refused(DETACH, detach("vdb", true)).await, "DEVICE_NOT_FOUND");
        assert_eq!(change(client, DETACH, detach("vdc", false)).await.unwrap(), "LIVE");
        assert_eq!(db.number(VOLUMES).await, 2, "a volume that is kept is not forgotten");
        assert_eq!(made_of(client, &vm).await["disks"], json!([root]));

        let network = json!({ "id": vm, "network": "default" });
        for _ in 0..2 {
            assert_eq!(change(client, PLUG, network.clone()).await.unwrap(), "LIVE");
        }
        let now = made_of(client, &vm).await;
        let macs: Vec<_> = now["interfaces"].as_array().unwrap().iter().map(|card| card["mac"].clone()).collect();
        assert_eq!((macs.len(), &now["macAddresses"]), (2, &json!(macs)));
        assert_ne!(macs[0], macs[1]);
        assert_eq!(now["interfaces"][0], json!({ "mac": macs[0], "network": "default", "bridge": null }));
        let unplug = json!({ "id": vm, "mac": macs[0].as_str().unwrap().to_uppercase() });
        assert_eq!(change(client, UNPLUG, unplug.clone()).await.unwrap(), "LIVE");
        assert_eq!(client.refused(UNPLUG, unplug).await, "DEVICE_NOT_FOUND");

        // Into the running domain the test driver plugs nothing, and lets nothing go.
        power(client, &vm, "startVm").await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        assert_eq!(change(client, PLUG, network).await.unwrap(), "NEXT_BOOT");
        told(client, &vm, "a card waits", |words| words.is_some_and(|words| words.contains("network card"))).await;
        let unplug = json!({ "id": vm, "mac": macs[1] });
        assert_eq!(change(client, UNPLUG, unplug).await.unwrap_err(), "NOT_SUPPORTED");
        assert_eq!(made_of(client, &vm).await["interfaces"].as_array().unwrap().len(), 2);

        power(client, &vm, "deleteVm").await;
        assert_eq!(db.number(VOLUMES).await, 0);
        trial.daemon.stop();
    }

    async fn nonsense_and_strangers_are_refused(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let client = trial.client.clone();
        let (vm, _) = client.create(trial.request("guarded")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let nasty = "a'/><disk type='file'><source file='/etc/shadow'/>";
        for (query, variables, code) in [
            (RESIZE, json!({}), "INVALID_INPUT"),
            (RESIZE, json!({ "vcpus": 0 }), "INVALID_INPUT"),
            (RESIZE, json!({ "vcpus": -1 }), "INVALID_INPUT"),
            (RESIZE, json!({ "vcpus": 256 }), "INVALID_INPUT"),
            (RESIZE, json!({ "memory": 0 }), "INVALID_INPUT"),
            (RESIZE, json!({ "memory": -5 }), "INVALID_INPUT"),
            (RESIZE, json!({ "memory": 2_147_483_647 }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "1" }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "0" }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "-1" }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "9223372036854775807" }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "99999999", "target": nasty }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "99999999", "target": "sda" }), "INVALID_INPUT"),
            (GROW, json!({ "bytes": "99999999", "target": "vdz" }), "DEVICE_NOT_FOUND"),
            (ATTACH, json!({ "bytes": "0" }), "INVALID_INPUT"),
            (ATTACH, json!({ "bytes": "-9223372036854775808" }), "INVALID_INPUT"),
            (ATTACH, json!({ "bytes": "9223372036854775807" }), "INVALID_INPUT"),
            (ATTACH, json!({ "bytes": "1048576", "pool": "../etc" }), "INVALID_INPUT"),
            (ATTACH, json!({ "bytes": "1048576", "pool": nasty }), "INVALID_INPUT"),
            (ATTACH, json!({ "bytes": "1048576", "pool": "no-such" }), "POOL_NOT_FOUND"),
            (DETACH, json!({ "target": "vda" }), "INVALID_INPUT"),
            (DETACH, json!({ "target": "sda" }), "INVALID_INPUT"),
            (DETACH, json!({ "target": nasty }), "INVALID_INPUT"),
            (DETACH, json!({ "target": "" }), "INVALID_INPUT"),
            (DETACH, json!({ "target": "vdb" }), "DEVICE_NOT_FOUND"),
            (INSERT, json!({ "pool": "default-pool", "volume": "../../etc/shadow.iso" }), "INVALID_INPUT"),
            (INSERT, json!({ "pool": "default-pool", "volume": nasty }), "INVALID_INPUT"),
            (INSERT, json!({ "pool": "default-pool", "volume": format!("infinibay-{vm}.qcow2") }), "INVALID_INPUT"),
            (INSERT, json!({ "pool": nasty, "volume": "a.iso" }), "INVALID_INPUT"),
            (INSERT, json!({ "pool": "no-such", "volume": "a.iso" }), "POOL_NOT_FOUND"),
            (INSERT, json!({ "pool": "default-pool", "volume": "a.iso" }), "MEDIUM_NOT_FOUND"),
            (INSERT, json!({ "pool": "default-pool", "volume": "a.iso", "target": "vda" }), "INVALID_INPUT"),
            (EJECT, json!({ "target": nasty }), "INVALID_INPUT"),
            (EJECT, json!({ "target": "vda" }), "INVALID_INPUT"),
            (EJECT, json!({ "target": "sda" }), "DEVICE_NOT_FOUND"),
            (PLUG, json!({}), "INVALID_INPUT"),
            (PLUG, json!({ "network": "default", "bridge": "br0" }), "INVALID_INPUT"),
            (PLUG, json!({ "network": nasty }), "INVALID_INPUT"),
            (PLUG, json!({ "network": "no-such" }), "NETWORK_NOT_FOUND"),
            (PLUG, json!({ "bridge": nasty }), "INVALID_INPUT"),
            (PLUG, json!({ "bridge": "../../x" }), "INVALID_INPUT"),
            (PLUG, json!({ "bridge": ".." }), "INVALID_INPUT"),
            (PLUG, json!({ "bridge": "no-such-br" }), "INVALID_INPUT"),
            // An interface, but no bridge.
            (PLUG, json!({ "bridge": "lo" }), "INVALID_INPUT"),
            (UNPLUG, json!({ "mac": nasty }), "INVALID_INPUT"),
            (UNPLUG, json!({ "mac": "52:54:00:00:00:01" }), "DEVICE_NOT_FOUND"),
        ] {
            let mut all = variables.clone();
            all["id"] = json!(vm);
            let answer = client.send(query, all).await;
            let told = &answer["errors"][0]["extensions"];
            assert_eq!(told["code"], code, "{query} with {variables}: {answer}");
            if code == "INVALID_INPUT" {
                assert!(told["field"].is_string(), "{query} with {variables}: {answer}");
            }
        }

        // Somebody else's VM is not there; an own one is nobody's reason to choose a bridge.
        let bob = trial.home.between(&mut trial.daemon, |home| home.user("bob", &[]));
        let (bob, client) = (trial.daemon.client(&bob), trial.daemon.client(&trial.token));
        for (query, variables) in [
            (RESIZE, json!({ "vcpus": 2 })),
            (GROW, json!({ "bytes": "99999999" })),
            (ATTACH, json!({ "bytes": "1048576" })),
            (DETACH, json!({ "target": "vdb" })),
            (INSERT, json!({ "pool": "default-pool", "volume": "a.iso" })),
            (EJECT, json!({ "target": "sda" })),
            (PLUG, json!({ "network": "default" })),
            (UNPLUG, json!({ "mac": "52:54:00:00:00:01" })),
        ] {
            let mut all = variables;
            all["id"] = json!(vm);
            assert_eq!(bob.refused(query, all).await, "VM_NOT_FOUND", "{query}");
        }
        let (own, _) = bob.create(trial.request("bobs")).await;
        assert_eq!(bob.refused(PLUG, json!({ "id": own, "bridge": "br0" })).await, "FORBIDDEN");

        assert_eq!(db.number("SELECT count(*) FROM operations WHERE change IS NOT NULL").await, 0);
        let now = made_of(&client, &vm).await;
        assert_eq!(now["disks"].as_array().unwrap().len(), 1);
        assert_eq!((&now["media"], &now["interfaces"]), (&json!([]), &json!([])));
        trial.daemon.stop();
    }

    async fn a_vm_that_is_not_made_yet_is_not_changed(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        // Its making stops before its domain: nobody put the agent there that is to be installed.
        image(&trial.library.path().join("cloudy"), &Blank { provisioning: "cloud-init", ..Blank::default() });
        let mut request = trial.request("early");
        request["image"] = json!("cloudy");
        let (vm, _) = client.create(request).await;
        let held_up = |it: &Value| it["message"].as_str().unwrap().contains("WriteSeed");
        client.condition(&vm, "RECONCILED", held_up).await;
        let made = "SELECT count(*) FROM resources";
        let before = (made_of(client, &vm).await, db.number(made).await);
        for (query, more) in [
            (RESIZE, json!({ "vcpus": 2 })),
            (GROW, json!({ "bytes": "134217728" })),
            (ATTACH, json!({ "bytes": "1048576" })),
            (PLUG, json!({ "network": "default" })),
        ] {
            let mut all = more;
            all["id"] = json!(vm);
            let answer = client.send(query, all).await;
            let error = &answer["errors"][0];
            assert_eq!(error["extensions"]["code"], "WRONG_STATE", "{query}: {answer}");
            assert!(error["message"].as_str().unwrap().contains("wait for its operation"), "{answer}");
        }
        assert_eq!(db.number("SELECT count(*) FROM operations").await, 1, "only the one that makes it");
        assert_eq!((made_of(client, &vm).await, db.number(made).await), before);
        power(client, &vm, "deleteVm").await;
        assert_eq!(db.number(made).await, 0);
        trial.daemon.stop();
    }

    async fn one_change_waits_for_another(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let client = &trial.client;
        let (vm, _) = client.create(trial.request("crowded")).await;
        client.phase_is(&vm, "INSTALLING", SOON).await;
        // Both may be in time one after the other; never is a change lost or doubled.
        let one = json!({ "id": vm, "bytes": "1048576" });
        let (first, second) = tokio::join!(client.send(ATTACH, one.clone()), client.send(ATTACH, one));
        let accepted = [&first, &second].iter().filter(|answer| answer.get("errors").is_none()).count();
        for answer in [&first, &second] {
            match answer["errors"][0]["extensions"]["code"].as_str() {
                None => {
                    let id = answer["data"]["attachVmDisk"]["operation"]["id"].as_str().unwrap();
                    client.succeeded(id, SOON).await;
                }
                Some(code) => assert_eq!(code, "VM_BUSY"),
            }
        }
        assert!(accepted >= 1);
        assert_eq!(made_of(client, &vm).await["disks"].as_array().unwrap().len(), 1 + accepted);
        power(client, &vm, "deleteVm").await;
        assert_eq!(db.number("SELECT count(*) FROM resources").await, 0);
        for (query, more) in [(RESIZE, json!({ "vcpus": 2 })), (ATTACH, json!({ "bytes": "1048576" }))] {
            let mut all = more;
            all["id"] = json!(vm);
            assert_eq!(client.refused(query, all).await, "VM_NOT_FOUND");
        }
        trial.daemon.stop();
    }
}
