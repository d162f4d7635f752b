//! libvirtd stopped, restarted, killed and frozen for a minute while its guests run: they go on and
//! are heard, nothing is known of their domains and nothing is done to them, and afterwards all is as
//! before and what was asked meanwhile is done.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup},
    host,
    libvirtd::Libvirtd,
};
use tokio::task::JoinHandle;

const READY: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(90);
/// What an event brings comes within this; a scan does not come at all.
const AT_ONCE: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
/// Within this every other question is answered, whatever libvirt does.
const ANSWERED: Duration = Duration::from_secs(5);

const CREATE: &str = "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }";
const AUTOSTART: &str = "mutation($id: UUID!, $on: Boolean!) {
    setVmAutostart(id: $id, autostart: $on) { operation { id } } }";
const POLICY: &str = "mutation($id: UUID!) {
    setVmPolicy(id: $id, onPowerOff: FOLLOW, onCrash: RESTART) { operation { id } } }";
const PULL_PLUG: &str = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";

struct Guest {
    vm: String,
    name: String,
    process: Pid,
}

struct Stage {
    libvirtd: Libvirtd,
    client: Client,
}

impl Stage {
    fn input(name: &str) -> Value {
        json!({
            "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": "story", "network": "none",
        })
    }

    async fn guest(&self, name: &str) -> Guest {
        let (vm, create) = self.client.create(Self::input(name)).await;
        self.client.succeeded(&create, READY).await;
        Guest { vm, name: name.to_owned(), process: self.libvirtd.guest(name).unwrap() }
    }

    /// The operation's id.
    async fn ask(&self, mutation: &str, variables: Value) -> String {
        let asked = self.client.ask(mutation, variables).await;
        let operation = &asked.as_object().unwrap().values().next().unwrap()["operation"];
        operation["id"].as_str().unwrap().to_owned()
    }

    /// Nothing is known of the domain, and its guest is there all the same.
    async fn is_unknown_and_heard(&self, guest: &Guest) {
        self.client.phase_is(&guest.vm, "UNKNOWN", SOON).await;
        let unreachable = |it: &Value| it["status"] == "FALSE" && it["reason"] == "NoAnswer";
        self.client.condition(&guest.vm, "HYPERVISOR_REACHABLE", unreachable).await;
        self.is_heard(guest).await;
    }

    /// The same of one whose plug is to be pulled: where that call was made before anybody noticed that
    /// nobody answers, it is still under way, and said to be.
    async fn is_unknown_and_heard_or_called(&self, guest: &Guest) {
        self.client.phase_is(&guest.vm, "UNKNOWN", SOON).await;
        let without_answer = |it: &Value| {
            [("FALSE", "NoAnswer"), ("UNKNOWN", "CallUnderWay")]
                .iter()
                .any(|(status, reason)| it["status"] == *status && it["reason"] == *reason)
        };
        self.client.condition(&guest.vm, "HYPERVISOR_REACHABLE", without_answer).await;
        self.is_heard(guest).await;
    }

    async fn is_heard(&self, guest: &Guest) {
        let answer = self.client.shell(&guest.vm, "echo here").await;
        assert_eq!(answer["response"]["stdout"], "here\n", "{answer}");
        assert_eq!(self.client.vm(&guest.vm).await["agent"]["connectivity"], "ONLINE");
        assert_eq!(self.libvirtd.guest(&guest.name), Some(guest.process), "another process is the guest");
    }

    /// All is as it was, and what happens is noticed by events.
    async fn is_back(&self, guest: &Guest) {
        self.client.phase_is(&guest.vm, "RUNNING", SOON).await;
        self.client.condition(&guest.vm, "HYPERVISOR_REACHABLE", |it| it["status"] == "TRUE").await;
        self.is_heard(guest).await;
        self.libvirtd.virsh(&["suspend", &guest.vm]);
        self.client.phase_is(&guest.vm, "PAUSED", AT_ONCE).await;
        self.libvirtd.virsh(&["resume", &guest.vm]);
        self.client.phase_is(&guest.vm, "RUNNING", AT_ONCE).await;
    }
}

/// Somebody who goes on asking; ends by failing if an answer takes too long.
fn impatient(client: Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let asked = Instant::now();
            client.ask("{ vms { nodes { id phase conditions { message } } } }", json!({})).await;
            let took = asked.elapsed();
            assert!(took < ANSWERED, "an answer took {took:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_whatever_becomes_of_libvirtd() {
    host::need_image("pocket");
    let libvirtd = Libvirtd::start(2);
    let interval = |key: &str| (key.to_owned(), "600s".to_owned());
    let home = Home::new(Setup {
        uri: libvirtd.uri(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        // Without scans, only events tell what happens.
        env: vec![
            interval("INFINIBAY__RECONCILE__SCAN_INTERVAL"),
            interval("INFINIBAY__AGENTS__LIVENESS_INTERVAL"),
        ],
    });
    let pool = libvirtd.pool(home.path());
    let token = home.admin();
    let daemon = home.start();
    let stage = Stage { libvirtd, client: daemon.client(&token) };
    let (first, second) = tokio::join!(stage.guest("first"), stage.guest("second"));
    let policy = stage.ask(POLICY, json!({ "id": second.vm })).await;
    stage.client.succeeded(&policy, SOON).await;
    let asking = impatient(stage.client.clone());

    // Stopped: what is asked meanwhile is kept, and done afterwards.
    stage.libvirtd.stop();
    tokio::join!(stage.is_unknown_and_heard(&first), stage.is_unknown_and_heard(&second));
    let refused = stage.client.refused(CREATE, json!({ "input": Stage::input("third") })).await;
    assert_eq!(refused, "HYPERVISOR_UNAVAILABLE");
    let autostart = stage.ask(AUTOSTART, json!({ "id": first.vm, "on": true })).await;
    let kept = stage.client.operation(&autostart).await;
    assert!(["PENDING", "RUNNING"].contains(&kept["status"].as_str().unwrap()), "{kept}");
    stage.libvirtd.run();
    stage.client.succeeded(&autostart, SOON).await;
    assert!(stage.libvirtd.virsh(&["dominfo", "first"]).contains("enable"), "nobody set its autostart");
    tokio::join!(stage.is_back(&first), stage.is_back(&second));

    // Restarted.
    stage.libvirtd.stop();
    stage.libvirtd.run();
    tokio::join!(stage.is_back(&first), stage.is_back(&second));

    // Killed, and a guest with it: nobody says that it is heard, and its policy brings it back.
    stage.libvirtd.kill();
    kill_process(second.process, Signal::KILL).unwrap();
    stage.is_unknown_and_heard(&first).await;
    stage.client.phase_is(&second.vm, "UNKNOWN", SOON).await;
    stage.client.agent_is(&second.vm, "UNKNOWN", SOON).await;
    stage.libvirtd.run();
    stage.is_back(&first).await;
    stage.client.phase_is(&second.vm, "RUNNING", READY).await;
    stage.client.agent_is(&second.vm, "ONLINE", READY).await;
    let second = Guest { process: stage.libvirtd.guest("second").unwrap(), ..second };
    stage.is_back(&second).await;

    // Frozen for a minute.
    stage.libvirtd.freeze();
    let frozen = Instant::now();
    let stop = stage.ask(PULL_PLUG, json!({ "id": second.vm })).await;
    let refused = stage.client.refused(CREATE, json!({ "input": Stage::input("third") })).await;
    assert_eq!(refused, "HYPERVISOR_UNAVAILABLE");
    tokio::join!(stage.is_unknown_and_heard(&first), stage.is_unknown_and_heard_or_called(&second));
    tokio::time::sleep(MINUTE.saturating_sub(frozen.elapsed())).await;
    tokio::join!(stage.is_unknown_and_heard(&first), stage.is_unknown_and_heard_or_called(&second));
    let kept = stage.client.operation(&stop).await;
    assert!(["PENDING", "RUNNING"].contains(&kept["status"].as_str().unwrap()), "{kept}");
    stage.libvirtd.thaw();
    stage.client.succeeded(&stop, SOON).await;
    assert_eq!(stage.libvirtd.guest("second"), None, "its plug was not pulled");
    stage.client.phase_is(&second.vm, "STOPPED", SOON).await;
    stage.is_back(&first).await;

    // Nothing was made that is not there any more once both are gone.
    stage.libvirtd.virsh(&["destroy", "first"]);
    stage.client.phase_is(&first.vm, "STOPPED", AT_ONCE).await;
    assert!(!asking.is_finished(), "{:?}", asking.await);
    asking.abort();
    for guest in [&first, &second] {
        let delete = stage.client.change("deleteVm", &guest.vm).await;
        stage.client.succeeded(&delete, SOON).await;
    }
    assert_eq!(stage.libvirtd.virsh(&["list", "--all", "--name"]).trim(), "");
    for dir in [pool, home.socket_dir(), home.state_dir().join("seeds"), home.state_dir().join("console")] {
        assert_eq!(host::files_in(&dir), Vec::<PathBuf>::new(), "left in {}", dir.display());
    }
    daemon.stop();
}
