//! A full copy on real QEMU: of a VM with a second disk and data on both, started beside it, and alive
//! after it is gone.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    collections::BTreeSet,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup},
    host::{self, DomainGuard, Pool, virsh},
};

const READY: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(120);
/// Bytes of a disk that takes its time to be copied.
const LARGE: u64 = 384 << 20;
const CLONE: &str = "mutation($id: UUID!, $input: CloneVmInput!) {
    cloneVm(id: $id, input: $input) { vm { id } operation { id kind vmId } } }";

/// A network of the story's own, without addresses.
struct Network(String);

impl Network {
    fn new(home: &Path) -> Self {
        let name = format!("cl{}", std::process::id());
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

/// Waits until a line run in the guest prints this.
async fn guest_sees(client: &Client, vm: &str, line: &str, expected: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let ran = client.shell(vm, line).await;
        if ran["response"]["stdout"].as_str().unwrap_or_default().trim() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{line}: {ran}, not {expected}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn macs(client: &Client, vm: &str) -> BTreeSet<String> {
    const LOOK: &str = "query($id: UUID!) { vm(id: $id) { macAddresses interfaces { mac } } }";
    let vm = client.ask(LOOK, json!({ "id": vm })).await["vm"].take();
    let of = |list: &Value| list.as_array().unwrap().clone();
    let cards = of(&vm["interfaces"]).into_iter().map(|mut card| card["mac"].take());
    cards.chain(of(&vm["macAddresses"])).map(|mac| mac.as_str().unwrap().to_owned()).collect()
}

/// The volume under each of the domain's disks.
fn disks(name: &str) -> Vec<(String, PathBuf)> {
    let list = virsh(&["domblklist", name]);
    let lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| words.len() == 2)
        .map(|words| (words[0].to_owned(), PathBuf::from(words[1])))
        .collect()
}

fn stands_on_nothing(disk: &Path) {
    let told = Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(disk).output().unwrap();
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["format"], told.get("backing-filename")), (&json!("qcow2"), None), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_data_and_nothing_else_of_the_one_it_was_made_of() {
    host::need_image("pocket");
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![],
    });
    let pool = Pool::new(home.path());
    let network = Network::new(home.path());
    let token = home.admin();
    let daemon = home.start();
    let client = daemon.client(&token);
    let name = |what: &str| format!("story-{what}-{}", std::process::id());
    let _guards = [DomainGuard(name("source")), DomainGuard(name("copy"))];
    let power = |mutation: &'static str, vm: String| {
        let client = client.clone();
        async move {
            let operation = client.change(mutation, &vm).await;
            client.succeeded(&operation, SOON).await;
        }
    };

    // A VM with marks on both of its disks.
    let request = json!({ "name": name("source"), "image": "pocket", "vcpus": 1, "memoryMib": 192,
        "pool": pool.name, "network": network.0 });
    let (source, create) = client.create(request).await;
    client.succeeded(&create, READY).await;
    for (asked, arguments) in [
        ("attachVmDisk", "bytes: 8388608".to_owned()),
        ("attachVmInterface", format!("network: \"{}\"", network.0)),
    ] {
        let query = format!("mutation {{ {asked}(id: \"{source}\", {arguments}) {{ operation {{ id }} }} }}");
        let asked_for = client.ask(&query, json!({})).await[asked]["operation"]["id"].take();
        client.succeeded(asked_for.as_str().unwrap(), SOON).await;
    }
    client.agent_is(&source, "ONLINE", SOON).await;
    for disk in ["vda", "vdb"] {
        let write = format!(
            "printf 'mark on {disk}' | dd of=/dev/{disk} bs=512 seek=4096 conv=notrunc 2>/dev/null && sync && echo written"
        );
        guest_sees(&client, &source, &write, "written").await;
    }

    // Not while it runs.
    let input = json!({ "name": name("copy") });
    let refused = client.refused(CLONE, json!({ "id": source, "input": input })).await;
    assert_eq!(refused, "WRONG_STATE");
    power("stopVm", source.clone()).await;
    client.phase_is(&source, "STOPPED", SOON).await;

    // A copy, off as it was asked for.
    let asked = client.ask(CLONE, json!({ "id": source, "input": input })).await["cloneVm"].take();
    let copy = asked["vm"]["id"].as_str().unwrap().to_owned();
    assert_eq!((&asked["operation"]["kind"], &asked["operation"]["vmId"]), (&json!("CLONE"), &json!(copy)));
    client.succeeded(asked["operation"]["id"].as_str().unwrap(), SOON).await;
    client.phase_is(&copy, "STOPPED", SOON).await;
    assert_eq!(host::domain_state(&copy).as_deref(), Some("shut off"));
    assert_eq!(pool.volumes().len(), 4, "{:?}", pool.volumes());
    let (theirs, ours) = (disks(&name("source")), disks(&name("copy")));
    assert_eq!(ours.iter().map(|(target, _)| target.as_str()).collect::<Vec<_>>(), ["vda", "vdb"]);
    for (_, disk) in &ours {
        assert!(theirs.iter().all(|(_, other)| other != disk), "{} is shared", disk.display());
        stands_on_nothing(disk);
    }

    // Both at once.
    for vm in [&source, &copy] {
        power("startVm", vm.clone()).await;
    }
    for vm in [&source, &copy] {
        client.agent_is(vm, "ONLINE", READY).await;
        client.phase_is(vm, "RUNNING", SOON).await;
    }
    let (of_source, of_copy) = (macs(&client, &source).await, macs(&client, &copy).await);
    assert_eq!((of_source.len(), of_copy.len()), (2, 2));
    assert!(of_copy.is_disjoint(&of_source), "{of_source:?} and {of_copy:?}");
    for disk in ["vda", "vdb"] {
        let read = format!("dd if=/dev/{disk} bs=512 skip=4096 count=1 2>/dev/null | head -c 11");
        guest_sees(&client, &copy, &read, &format!("mark on {disk}")).await;
    }

    // What becomes of the one is nothing to the other.
    power("deleteVm", source.clone()).await;
    assert!(!host::domain_exists(&source));
    guest_sees(
        &client,
        &copy,
        "dd if=/dev/vdb bs=512 skip=4096 count=1 2>/dev/null | head -c 11",
        "mark on vdb",
    )
    .await;
    power("stopVm", copy.clone()).await;
    power("startVm", copy.clone()).await;
    client.agent_is(&copy, "ONLINE", READY).await;
    power("deleteVm", copy.clone()).await;
    assert!(!host::domain_exists(&copy));
    assert_eq!(pool.volumes(), Vec::<PathBuf>::new());
    for dir in [home.socket_dir(), home.state_dir().join("seeds"), home.state_dir().join("console")] {
        assert_eq!(host::files_in(&dir), Vec::<PathBuf>::new(), "left in {}", dir.display());
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_crash_broke_off_is_made_anew() {
    host::need_image("pocket");
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![],
    });
    let pool = Pool::new(home.path());
    let token = home.admin();
    let mut daemon = home.start();
    let client = daemon.client(&token);
    let name = |what: &str| format!("story-{what}-{}", std::process::id());
    let _guards = [DomainGuard(name("large")), DomainGuard(name("anew"))];
    let request = json!({ "name": name("large"), "image": "pocket", "vcpus": 1, "memoryMib": 192,
        "pool": pool.name, "network": "none" });
    let (source, create) = client.create(request).await;
    client.succeeded(&create, READY).await;
    client.succeeded(&client.change("stopVm", &source).await, SOON).await;
    let query =
        format!("mutation {{ attachVmDisk(id: \"{source}\", bytes: {LARGE}) {{ operation {{ id }} }} }}");
    let asked = client.ask(&query, json!({})).await["attachVmDisk"]["operation"]["id"].take();
    client.succeeded(asked.as_str().unwrap(), SOON).await;
    client.phase_is(&source, "STOPPED", SOON).await;
    // Something that takes its time to be copied.
    let disk = disks(&name("large")).into_iter().find(|(target, _)| target == "vdb").unwrap().1;
    let raw = home.path().join("random");
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(LARGE);
    std::io::copy(&mut random, &mut std::fs::File::create(&raw).unwrap()).unwrap();
    let filled =
        Command::new("qemu-img").args(["convert", "-O", "qcow2", "-f", "raw"]).args([&raw, &disk]).status();
    assert!(filled.unwrap().success());
    std::fs::remove_file(raw).unwrap();

    let asked = client.ask(CLONE, json!({ "id": source, "input": { "name": name("anew") } })).await;
    let copy = asked["cloneVm"]["vm"]["id"].as_str().unwrap().to_owned();
    let operation = asked["cloneVm"]["operation"]["id"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + SOON;
    while pool.volumes().len() < 4 {
        assert!(Instant::now() < deadline, "the large disk is not copied: {:?}", pool.volumes());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let half = client.operation(&operation).await;
    home.between(&mut daemon, |_| ());
    let client = daemon.client(&token);
    client.succeeded(&operation, SOON).await;
    let ours = disks(&name("anew")).into_iter().find(|(target, _)| target == "vdb").unwrap().1;
    let same = Command::new("qemu-img").args(["compare", "-q"]).args([&disk, &ours]).status().unwrap();
    assert!(same.success(), "the copy differs; it stood at {half}");
    for vm in [&source, &copy] {
        client.succeeded(&client.change("startVm", vm).await, SOON).await;
        client.agent_is(vm, "ONLINE", READY).await;
        client.succeeded(&client.change("deleteVm", vm).await, SOON).await;
    }
    assert_eq!(pool.volumes(), Vec::<PathBuf>::new());
    daemon.stop();
}
