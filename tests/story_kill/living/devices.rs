//! Disks, sizes and media: each once, in what is configured as in what runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{super::death::points_of, ATTACH, Scene};
use crate::support::{
    host::{try_virsh, virsh},
    stage::SOON,
};

const MIB: u64 = 1 << 20;

const DETACH: &str = "mutation($id: UUID!, $target: String!) { \
    detachVmDisk(id: $id, target: $target, deleteVolume: true) { operation { id } } }";
const RESIZE: &str =
    "mutation($id: UUID!, $vcpus: Int!) { resizeVm(id: $id, vcpus: $vcpus) { operation { id } } }";
const INSERT: &str = "mutation($id: UUID!, $pool: String!, $volume: String!) { \
    insertVmMedium(id: $id, pool: $pool, volume: $volume) { operation { id } } }";
const EJECT: &str = "mutation($id: UUID!) { ejectVmMedium(id: $id, target: \"sda\") { operation { id } } }";

/// A network of the story's own, without addresses.
struct Network(String);

impl Network {
    fn new(dir: &std::path::Path) -> Self {
        let name = format!("sk{}", std::process::id());
        let file = dir.join("network.xml");
        let xml = format!("<network><name>{name}</name><bridge name='{name}'/></network>");
        std::fs::write(&file, xml).unwrap();
        virsh(&["net-create", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        assert!(try_virsh("qemu:///system", &["net-destroy", &self.0]), "network {} is left", self.0);
    }
}

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
    pub(super) async fn guest_sees(&self, line: &str, expected: &str) {
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

    /// What a card is plugged into, in the order of the domain, in what runs and what is configured.
    fn has_cards(&self, expected: &[&str], point: &str) {
        for config in [&[][..], &["--inactive"][..]] {
            let list = virsh(&[&["domiflist", &self.vm], config].concat());
            let sources = list.lines().filter_map(|line| line.split_whitespace().nth(2));
            assert_eq!(sources.collect::<Vec<_>>(), expected, "{point}: {config:?}");
        }
    }

    pub(super) async fn cards(&mut self) {
        const ATTACH: &str = "mutation($id: UUID!, $network: String!) { \
            attachVmInterface(id: $id, network: $network) { operation { id } } }";
        const DETACH: &str = "mutation($id: UUID!, $mac: String!) { detachVmInterface(id: $id, mac: $mac) { operation { id } } }";
        let network = Network::new(self.stage.home.path());
        for (attach, detach) in points_of("attach-interface").iter().zip(points_of("detach-interface")) {
            self.killed_at(&[attach], ATTACH, json!({ "network": network.0 })).await;
            self.has_cards(&[&network.0], attach);
            self.client().agent_is(&self.vm, "ONLINE", SOON).await;
            self.guest_sees("ls /sys/class/net | grep -c eth", "1").await;
            let macs = self.client().vm(&self.vm).await["macAddresses"].take();
            let [mac] = macs.as_array().unwrap().as_slice() else { panic!("{attach}: {macs}") };
            self.killed_at(&[detach], DETACH, json!({ "mac": mac })).await;
            self.has_cards(&[], detach);
            let macs = self.client().vm(&self.vm).await["macAddresses"].take();
            assert_eq!(macs, json!([]), "{detach}");
        }
        assert_eq!(points_of("attach-interface").len(), points_of("detach-interface").len());
    }

    /// What this guest has no room for waits for its next start.
    pub(super) async fn sizes(&mut self) {
        for (vcpus, point) in (2..).zip(points_of("resize")) {
            self.killed_at(&[point], RESIZE, json!({ "vcpus": vcpus })).await;
            let told = virsh(&["vcpucount", &self.vm, "--config", "--current"]);
            assert_eq!(told.trim(), vcpus.to_string(), "{point}");
        }
        // Its domain is told what it is made of now.
        for (vcpus, point) in (7..).zip(points_of("note")) {
            self.killed_at(&[point], RESIZE, json!({ "vcpus": vcpus })).await;
            let written = format!("\"vcpus\":{vcpus}");
            let text = virsh(&["metadata", &self.vm, "--uri", "urn:infinibay:domain"]);
            assert!(text.contains(&written), "{point}: {text}");
        }
        self.client().done(RESIZE, json!({ "id": self.vm, "vcpus": 1 })).await;

        const GROW: &str = "mutation($id: UUID!, $bytes: BigInt!) { growVmDisk(id: $id, bytes: $bytes) { operation { id } } }";
        const SIZE: &str = "query($id: UUID!) { vm(id: $id) { diskBytes } }";
        let size = async |scene: &Self| {
            let told = scene.client().ask(SIZE, json!({ "id": scene.vm })).await["vm"]["diskBytes"].take();
            told.as_str().unwrap().parse::<u64>().unwrap()
        };
        let before = size(self).await;
        for (number, point) in (1..).zip(points_of("grow-disk")) {
            let bytes = before.next_multiple_of(MIB) + number * MIB;
            self.killed_at(&[point], GROW, json!({ "bytes": bytes.to_string() })).await;
            assert_eq!(size(self).await, bytes, "{point}");
            let info = virsh(&["domblkinfo", &self.vm, "vda"]);
            let capacity = info.lines().next().unwrap().split_whitespace().nth(1).unwrap();
            assert_eq!(capacity, bytes.to_string(), "{point}");
            self.guest_sees("cat /sys/block/vda/size", &(bytes / 512).to_string()).await;
        }
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

    /// What is in the one drive.
    fn has_drive(&self, expected: &str, point: &str) {
        for config in [&[][..], &["--inactive"][..]] {
            let list = virsh(&[&["domblklist", &self.vm], config].concat());
            let drives = list.lines().filter(|line| line.trim_start().starts_with("sd"));
            let drives: Vec<_> = drives.map(|line| line.split_whitespace().nth(1).unwrap()).collect();
            assert_eq!(drives, [expected], "{point}: {config:?}");
        }
    }

    pub(super) async fn media(&mut self) {
        self.client().done(EJECT, json!({ "id": self.vm })).await;
        let ways = points_of("insert-medium").iter().zip(points_of("eject-medium"));
        assert_eq!(points_of("insert-medium").len(), points_of("eject-medium").len());
        for (number, (point, eject)) in ways.enumerate() {
            let name = format!("{number}.iso");
            self.disc(&name);
            self.killed_at(&[point], INSERT, self.medium(&name)).await;
            let path = self.stage.pool.dir.join(name).display().to_string();
            self.has_drive(&path, point);
            self.killed_at(&[eject], EJECT, json!({})).await;
            self.has_drive("-", eject);
        }
        for path in self.stage.pool.volumes() {
            if path.extension().is_some_and(|extension| extension == "iso") {
                std::fs::remove_file(path).unwrap();
            }
        }
        virsh(&["pool-refresh", &self.stage.pool.name]);
    }
}
