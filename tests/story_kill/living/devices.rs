//! Disks, sizes and media: each once, in what is configured as in what runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{super::death::points_of, ATTACH, Scene};
use crate::support::{host::virsh, stage::SOON};

const DETACH: &str = "mutation($id: UUID!, $target: String!) { \
    detachVmDisk(id: $id, target: $target, deleteVolume: true) { operation { id } } }";
const RESIZE: &str =
    "mutation($id: UUID!, $vcpus: Int!) { resizeVm(id: $id, vcpus: $vcpus) { operation { id } } }";
const INSERT: &str = "mutation($id: UUID!, $pool: String!, $volume: String!) { \
    insertVmMedium(id: $id, pool: $pool, volume: $volume) { operation { id } } }";
const EJECT: &str = "mutation($id: UUID!) { ejectVmMedium(id: $id, target: \"sda\") { operation { id } } }";

impl Scene {
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

    pub(super) async fn disks(&mut self) {
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
    pub(super) async fn sizes(&mut self) {
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

    /// It comes with the next start.
    pub(super) async fn asks_for_a_drive(&self) {
        self.disc("first.iso");
        self.client().done(INSERT, self.medium("first.iso")).await;
    }

    pub(super) async fn media(&mut self) {
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
}
