//! What is asked of a VM that lives: snapshots, disks, power, its name. One VM goes through all of it;
//! each request is killed at one point and finished by the next daemon before the next one is asked.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use infinibay::{store::Store, vm::VmId};
use serde_json::{Value, json};

use crate::{
    points_of,
    support::{
        daemon::{Client, Daemon},
        host::{self, virsh},
        qemu_agent,
        stage::{READY, SOON, Stage},
    },
};

pub const TOLD: &[&str] = &[
    "create-snapshot",
    "thaw",
    "revert-snapshot",
    "delete-snapshot",
    "attach-disk",
    "detach-disk",
    "power",
    "rename",
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
const RENAME: &str =
    "mutation($id: UUID!, $name: String!) { renameVm(id: $id, name: $name) { operation { id } } }";

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
    scene.power_and_name().await;
    let Scene { stage, vm, daemon } = scene;
    stage.delete(&daemon.unwrap().client(&stage.token), &vm).await;
}

impl Scene {
    fn client(&self) -> Client {
        self.daemon.as_ref().unwrap().client(&self.stage.token)
    }

    /// Asks a daemon that dies at the first point, then at the others without being asked, and has
    /// the next one finish it.
    async fn killed_at(&mut self, points: &[&str], mutation: &str, arguments: Value) {
        let (first, others) = points.split_first().unwrap();
        let phase = self.client().vm(&self.vm).await["phase"].as_str().unwrap().to_owned();
        drop(self.daemon.take());
        let daemon = self.stage.home.start_to_die_at(first);
        // What it may be asked depends on what it has seen.
        daemon.client(&self.stage.token).phase_is(&self.vm, &phase, SOON).await;
        let mut request = arguments;
        request["id"] = self.vm.clone().into();
        let answered = daemon.client(&self.stage.token).accepted_by_the_dying(mutation, request).await;
        assert!(!(first.ends_with(".stored") && answered.is_some()), "{first}: answered, and then dead");
        daemon.died_at(first, SOON);
        for point in others {
            self.stage.home.dies_at(point, SOON);
        }
        let operation = match answered {
            Some(operation) => Some(operation),
            None => self.under_way().await,
        };
        self.daemon = Some(self.stage.home.start());
        if let Some(operation) = operation {
            self.client().succeeded(&operation, READY).await;
        }
    }

    /// The operation that nobody was told of, by what is stored; none when it is ended.
    async fn under_way(&self) -> Option<String> {
        let url = format!("sqlite:{}", self.stage.home.state_dir().join("infinibay.db").display());
        let store = Store::open(&url, 1, SOON).await.unwrap();
        let vm: uuid::Uuid = self.vm.parse().unwrap();
        let bundle = store.load_vm(VmId::from(vm)).await.unwrap().unwrap();
        store.close().await;
        bundle.operations.first().map(|operation| operation.id.to_string())
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
            self.killed_at(&[point], REVERT, json!({ "name": to })).await;
            let client = self.client();
            if off {
                client.phase_is(&self.vm, "STOPPED", SOON).await;
                assert_eq!(host::domain_state(&self.vm).as_deref(), Some("shut off"), "{point}");
                let start = client.change("startVm", &self.vm).await;
                client.succeeded(&start, READY).await;
                client.agent_is(&self.vm, "ONLINE", READY).await;
            } else {
                client.agent_is(&self.vm, "ONLINE", SOON).await;
                assert_eq!(client.output(&self.vm, "cat /tmp/mark").await, "kept", "{point}");
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

    async fn power_and_name(&mut self) {
        for point in points_of("power") {
            let off = *point != "start.started";
            let mutation = if off { "stopVm" } else { "startVm" };
            let mutation = format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}");
            self.killed_at(&[point], &mutation, json!({})).await;
            let expected = if off { "shut off" } else { "running" };
            assert_eq!(host::domain_state(&self.vm).as_deref(), Some(expected), "{point}");
            if off {
                self.rename().await;
            }
        }
        self.client().agent_is(&self.vm, "ONLINE", READY).await;
    }

    /// There and back as often as there are points.
    async fn rename(&mut self) {
        for (number, point) in points_of("rename").iter().enumerate() {
            // The guard that removes the domain knows the first one.
            let name = format!("{}-{number}", self.stage.name);
            self.killed_at(&[point], RENAME, json!({ "name": name })).await;
            assert_eq!(self.client().vm(&self.vm).await["name"], name.as_str(), "{point}");
            assert_eq!(virsh(&["domname", &self.vm]).trim(), name, "{point}");
            self.client().done(RENAME, json!({ "id": self.vm, "name": self.stage.name })).await;
        }
    }
}
