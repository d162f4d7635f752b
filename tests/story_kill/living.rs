//! What is asked of a VM that lives: snapshots, disks, power, its name. One VM goes through all of it;
//! each request is killed at one point and finished by the next daemon before the next one is asked.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::death::{ask_to_death, delete_meanwhile, points_of, under_way};
use crate::support::{
    daemon::{Client, Daemon, operation_in},
    host::{self, DomainGuard, virsh},
    qemu_agent,
    stage::{READY, SOON, Stage},
};

pub const TOLD: &[&str] = &[
    "create-snapshot",
    "thaw",
    "revert-snapshot",
    "delete-snapshot",
    "attach-disk",
    "detach-disk",
    "resize",
    "power",
    "rename",
    "insert-medium",
];

const TAKE: &str = "mutation($id: UUID!, $name: String!) { \
    createVmSnapshot(id: $id, name: $name, memory: false, quiesce: REQUIRED) { operation { id } } }";
const TAKE_WITH_MEMORY: &str =
    "mutation($id: UUID!, $name: String!) { createVmSnapshot(id: $id, name: $name) { operation { id } } }";
const REVERT: &str =
    "mutation($id: UUID!, $name: String!) { revertVmSnapshot(id: $id, name: $name) { operation { id } } }";
const FORGET: &str =
    "mutation($id: UUID!, $name: String!) { deleteVmSnapshot(id: $id, name: $name) { operation { id } } }";
const ATTACH: &str = "mutation($id: UUID!) { attachVmDisk(id: $id, bytes: 1048576) { operation { id } } }";
const DETACH: &str = "mutation($id: UUID!, $target: String!) { \
    detachVmDisk(id: $id, target: $target, deleteVolume: true) { operation { id } } }";
const RESIZE: &str =
    "mutation($id: UUID!, $vcpus: Int!) { resizeVm(id: $id, vcpus: $vcpus) { operation { id } } }";
const INSERT: &str = "mutation($id: UUID!, $pool: String!, $volume: String!) { \
    insertVmMedium(id: $id, pool: $pool, volume: $volume) { operation { id } } }";
const EJECT: &str = "mutation($id: UUID!) { ejectVmMedium(id: $id, target: \"sda\") { operation { id } } }";
const RENAME: &str =
    "mutation($id: UUID!, $name: String!) { renameVm(id: $id, name: $name) { operation { id } } }";

/// What the guest has in memory.
const MARK: &str = "cat /tmp/mark 2>/dev/null || true";

/// The VM, and the daemon of the moment.
struct Scene {
    stage: Stage,
    vm: String,
    daemon: Option<Daemon>,
}

pub async fn story() {
    let stage = Stage::set("killed");
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;
    qemu_agent::start(&client, &vm, 0).await;
    let mut scene = Scene { stage, vm, daemon: Some(daemon) };
    scene.snapshots().await;
    scene.disks().await;
    scene.sizes().await;
    // A drive comes with the next start.
    scene.disc("empty.iso");
    scene.client().done(INSERT, scene.medium("empty.iso")).await;
    scene.power_and_name().await;
    scene.media().await;
    // In the end it goes with a disk that is half attached.
    scene.killed(&["attach-disk.made"], ATTACH, json!({})).await;
    assert_eq!(scene.stage.pool.volumes().len(), 2);
    let operation = delete_meanwhile(&scene.stage.home, &scene.vm).await;
    scene.finished(Some(operation)).await;
    scene.stage.nothing_is_left(&scene.vm);
}

impl Scene {
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

    /// Has the next daemon finish it.
    async fn finished(&mut self, operation: Option<String>) {
        self.daemon = Some(self.stage.home.start());
        if let Some(operation) = operation {
            self.client().succeeded(&operation, READY).await;
        }
    }

    async fn killed_at(&mut self, points: &[&str], mutation: &str, request: Value) {
        let operation = self.killed(points, mutation, request).await;
        self.finished(operation).await;
    }

    async fn snapshots(&mut self) {
        let client = self.client();
        client.output(&self.vm, "echo kept >/tmp/mark").await;
        client.done(TAKE_WITH_MEMORY, json!({ "id": self.vm, "name": "with-memory" })).await;
        let mut taken = BTreeSet::from(["with-memory".to_owned()]);
        // A thaw is on the way of a snapshot that a crash left frozen.
        let thaws = points_of("thaw").iter().map(|point| vec!["freeze.frozen", *point]);
        let ways = points_of("create-snapshot").iter().map(|point| vec![*point]).chain(thaws);
        for (number, points) in ways.enumerate() {
            let name = format!("snapshot-{number}");
            qemu_agent::forget(&self.client(), &self.vm).await;
            self.killed_at(&points, TAKE, json!({ "name": name })).await;
            taken.insert(name.clone());
            assert_eq!(self.listed().await, taken, "killed at {points:?}");
            let client = self.client();
            client.agent_is(&self.vm, "ONLINE", SOON).await;
            let told = qemu_agent::told(&client, &self.vm).await;
            assert!(told.contains("freeze"), "{points:?}: never frozen");
            assert!(told.ends_with("thaw"), "{points:?}: left frozen: {told}");
        }

        for point in points_of("revert-snapshot") {
            let off = *point == "revert-snapshot.paused";
            let to = if off { "snapshot-0" } else { "with-memory" };
            self.client().output(&self.vm, "echo lost >/tmp/mark").await;
            let operation = self.killed(&[point], REVERT, json!({ "name": to })).await;
            let process = virsh(&["domid", &self.vm]);
            self.finished(operation).await;
            if point.starts_with("change.") && *point != "change.stored" {
                let now = virsh(&["domid", &self.vm]);
                assert_eq!(now, process, "{point}: taken back once more from a guest that went on");
            }
            let client = self.client();
            if off {
                client.phase_is(&self.vm, "STOPPED", SOON).await;
                assert_eq!(host::domain_state(&self.vm).as_deref(), Some("shut off"), "{point}");
                let start = client.change("startVm", &self.vm).await;
                client.succeeded(&start, READY).await;
                client.agent_is(&self.vm, "ONLINE", READY).await;
            } else {
                client.agent_is(&self.vm, "ONLINE", SOON).await;
                assert_eq!(client.output(&self.vm, MARK).await, "kept", "{point}");
            }
            assert_eq!(self.listed().await, taken, "{point}");
        }

        for (number, point) in points_of("delete-snapshot").iter().enumerate() {
            let name = format!("snapshot-{number}");
            self.killed_at(&[point], FORGET, json!({ "name": name })).await;
            taken.remove(&name);
            assert_eq!(self.listed().await, taken, "killed at {point}");
        }
        for name in taken {
            self.client().done(FORGET, json!({ "id": self.vm, "name": name })).await;
        }
    }

    /// The names of the snapshots, as the API and libvirt tell them.
    async fn listed(&self) -> BTreeSet<String> {
        const LIST: &str = "query($id: UUID!) { vmSnapshots(vmId: $id) { name } }";
        let told = self.client().ask(LIST, json!({ "id": self.vm })).await["vmSnapshots"].take();
        let told = told.as_array().unwrap().iter();
        let told: BTreeSet<_> = told.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        let names = virsh(&["snapshot-list", "--name", &self.vm]);
        let names: Vec<_> = names.split_whitespace().map(str::to_owned).collect();
        assert_eq!(names.len(), told.len(), "{names:?}, {told:?}");
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), told);
        told
    }

    /// Disks beside the first, each once in everything that tells of it.
    fn has_disks(&self, expected: &[&str], point: &str) {
        for config in [&[][..], &["--inactive"][..]] {
            let list = virsh(&[&["domblklist", &self.vm], config].concat());
            let targets = list.lines().filter_map(|line| line.split_whitespace().next());
            let targets: Vec<_> = targets.filter(|target| target.starts_with("vd")).collect();
            assert_eq!(targets, expected, "{point}: {config:?}");
        }
        let volumes = self.stage.pool.volumes();
        assert_eq!(volumes.len(), expected.len(), "{point}: {volumes:?}");
    }

    /// Waits until a line run in the guest prints this: it takes a moment to find a new disk.
    async fn guest_sees(&self, line: &str, expected: &str) {
        let (client, deadline) = (self.client(), Instant::now() + SOON);
        loop {
            let ran = client.shell(&self.vm, line).await;
            if ran["response"]["stdout"].as_str().unwrap_or_default().trim() == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{line}: {ran}, not {expected}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn disks(&mut self) {
        let mut detachments = points_of("detach-disk").iter();
        for point in points_of("attach-disk") {
            self.killed_at(&[point], ATTACH, json!({})).await;
            self.has_disks(&["vda", "vdb"], point);
            let client = self.client();
            client.agent_is(&self.vm, "ONLINE", SOON).await;
            self.guest_sees("cat /sys/block/vdb/size", "2048").await;
            match detachments.next() {
                Some(point) => self.killed_at(&[point], DETACH, json!({ "target": "vdb" })).await,
                None => client.done(DETACH, json!({ "id": self.vm, "target": "vdb" })).await,
            }
            self.has_disks(&["vda"], point);
        }
        assert_eq!(detachments.next(), None, "more ways to detach a disk than disks");
    }

    /// What this guest has no room for waits for its next start.
    async fn sizes(&mut self) {
        for (vcpus, point) in (2..).zip(points_of("resize")) {
            self.killed_at(&[point], RESIZE, json!({ "vcpus": vcpus })).await;
            let told = virsh(&["vcpucount", &self.vm, "--config", "--current"]);
            assert_eq!(told.trim(), vcpus.to_string(), "{point}");
        }
        self.client().done(RESIZE, json!({ "id": self.vm, "vcpus": 1 })).await;
    }

    /// What a disc begins with, as far as anybody looks.
    fn disc(&self, name: &str) {
        let mut disc = vec![0; 64 << 10];
        disc[0x8001..0x8006].copy_from_slice(b"CD001");
        std::fs::write(self.stage.pool.dir.join(name), disc).unwrap();
    }

    fn medium(&self, name: &str) -> Value {
        json!({ "id": self.vm, "pool": self.stage.pool.name, "volume": name })
    }

    async fn media(&mut self) {
        self.client().done(EJECT, json!({ "id": self.vm })).await;
        for (number, point) in points_of("insert-medium").iter().enumerate() {
            let name = format!("{number}.iso");
            self.disc(&name);
            self.killed_at(&[point], INSERT, self.medium(&name)).await;
            let path = self.stage.pool.dir.join(name).display().to_string();
            for config in [&[][..], &["--inactive"][..]] {
                let list = virsh(&[&["domblklist", &self.vm], config].concat());
                let drives = list.lines().filter(|line| line.trim_start().starts_with("sd"));
                let drives: Vec<_> = drives.map(|line| line.split_whitespace().nth(1).unwrap()).collect();
                assert_eq!(drives, [path.as_str()], "{point}: {config:?}");
            }
            self.client().done(EJECT, json!({ "id": self.vm })).await;
        }
        for path in self.stage.pool.volumes() {
            if path.extension().is_some_and(|extension| extension == "iso") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// On a way through all the states of power; what the guest has in memory stays where it should.
    async fn power_and_name(&mut self) {
        for point in points_of("power") {
            let (mutation, expected) = match *point {
                "shutdown.requested" => ("stopVm(id: $id)", "shut off"),
                "start.started" => ("startVm(id: $id)", "running"),
                "suspend.suspended" | "power.stored" => ("suspendVm(id: $id)", "paused"),
                "resume.resumed" => ("resumeVm(id: $id)", "running"),
                "save.saved" => ("saveVm(id: $id)", "shut off"),
                "discard-saved.discarded" => ("startVm(id: $id, discardSaved: true)", "running"),
                other => panic!("{other}: what is asked for there is not told"),
            };
            let mutation = format!("mutation($id: UUID!) {{ {mutation} {{ operation {{ id }} }} }}");
            self.killed_at(&[point], &mutation, json!({})).await;
            assert_eq!(host::domain_state(&self.vm).as_deref(), Some(expected), "{point}");
            let client = self.client();
            match *point {
                "shutdown.requested" => self.rename().await,
                "start.started" | "discard-saved.discarded" => {
                    client.agent_is(&self.vm, "ONLINE", READY).await;
                    assert_eq!(client.output(&self.vm, MARK).await, "", "{point}: not a new start");
                    client.output(&self.vm, "echo kept >/tmp/mark").await;
                }
                "resume.resumed" => {
                    client.agent_is(&self.vm, "ONLINE", SOON).await;
                    assert_eq!(client.output(&self.vm, MARK).await, "kept", "{point}");
                }
                _ => {}
            }
        }
        let client = self.client();
        client
            .done("mutation($id: UUID!) { resumeVm(id: $id) { operation { id } } }", json!({ "id": self.vm }))
            .await;
        client.agent_is(&self.vm, "ONLINE", SOON).await;
        assert_eq!(client.output(&self.vm, MARK).await, "kept");
    }

    /// There and back as often as there are points.
    async fn rename(&mut self) {
        for (number, point) in points_of("rename").iter().enumerate() {
            let name = format!("{}-{number}", self.stage.name);
            let _guard = DomainGuard(name.clone());
            self.killed_at(&[point], RENAME, json!({ "name": name })).await;
            assert_eq!(self.client().vm(&self.vm).await["name"], name.as_str(), "{point}");
            assert_eq!(virsh(&["domname", &self.vm]).trim(), name, "{point}");
            self.client().done(RENAME, json!({ "id": self.vm, "name": self.stage.name })).await;
        }
    }
}
