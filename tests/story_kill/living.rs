//! What is asked of a VM that lives: snapshots, disks, power, its name. Two VMs go through it, each
//! through a half; each request is killed at one point and finished by the next daemon before the next
//! one is asked.

mod devices;
mod power;
mod settings;
mod snapshots;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::death::{ask_to_death, delete_meanwhile, under_way};
use crate::support::{
    daemon::{Client, Daemon, operation_in},
    qemu_agent,
    stage::{READY, SOON, Stage},
};

pub const TOLD: &[&str] = &[
    "create-snapshot",
    "thaw",
    "retake-snapshot",
    "revert-snapshot",
    "delete-snapshot",
    "attach-disk",
    "detach-disk",
    "undo-disk",
    "grow-disk",
    "attach-interface",
    "detach-interface",
    "resize",
    "note",
    "set-autostart",
    "set-policy",
    "power",
    "give-up",
    "rename",
    "take-name-back",
    "reset",
    "reboot",
    "insert-medium",
    "eject-medium",
];

const ATTACH: &str = "mutation($id: UUID!) { attachVmDisk(id: $id, bytes: 1048576) { operation { id } } }";
/// What the guest has in memory.
const MARK: &str = "cat /tmp/mark 2>/dev/null || true";

/// The VM, and the daemon of the moment.
struct Scene {
    stage: Stage,
    vm: String,
    daemon: Option<Daemon>,
}

/// What it has, and how it is treated.
pub async fn story() {
    let mut scene = Scene::set("killed").await;
    scene.snapshots().await;
    scene.disks().await;
    scene.cards().await;
    scene.sizes().await;
    scene.settings().await;
    scene.ends().await;
}

/// What goes on and off, in and out.
pub async fn story_of_power() {
    let mut scene = Scene::set("switched").await;
    scene.client().output(&scene.vm, "echo kept >/tmp/mark").await;
    scene.asks_for_a_drive().await;
    scene.power_and_name().await;
    scene.media().await;
    scene.boots().await;
    scene.undone_disk().await;
    // In the end it goes with a disk that is half attached.
    scene.killed(&["attach-disk.made"], ATTACH, json!({})).await;
    assert_eq!(scene.stage.pool.volumes().len(), 2);
    scene.ends().await;
}

impl Scene {
    async fn set(story: &str) -> Self {
        // What fails is tried again soon, and given up soon.
        let stage = Stage::with(story, &[("INFINIBAY__RECONCILE__RETRY_MAX", "1s")]);
        let daemon = stage.home.start();
        let (client, vm) = stage.create(&daemon).await;
        qemu_agent::start(&client, &vm, 0).await;
        Self { stage, vm, daemon: Some(daemon) }
    }

    async fn ends(mut self) {
        drop(self.daemon.take());
        let operation = delete_meanwhile(&self.stage.home, &self.vm).await;
        self.finished(Some(operation)).await;
        self.stage.nothing_is_left(&self.vm);
    }

    fn client(&self) -> Client {
        self.daemon.as_ref().unwrap().client(&self.stage.token)
    }

    /// Asks a daemon that dies at the first point, and lets others die at the next ones without being
    /// asked; gives the operation that is still open.
    async fn killed(&mut self, points: &[&str], mutation: &str, mut request: Value) -> Option<String> {
        let (first, others) = points.split_first().unwrap();
        let phase = self.client().vm(&self.vm).await["phase"].as_str().unwrap().to_owned();
        drop(self.daemon.take());
        request["id"] = self.vm.clone().into();
        // What may be asked of it depends on what it has seen.
        let ready = async |client: &Client| client.phase_is(&self.vm, &phase, SOON).await;
        let at = (&self.stage.home, self.stage.token.as_str());
        let answered = ask_to_death(at, first, ready, mutation, &request).await;
        for point in others {
            self.stage.home.dies_at(point, SOON);
        }
        match answered {
            Some(answered) => Some(operation_in(&answered)),
            None => under_way(&self.stage.home, &self.vm).await,
        }
    }

    /// Has the next daemon finish it, and waits until it has seen the VM, if there still is one.
    async fn finished(&mut self, operation: Option<String>) {
        self.daemon = Some(self.stage.home.start());
        let (client, deadline) = (self.client(), Instant::now() + SOON);
        while client.vm(&self.vm).await["phase"] == "UNKNOWN" {
            assert!(Instant::now() < deadline, "the VM is not looked at");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(operation) = operation {
            self.client().succeeded(&operation, READY).await;
        }
    }

    async fn killed_at(&mut self, points: &[&str], mutation: &str, request: Value) {
        let operation = self.killed(points, mutation, request).await;
        self.finished(operation).await;
    }
}
