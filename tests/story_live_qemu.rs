//! What a running guest takes at once, on real QEMU: processors where somebody left room for more. And
//! what a guest that does not listen is made to: asked to power off and to boot anew, it is given its
//! time, then no more, and whoever asked is told which way it went.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup},
    guests::Places,
    host::{self, DomainGuard, virsh},
    stage::{READY, SOON, Stage},
};

const ADOPT: &str =
    "mutation($uuid: UUID!) { adoptDomain(uuid: $uuid) { vm { vcpus memoryMib } operation { id } } }";
const RESIZE: &str = "mutation($id: UUID!, $vcpus: Int) {
    resizeVm(id: $id, vcpus: $vcpus) { operation { id } } }";
const SIZE: &str = "query($id: UUID!) { vm(id: $id) { vcpus memoryMib } }";

/// Waits for the end of a change; when it takes hold.
async fn effect(client: &Client, mutation: &str, variables: Value) -> Value {
    let operation = client.accepted(mutation, variables).await;
    client.succeeded(&operation, SOON).await;
    let look = "query($id: UUID!) { operation(id: $id) { effect } }";
    client.ask(look, json!({ "id": operation })).await["operation"]["effect"].take()
}

fn processors(domain: &str) -> String {
    virsh(&["vcpucount", domain, "--live", "--active"]).trim().to_owned()
}

/// A guest of others, with room for more: its XML.
fn roomy(name: &str, uuid: &str) -> String {
    let dir = host::test_images().join("pocket");
    let manifest = std::fs::read_to_string(dir.join("manifest.toml")).unwrap();
    let value = |key: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
        line.unwrap().trim().trim_matches('"').to_owned()
    };
    let file = |key: &str| dir.join(value(key)).display().to_string();
    format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>256</memory>
         <currentMemory unit='MiB'>192</currentMemory><vcpu current='1'>2</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>
         <cmdline>{}</cmdline></os><features><acpi/><apic/></features><cpu mode='maximum'/><devices>
         <controller type='usb' model='none'/><controller type='virtio-serial' index='0'/>
         <memballoon model='virtio'/></devices></domain>",
        file("kernel"),
        file("initrd"),
        value("cmdline"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_guest_with_room_gets_a_processor_while_it_runs() {
    host::need_image("pocket");
    let _place = Places::take(1);
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![],
    });
    let token = home.admin();
    let (name, vm) = (format!("story-live-{}", std::process::id()), uuid::Uuid::new_v4().to_string());
    let _guard = DomainGuard(name.clone());
    let file = home.path().join("theirs.xml");
    std::fs::write(&file, roomy(&name, &vm)).unwrap();
    virsh(&["define", file.to_str().unwrap()]);
    let daemon = home.start();
    let client = daemon.client(&token);
    let adopted = client.ask(ADOPT, json!({ "uuid": vm })).await;
    let operation = adopted["adoptDomain"]["operation"]["id"].as_str().unwrap();
    client.succeeded(operation, SOON).await;
    let size = json!({ "vcpus": 1, "memoryMib": "192" });
    assert_eq!(adopted["adoptDomain"]["vm"], size, "what it has, not what it can have");
    let start = client.change("startVm", &vm).await;
    client.succeeded(&start, SOON).await;
    client.agent_is(&vm, "ONLINE", READY).await;
    assert_eq!(processors(&name), "1");

    // One more, at once: QEMU has it, and the guest sees it.
    assert_eq!(effect(&client, RESIZE, json!({ "id": vm, "vcpus": 2 })).await, "LIVE");
    assert_eq!(processors(&name), "2");
    let online = "cd /sys/devices/system/cpu; while ! test -d cpu1; do sleep 1; done
        test $(cat cpu1/online) = 1 || echo 1 >cpu1/online; grep -c ^processor /proc/cpuinfo";
    assert_eq!(client.output(&vm, online).await, "2");
    // Nobody spoke of the memory.
    let size = client.ask(SIZE, json!({ "id": vm })).await["vm"].take();
    assert_eq!(size, json!({ "vcpus": 2, "memoryMib": "192" }));
    let xml = virsh(&["dumpxml", "--inactive", &vm]);
    assert!(xml.contains(">262144</memory>") && xml.contains(">196608</currentMemory>"), "{xml}");
    assert!(xml.contains("current='2'>2</vcpu>") || xml.contains(">2</vcpu>"), "{xml}");

    // There is no room for three; and this guest has no driver that takes memory.
    assert_eq!(effect(&client, RESIZE, json!({ "id": vm, "vcpus": 3 })).await, "NEXT_BOOT");
    assert_eq!(processors(&name), "2");
    let waits = |it: &Value| it["message"].as_str().unwrap().contains("3 virtual processors (now 2)");
    client.condition(&vm, "RESTART_REQUIRED", waits).await;
    assert_eq!(client.output(&vm, "echo here").await, "here");
    daemon.stop();
}

/// Waits for the end of an operation that goes well; the last that it said.
async fn last_word(client: &Client, operation: &str) -> String {
    client.succeeded(operation, SOON).await;
    client.operation(operation).await["stage"].as_str().unwrap().to_owned()
}

async fn boot_id(client: &Client, vm: &str) -> String {
    client.agent_is(vm, "ONLINE", READY).await;
    client.output(vm, "cat /proc/sys/kernel/random/boot_id").await
}

/// Whatever this guest would do at the press of its power button, it does no more.
async fn turn_deaf(client: &Client, vm: &str) {
    client.output(vm, "printf '#!/bin/sh\\n' >/etc/acpi/power-button").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_listen_is_made_to() {
    const GRACE: Duration = Duration::from_secs(4);
    let env = [("INFINIBAY__RECONCILE__STOP_GRACE", "4s"), ("INFINIBAY__RECONCILE__REBOOT_GRACE", "4s")];
    let stage = Stage::with("deaf", &env);
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;
    let boot = boot_id(&client, &vm).await;

    // Asked to boot anew: it is given its time, and reset when that is over.
    turn_deaf(&client, &vm).await;
    let asked = Instant::now();
    let reboot = client.change("rebootVm", &vm).await;
    let said = last_word(&client, &reboot).await;
    assert!(asked.elapsed() >= GRACE, "it was not given its time");
    assert!(said.starts_with("forced: ") && said.contains("reset"), "{said}");
    let deadline = Instant::now() + READY;
    while boot_id(&client, &vm).await == boot {
        assert!(Instant::now() < deadline, "it was not reset");
    }

    // Asked to power off.
    turn_deaf(&client, &vm).await;
    let asked = Instant::now();
    let stop = client.change("stopVm", &vm).await;
    let said = last_word(&client, &stop).await;
    assert!(asked.elapsed() >= GRACE, "it was not given its time");
    assert!(said.starts_with("forced: ") && said.contains("plug"), "{said}");
    client.phase_is(&vm, "STOPPED", SOON).await;
    assert_eq!(virsh(&["domstate", "--reason", &vm]).trim(), "shut off (destroyed)");

    // One that listens is not forced.
    let start = client.change("startVm", &vm).await;
    assert_eq!(last_word(&client, &start).await, "done");
    client.agent_is(&vm, "ONLINE", READY).await;
    let stop = client.change("stopVm", &vm).await;
    assert_eq!(last_word(&client, &stop).await, "done");
    assert_eq!(virsh(&["domstate", "--reason", &vm]).trim(), "shut off (shutdown)");
    stage.delete(&client, &vm).await;
    daemon.stop();
}
