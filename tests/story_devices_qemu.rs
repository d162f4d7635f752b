//! Sizes and devices on real QEMU: a guest sees what is plugged in and what grows, a guest that
//! does not listen keeps what it has, and a deletion leaves what was there before.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Daemon, Home, Setup},
    host::{self, DomainGuard, Pool, virsh},
    trial::{Blank, image},
};

const READY: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

struct Stage {
    home: Home,
    pool: Pool,
    daemon: Daemon,
    client: Client,
    token: String,
    name: String,
    _guard: DomainGuard,
}

impl Stage {
    fn set(story: &str, images_dir: PathBuf) -> Self {
        let home = Home::new(Setup {
            uri: "qemu:///system".into(),
            database_url: None,
            images_dir,
            base_dir: host::test_base_dir(),
            env: vec![],
        });
        let pool = Pool::new(home.path());
        let name = format!("story-{story}-{}", std::process::id());
        let token = home.admin();
        let daemon = home.start();
        let client = daemon.client(&token);
        Self { home, pool, daemon, client, token, _guard: DomainGuard(name.clone()), name }
    }

    fn request(&self, image: &str) -> Value {
        json!({ "name": self.name, "image": image, "vcpus": 1, "memoryMib": 192, "pool": self.pool.name, "network": "none" })
    }

    /// Asks for a change and waits for its end: effect, or the error's code and words.
    async fn change(&self, mutation: &str, arguments: &str) -> Result<String, (String, String)> {
        let query = format!("mutation {{ {mutation}({arguments}) {{ operation {{ id }} }} }}");
        let asked = self.client.ask(&query, json!({})).await;
        let id = asked[mutation]["operation"]["id"].clone();
        let deadline = Instant::now() + SOON;
        loop {
            let look = "query($id: UUID!) { operation(id: $id) { status effect error { code message } } }";
            let now = self.client.ask(look, json!({ "id": id })).await["operation"].take();
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            match now["status"].as_str() {
                Some("SUCCEEDED") => return Ok(word(&now["effect"])),
                Some("FAILED") => return Err((word(&now["error"]["code"]), word(&now["error"]["message"]))),
                _ => assert!(Instant::now() < deadline, "{query}: still at {now}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_live(&self, mutation: &str, arguments: &str) {
        assert_eq!(self.change(mutation, arguments).await, Ok("LIVE".to_owned()), "{mutation}({arguments})");
    }

    async fn power(&self, vm: &str, mutation: &str) {
        let operation = self.client.change(mutation, vm).await;
        self.client.succeeded(&operation, SOON).await;
    }

    /// Waits until a line run in the guest prints this.
    async fn guest_sees(&self, vm: &str, line: &str, expected: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let ran = self.client.shell(vm, line).await;
            let printed = ran["response"]["stdout"].as_str().unwrap_or_default().trim();
            if printed == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{line}: {ran}, not {expected}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What the condition says of changes that wait, once it says something or nothing, as wanted.
    async fn waits(&self, vm: &str, wanted: Option<&str>) {
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.client.vm(vm).await;
            let mut conditions = now["conditions"].as_array().unwrap().iter();
            let found = conditions.find(|condition| condition["type"] == "RESTART_REQUIRED");
            let words = found.map(|condition| condition["message"].as_str().unwrap());
            match (words, wanted) {
                (None, None) => return,
                (Some(words), Some(wanted)) if words.contains(wanted) => return,
                _ => assert!(Instant::now() < deadline, "waiting for {wanted:?}: {words:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn made_of(&self, vm: &str) -> Value {
        const LOOK: &str = "query($id: UUID!) { vm(id: $id) { diskBytes disks { target bytes }
            media { target volume } interfaces { mac network bridge } } }";
        self.client.ask(LOOK, json!({ "id": vm })).await["vm"].take()
    }

    /// What libvirt has in the running domain's drive or disk; `-` for nothing.
    fn block(&self, target: &str) -> Option<String> {
        let list = virsh(&["domblklist", &self.name]);
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(target))?;
        line.split_whitespace().nth(1).map(str::to_owned)
    }

    fn nothing_is_left(&self, vm: &str, before: &[PathBuf]) {
        assert!(!host::domain_exists(vm), "the domain is left");
        assert_eq!(self.pool.volumes(), before);
        for dir in [
            self.home.socket_dir(),
            self.home.state_dir().join("seeds"),
            self.home.state_dir().join("console"),
        ] {
            assert_eq!(host::files_in(&dir), Vec::<PathBuf>::new(), "left in {}", dir.display());
        }
    }
}

/// A network of the story's own, without addresses.
struct Network(String);

impl Network {
    fn new(home: &Path) -> Self {
        let name = format!("st{}", std::process::id());
        let file = home.join("network.xml");
        std::fs::write(&file, format!("<network><name>{name}</name><bridge name='{name}'/></network>"))
            .unwrap();
        virsh(&["net-create", file.to_str().unwrap()]);
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("virsh").args(["-q", "-c", "qemu:///system", "net-destroy", &self.0]).status();
    }
}

fn virtual_size(disk: &Path) -> u64 {
    let told = Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(disk).output().unwrap();
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    told["virtual-size"].as_u64().unwrap()
}

/// What a disc begins with, as far as anybody looks.
fn disc() -> Vec<u8> {
    let mut disc = vec![0; 64 << 10];
    disc[0x8001..0x8006].copy_from_slice(b"CD001");
    disc
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_disks_cards_and_media_and_gives_them_back() {
    host::need_image("pocket");
    let stage = Stage::set("devices", host::test_images());
    let (pool, client) = (&stage.pool, &stage.client);
    for name in ["one.iso", "two.iso"] {
        std::fs::write(pool.dir.join(name), disc()).unwrap();
    }
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(pool.dir.join("no.iso"))
        .arg("1M")
        .status();
    assert!(made.unwrap().success());
    let before = pool.volumes();
    let network = Network::new(stage.home.path());
    let (vm, create) = client.create(stage.request("pocket")).await;
    client.succeeded(&create, READY).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    let id = format!("id: \"{vm}\"");

    // Disks: a new one, and both larger while the guest looks on.
    stage.is_live("attachVmDisk", &format!("{id}, bytes: {}", 8 * MIB)).await;
    stage.guest_sees(&vm, "cat /sys/block/vdb/size", "16384").await;
    stage.is_live("growVmDisk", &format!("{id}, target: \"vdb\", bytes: {}", 16 * MIB)).await;
    stage.guest_sees(&vm, "cat /sys/block/vdb/size", "32768").await;
    stage.is_live("growVmDisk", &format!("{id}, bytes: {}", 24 * MIB)).await;
    stage.guest_sees(&vm, "cat /sys/block/vda/size", "49152").await;
    let root = pool.dir.join(format!("infinibay-{vm}.qcow2"));
    assert_eq!(virtual_size(&root), 24 * MIB);
    let now = stage.made_of(&vm).await;
    let vdb = json!({ "target": "vdb", "bytes": (16 * MIB).to_string() });
    assert_eq!((&now["diskBytes"], &now["disks"][1]), (&json!((24 * MIB).to_string()), &vdb));
    stage.waits(&vm, None).await;

    // Cards, on a network and on a bridge.
    stage.is_live("attachVmInterface", &format!("{id}, network: \"{}\"", network.0)).await;
    stage.guest_sees(&vm, "ls /sys/class/net | grep -c eth", "1").await;
    stage.is_live("attachVmInterface", &format!("{id}, bridge: \"{}\"", network.0)).await;
    stage.guest_sees(&vm, "ls /sys/class/net | grep -c eth", "2").await;
    let now = stage.made_of(&vm).await;
    let cards = now["interfaces"].as_array().unwrap();
    assert_eq!((&cards[0]["network"], &cards[1]["bridge"]), (&json!(network.0), &json!(network.0)));
    for card in cards {
        let mac = card["mac"].as_str().unwrap();
        assert!(virsh(&["domiflist", &stage.name]).contains(mac));
        stage.is_live("detachVmInterface", &format!("{id}, mac: \"{mac}\"")).await;
    }
    stage.guest_sees(&vm, "ls /sys/class/net | grep -c eth", "0").await;

    // Media: a drive comes with the next start; in it, media come and go.
    let medium = |volume: &str| format!("{id}, pool: \"{}\", volume: \"{volume}\"", pool.name);
    let query = format!("mutation {{ insertVmMedium({}) {{ operation {{ id }} }} }}", medium("no.iso"));
    let refused = client.refused(&query, json!({})).await;
    assert_eq!(refused, "INVALID_INPUT", "a disk that is called .iso is no medium");
    assert_eq!(stage.change("insertVmMedium", &medium("one.iso")).await, Ok("NEXT_BOOT".to_owned()));
    stage.waits(&vm, Some("drive sda comes")).await;
    // Sizes: what has no room waits for the next start, too.
    assert_eq!(
        stage.change("resizeVm", &format!("{id}, vcpus: 2, memoryMib: 224")).await,
        Ok("NEXT_BOOT".to_owned())
    );
    stage.waits(&vm, Some("2 virtual processors (now 1); 224 MiB of memory (now 192)")).await;
    stage.power(&vm, "stopVm").await;
    stage.is_live("growVmDisk", &format!("{id}, target: \"vdb\", bytes: {}", 20 * MIB)).await;
    stage.power(&vm, "startVm").await;
    client.agent_is(&vm, "ONLINE", READY).await;
    stage.waits(&vm, None).await;
    stage.guest_sees(&vm, "grep -c ^processor /proc/cpuinfo", "2").await;
    stage.guest_sees(&vm, "cat /sys/block/vdb/size", "40960").await;
    let path = |name: &str| Some(pool.dir.join(name).display().to_string());
    assert_eq!(stage.block("sda"), path("one.iso"));
    stage.is_live("insertVmMedium", &format!("{}, target: \"sda\"", medium("two.iso"))).await;
    assert_eq!(stage.block("sda"), path("two.iso"));
    assert_eq!(stage.made_of(&vm).await["media"], json!([{ "target": "sda", "volume": "two.iso" }]));
    stage.is_live("ejectVmMedium", &format!("{id}, target: \"sda\"")).await;
    assert_eq!(stage.block("sda").as_deref(), Some("-"));
    stage.is_live("insertVmMedium", &medium("one.iso")).await;
    assert_eq!(stage.block("sda"), path("one.iso"), "the empty drive is used again");
    // This guest has no driver that gives memory away.
    assert_eq!(stage.change("resizeVm", &format!("{id}, memoryMib: 192")).await, Ok("NEXT_BOOT".to_owned()));
    stage.waits(&vm, Some("192 MiB of memory (now 224)")).await;

    // Back: one disk with its volume, another without.
    stage.is_live("attachVmDisk", &format!("{id}, bytes: {MIB}")).await;
    assert_eq!(pool.volumes().len(), before.len() + 3);
    stage.is_live("detachVmDisk", &format!("{id}, target: \"vdb\", deleteVolume: true")).await;
    assert_eq!(pool.volumes().len(), before.len() + 2);
    stage.guest_sees(&vm, "ls /sys/block | grep -c vd", "2").await;
    stage.is_live("detachVmDisk", &format!("{id}, target: \"vdc\"")).await;
    assert_eq!(pool.volumes().len(), before.len() + 2, "a volume that is kept stays until the VM goes");
    stage.guest_sees(&vm, "ls /sys/block | grep -c vd", "1").await;

    stage.power(&vm, "deleteVm").await;
    stage.nothing_is_left(&vm, &before);
    stage.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_listen_keeps_its_disk_and_a_killed_daemon_doubles_nothing() {
    let library = tempfile::Builder::new().prefix("infinibay-story-").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(library.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    image(&library.path().join("blank"), &Blank { provisioning: "cloud-init", ..Blank::default() });
    let mut stage = Stage::set("clinging", library.path().to_owned());
    std::fs::write(stage.pool.dir.join("one.iso"), disc()).unwrap();
    let before = stage.pool.volumes();
    let (vm, _) = stage.client.create(stage.request("blank")).await;
    stage.client.phase_is(&vm, "INSTALLING", SOON).await;
    let id = format!("id: \"{vm}\"");

    // Killed as soon as the request is accepted: the next daemon makes one disk of it.
    let attach = format!("mutation {{ attachVmDisk({id}, bytes: {MIB}) {{ operation {{ id }} }} }}");
    let asked = stage.client.ask(&attach, json!({})).await;
    let operation = asked["attachVmDisk"]["operation"]["id"].as_str().unwrap();
    stage.home.between(&mut stage.daemon, |_| ());
    stage.client = stage.daemon.client(&stage.token);
    stage.client.succeeded(operation, SOON).await;
    assert_eq!(stage.pool.volumes().len(), before.len() + 2);
    assert_eq!(virsh(&["domblklist", &stage.name]).matches("vd").count(), 2);

    // A domain with virtio-scsi gets a drive while it runs, beside the one with its seed.
    let medium = format!("{id}, pool: \"{}\", volume: \"one.iso\"", stage.pool.name);
    stage.is_live("insertVmMedium", &medium).await;
    let seed = stage.block("sda").expect("the seed's drive");
    assert!(seed.ends_with(".iso") && seed != stage.block("sdb").unwrap(), "{seed}");
    let (code, words) =
        stage.change("insertVmMedium", &format!("{medium}, target: \"sda\"")).await.unwrap_err();
    assert_eq!(code, "WRONG_STATE", "{words}");

    // Firmware lets go of nothing.
    let detach = format!("{id}, target: \"vdb\", deleteVolume: true");
    let (code, words) = stage.change("detachVmDisk", &detach).await.unwrap_err();
    assert_eq!(code, "CHANGE_TIMEOUT");
    assert!(words.contains("the guest does not let go of disk vdb"), "{words}");
    assert_eq!(stage.pool.volumes().len(), before.len() + 2, "its volume was removed under it");
    assert_eq!(stage.made_of(&vm).await["disks"][1]["target"], "vdb");
    let inactive = virsh(&["dumpxml", "--inactive", &stage.name]);
    assert!(inactive.contains("vdb"), "its configuration is as before");

    // Saved to disk, it goes on as it was saved: what it stands on stays as it is.
    virsh(&["managedsave", &stage.name]);
    stage.client.phase_is(&vm, "SAVED", SOON).await;
    for (mutation, arguments) in [
        ("detachVmDisk", detach.clone()),
        ("growVmDisk", format!("{id}, target: \"vdb\", bytes: {}", 2 * MIB)),
    ] {
        let (code, words) = stage.change(mutation, &arguments).await.unwrap_err();
        assert_eq!(code, "WRONG_STATE", "{mutation}: {words}");
    }
    assert_eq!(stage.change("resizeVm", &format!("{id}, vcpus: 2")).await, Ok("NEXT_BOOT".to_owned()));
    stage.waits(&vm, None).await;
    stage.power(&vm, "startVm").await;
    stage.waits(&vm, Some("2 virtual processors (now 1)")).await;

    let stop = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";
    let stopped = stage.client.ask(stop, json!({ "id": vm })).await;
    stage.client.succeeded(stopped["stopVm"]["operation"]["id"].as_str().unwrap(), SOON).await;
    // A snapshot may go back to a VM with this disk.
    virsh(&[
        "snapshot-create-as",
        &stage.name,
        "one",
        "--diskspec",
        "sda,snapshot=no",
        "--diskspec",
        "sdb,snapshot=no",
    ]);
    let (code, words) = stage.change("detachVmDisk", &detach).await.unwrap_err();
    assert!(code == "WRONG_STATE" && words.contains("snapshot"), "{code}: {words}");
    virsh(&["snapshot-delete", &stage.name, "one"]);
    stage.is_live("detachVmDisk", &detach).await;
    assert_eq!(stage.pool.volumes().len(), before.len() + 1);
    stage.power(&vm, "deleteVm").await;
    stage.nothing_is_left(&vm, &before);
    stage.daemon.stop();
}
