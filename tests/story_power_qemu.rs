//! Power beyond on and off, on real QEMU with a real guest: its memory survives a halt and a save, is
//! gone after a reboot, and a policy brings back what died or was turned off.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup},
    host::{self, DomainGuard, Pool},
};

const READY: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(90);
const START: &str = "mutation($id: UUID!) { startVm(id: $id, discardSaved: true) { operation { id } } }";
const REBOOT: &str = "mutation($id: UUID!) { rebootVm(id: $id, force: true) { operation { id } } }";
const RENAME: &str =
    "mutation($id: UUID!, $name: String!) { renameVm(id: $id, name: $name) { operation { id } } }";
const POLICY: &str = "mutation($id: UUID!, $off: OnPowerOff!, $crash: OnCrash!) {
    setVmPolicy(id: $id, onPowerOff: $off, onCrash: $crash) { operation { id } } }";

async fn done(client: &Client, mutation: &str, variables: Value) {
    let asked = client.ask(mutation, variables).await;
    let operation = &asked.as_object().unwrap().values().next().unwrap()["operation"];
    client.succeeded(operation["id"].as_str().unwrap(), READY).await;
}

async fn asked(client: &Client, mutation: &str, vm: &str) {
    let operation = client.change(mutation, vm).await;
    client.succeeded(&operation, READY).await;
}

/// Which boot of its kernel the guest is in; asked until it answers.
async fn boot_id(client: &Client, vm: &str) -> String {
    let deadline = tokio::time::Instant::now() + READY;
    loop {
        let query =
            "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, timeoutSeconds: 20, command: { unsafe: {
            rawCommand: \"read id < /proc/sys/kernel/random/boot_id; echo $id\" } }) { status response } }";
        let answer = client.send(query, json!({ "vm": vm })).await;
        let log = &answer["data"]["executeVmCommand"];
        if log["status"] == "ANSWERED" {
            let id = log["response"]["stdout"].as_str().unwrap().trim().to_owned();
            assert_eq!(id.len(), 36, "{answer}");
            return id;
        }
        assert!(tokio::time::Instant::now() < deadline, "the guest does not answer: {answer}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Waits until the guest answers out of another boot than this one.
async fn boots_anew(client: &Client, vm: &str, before: &str) -> String {
    let deadline = tokio::time::Instant::now() + READY;
    loop {
        let now = boot_id(client, vm).await;
        if now != before {
            return now;
        }
        assert!(tokio::time::Instant::now() < deadline, "still in boot {before}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn drifts(client: &Client, vm: &str, reason: &str) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let now = client.vm(vm).await;
        let conditions = now["conditions"].as_array().unwrap();
        // Not told while libvirt cannot be asked.
        let drift = conditions.iter().find(|it| it["type"] == "DRIFTED_FROM_INTENT");
        if let Some(drift) = drift.filter(|drift| drift["reason"] == reason) {
            assert_eq!(drift["status"], if reason == "AsAsked" { "FALSE" } else { "TRUE" });
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "no {reason}: {now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn setup() -> Setup {
    Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![("INFINIBAY__RECONCILE__REBOOT_GRACE".to_owned(), "120s".to_owned())],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_survives_what_it_should_and_policies_bring_a_vm_back() {
    host::need_image("pocket");
    let home = Home::new(setup());
    let pool = Pool::new(home.path());
    let token = home.admin();
    let name = format!("story-power-{}", std::process::id());
    let new_name = format!("{name}-b");
    let _guards = (DomainGuard(name.clone()), DomainGuard(new_name.clone()));
    let mut daemon = home.start();
    let client = daemon.client(&token);
    let input = json!({
        "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": pool.name, "network": "none",
    });
    let (vm, create) = client.create(input).await;
    client.succeeded(&create, READY).await;
    let boot = boot_id(&client, &vm).await;

    // Halted: nothing is offline, and it goes on where it was.
    asked(&client, "suspendVm", &vm).await;
    client.phase_is(&vm, "PAUSED", SOON).await;
    assert_eq!(host::domain_state(&vm).as_deref(), Some("paused"));
    client.agent_is(&vm, "ONLINE", SOON).await;
    asked(&client, "resumeVm", &vm).await;
    client.phase_is(&vm, "RUNNING", SOON).await;
    assert_eq!(boot_id(&client, &vm).await, boot);
    // Paused by somebody else: told, and gone on with when asked.
    host::virsh(&["suspend", &vm]);
    drifts(&client, &vm, "PausedOutside").await;
    asked(&client, "resumeVm", &vm).await;
    drifts(&client, &vm, "AsAsked").await;

    // Saved, also over a death of the daemon: memory is on the disk, and comes back.
    asked(&client, "saveVm", &vm).await;
    client.phase_is(&vm, "SAVED", SOON).await;
    assert_eq!(host::domain_state(&vm).as_deref(), Some("shut off"));
    let saved = Path::new("/var/lib/libvirt/qemu/save").join(format!("{name}.save"));
    assert!(saved.exists(), "{} (this test has to run as root)", saved.display());
    client.agent_is(&vm, "OFFLINE", SOON).await;
    home.between(&mut daemon, |_| ());
    let client = daemon.client(&token);
    client.phase_is(&vm, "SAVED", SOON).await;
    asked(&client, "startVm", &vm).await;
    assert_eq!(boot_id(&client, &vm).await, boot, "it was booted anew");
    assert!(!saved.exists());
    client.phase_is(&vm, "RUNNING", SOON).await;

    // Rebooted: politely, where QEMU tells that it was reset; and by force.
    let operation = client.change("rebootVm", &vm).await;
    client.succeeded(&operation, Duration::from_secs(110)).await;
    let polite = boots_anew(&client, &vm, &boot).await;
    done(&client, REBOOT, json!({ "id": vm })).await;
    let forced = boots_anew(&client, &vm, &polite).await;

    // Saved and started from cold: what was saved is gone.
    asked(&client, "saveVm", &vm).await;
    done(&client, START, json!({ "id": vm })).await;
    let cold = boots_anew(&client, &vm, &forced).await;

    // Killed: it comes back by its policy. Turned off by somebody: likewise.
    done(&client, POLICY, json!({ "id": vm, "off": "CORRECT", "crash": "RESTART" })).await;
    host::kill_hypervisor_process(&name);
    let restarted = boots_anew(&client, &vm, &cold).await;
    drifts(&client, &vm, "AsAsked").await;
    host::virsh(&["destroy", &vm]);
    drifts(&client, &vm, "StartsAgain").await;
    client.phase_is(&vm, "RUNNING", SOON).await;
    let corrected = boots_anew(&client, &vm, &restarted).await;
    assert_ne!(corrected, cold);

    // Followed: it stays off, and that is told.
    done(&client, POLICY, json!({ "id": vm, "off": "FOLLOW", "crash": "STAY" })).await;
    host::virsh(&["destroy", &vm]);
    drifts(&client, &vm, "PoweredOffOutside").await;
    client.phase_is(&vm, "STOPPED", SOON).await;

    // Renamed, and nothing is left of it in the end.
    done(&client, RENAME, json!({ "id": vm, "name": new_name })).await;
    assert_eq!(host::virsh(&["domname", &vm]).trim(), new_name);
    asked(&client, "startVm", &vm).await;
    boots_anew(&client, &vm, &corrected).await;
    asked(&client, "saveVm", &vm).await;
    asked(&client, "deleteVm", &vm).await;
    assert!(!host::domain_exists(&vm));
    let saved = Path::new("/var/lib/libvirt/qemu/save").join(format!("{new_name}.save"));
    assert!(!saved.exists(), "what was saved is left");
    assert_eq!(pool.volumes(), Vec::<std::path::PathBuf>::new());
    assert_eq!(host::files_in(&home.socket_dir()), Vec::<std::path::PathBuf>::new());
    daemon.stop();
}
