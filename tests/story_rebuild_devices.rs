//! The database is lost, and with it nothing that is plugged in: a VM with UEFI and a TPM, its copy and
//! an adopted domain are shown as before, let go of what they have, keep a disc from being deleted, and
//! leave nothing.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup, operation_in, wait},
    host::{self, DomainGuard, Pool, virsh},
};

/// Software emulation takes its time over firmware.
const READY: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const SHOWN: &str = "query($id: UUID!) {
    vm(id: $id) { name image ownerId createdAt installedAt phase power vcpus memoryMib diskBytes pool network
        firmware tpm adopted clonedFrom autostart policy { onPowerOff onCrash } macAddresses
        disks { target bytes pool } media { target medium pool volume } interfaces { mac network bridge } }
    vmSnapshots(vmId: $id) { name description parent current state createdAt } }";
const DELETE: &str = "mutation($name: String!) { deleteMedium(name: $name) { state } }";
const DETACH: &str = "mutation($id: UUID!, $target: String!, $delete: Boolean!) {
    detachVmDisk(id: $id, target: $target, deleteVolume: $delete) { operation { id } } }";

/// A network of the story's own, without addresses, whose bridge is called as it is.
struct Network(String);

impl Network {
    fn new(home: &Path) -> Self {
        let name = format!("rb{}", std::process::id());
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

/// A disc in a directory, to be imported.
fn disc(dir: &Path) -> PathBuf {
    std::fs::create_dir(dir.join("tree")).unwrap();
    std::fs::write(dir.join("tree/words"), "words").unwrap();
    let (iso, tree) = (dir.join("rescue.iso"), dir.join("tree"));
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-V", "RESCUE", "-o"])
        .args([&iso, &tree])
        .status()
        .expect("xorriso is needed; scripts/test installs it");
    assert!(made.success());
    iso
}

async fn shown(client: &Client, vm: &str) -> Value {
    client.ask(SHOWN, json!({ "id": vm })).await
}

/// One change of a VM by its arguments, carried out.
async fn done(client: &Client, mutation: &str, arguments: &str) {
    let query = format!("mutation {{ {mutation}({arguments}) {{ operation {{ id }} }} }}");
    let deadline = std::time::Instant::now() + SOON;
    let data = loop {
        let mut answer = client.send(&query, json!({})).await;
        if answer.get("errors").is_none() {
            break answer["data"].take();
        }
        // A VM that was copied is lent for a moment longer.
        let busy = answer["errors"][0]["extensions"]["code"] == "VM_BUSY";
        assert!(busy && std::time::Instant::now() < deadline, "{query}: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    client.succeeded(&operation_in(&data), READY).await;
}

async fn detached(client: &Client, vm: &str, target: &str, delete: bool) {
    client.done(DETACH, json!({ "id": vm, "target": target, "delete": delete })).await;
}

/// Waits until the domain is told all of this about itself.
fn noted(name: &str, words: &[String]) {
    let told = || {
        let text = virsh(&["metadata", name, "--uri", "urn:infinibay:domain"]);
        words.iter().all(|word| text.contains(word)).then_some(())
    };
    wait(&format!("the domain {name} to be told {words:?}"), SOON, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_plugged_in_outlives_the_database() {
    host::need_image("pocket");
    let incoming = tempfile::tempdir().unwrap();
    let iso = disc(incoming.path());
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![("INFINIBAY__MEDIA__IMPORT_DIRS".to_owned(), incoming.path().display().to_string())],
    });
    let pool = Pool::new(home.path());
    let network = Network::new(home.path());
    let name = |what: &str| format!("story-rebuilt-{what}-{}", std::process::id());
    let names = ["vm", "copy", "theirs"].map(name);
    let _guards = names.clone().map(DomainGuard);
    let token = home.admin();
    let daemon = home.start();
    let client = daemon.client(&token);

    // The library, and somebody else's domain with a drive.
    let input = json!({ "input": { "name": "rescue", "kind": "INSTALLATION", "path": iso } });
    client.ask("mutation($input: ImportMediumInput!) { importMedium(input: $input) { id } }", input).await;
    let disc = "{ medium(name: \"rescue\") { state sha256 useCount bytesDone facts { label } } }";
    let deadline = std::time::Instant::now() + SOON;
    while client.ask(disc, json!({})).await["medium"]["state"] != "READY" {
        assert!(std::time::Instant::now() < deadline, "the disc is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let theirs = uuid::Uuid::new_v4().to_string();
    let xml = format!(
        "<domain type='qemu'><name>{}</name><uuid>{theirs}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices><controller type='usb' model='none'/>
         <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk></devices></domain>",
        names[2]
    );
    let file = home.path().join("theirs.xml");
    std::fs::write(&file, xml).unwrap();
    virsh(&["define", file.to_str().unwrap()]);
    let before = virsh(&["dumpxml", "--inactive", &names[2]]);

    // A VM of everything.
    let (vm, create) = client
        .create(json!({
            "name": names[0], "image": "pocket", "vcpus": 1, "memoryMib": 256, "pool": pool.name,
            "network": network.0, "firmware": "UEFI", "tpm": true,
        }))
        .await;
    client.succeeded(&create, READY).await;
    let stop = client.change("stopVm", &vm).await;
    client.succeeded(&stop, READY).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    let id = format!("id: \"{vm}\"");
    for (mutation, arguments) in [
        ("attachVmDisk", format!("bytes: {}", 8 * MIB)),
        ("attachVmDisk", format!("bytes: {}", 2 * MIB)),
        ("growVmDisk", format!("target: \"vdb\", bytes: {}", 16 * MIB)),
        ("attachVmInterface", format!("network: \"{}\"", network.0)),
        ("attachVmInterface", format!("bridge: \"{}\"", network.0)),
        ("insertVmMedium", "medium: \"rescue\"".to_owned()),
        ("setVmAutostart", "autostart: true".to_owned()),
        ("setVmPolicy", "onCrash: RESTART, onPowerOff: CORRECT".to_owned()),
    ] {
        done(&client, mutation, &format!("{id}, {arguments}")).await;
    }
    // One that is kept after it was taken out goes with the VM.
    detached(&client, &vm, "vdc", false).await;
    let clone = "mutation($id: UUID!, $input: CloneVmInput!) { cloneVm(id: $id, input: $input) { vm { id } operation { id } } }";
    let asked = client.ask(clone, json!({ "id": vm, "input": { "name": names[1] } })).await;
    client.succeeded(&operation_in(&asked), READY).await;
    let copy = asked["cloneVm"]["vm"]["id"].as_str().unwrap().to_owned();
    done(&client, "createVmSnapshot", &format!("{id}, name: \"first\", description: \"as it was\"")).await;
    done(&client, "createVmSnapshot", &format!("{id}, name: \"second\"")).await;
    let adopt = "mutation($id: UUID!) { adoptDomain(uuid: $id) { operation { id } } }";
    client.done(adopt, json!({ "id": theirs })).await;
    let their_id = format!("id: \"{theirs}\"");
    done(&client, "attachVmDisk", &format!("{their_id}, pool: \"{}\", bytes: {MIB}", pool.name)).await;
    done(&client, "insertVmMedium", &format!("{their_id}, medium: \"rescue\"")).await;

    let all = [&vm, &copy, &theirs];
    let mut then = Vec::new();
    for vm in all {
        client.phase_is(vm, "STOPPED", SOON).await;
        then.push(shown(&client, vm).await);
    }
    let counts =
        |what: &str| then.iter().map(|it| it["vm"][what].as_array().unwrap().len()).collect::<Vec<_>>();
    assert_eq!((counts("disks"), counts("media")), (vec![2, 2, 2], vec![1, 0, 1]), "{then:?}");
    assert_eq!(then[0]["vmSnapshots"].as_array().unwrap().len(), 2);
    let the_disc = client.ask(disc, json!({})).await;
    assert_eq!(the_disc["medium"]["useCount"], 2);
    for (name, id) in names.iter().zip(all) {
        let volumes: Vec<_> = pool.volumes().iter().map(|path| path.display().to_string()).collect();
        let of_it = volumes.iter().filter(|path| path.contains(id.as_str()));
        let mut words: Vec<_> = of_it.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
        words.extend((name == &names[0]).then(|| "\"autostart\":true".to_owned()));
        noted(name, &words);
    }
    daemon.kill();

    // All rows are gone, and those who had the VMs come back with them.
    for file in ["infinibay.db", "infinibay.db-wal", "infinibay.db-shm"] {
        let _ = std::fs::remove_file(home.state_dir().join(file));
    }
    // A disk whose pool is not there is no disk that can be forgotten.
    virsh(&["pool-destroy", &pool.name]);
    let without = home.command().args(["db", "rebuild", &names[0]]).output().unwrap();
    let words = String::from_utf8_lossy(&without.stdout).into_owned();
    assert!(!without.status.success() && words.contains("no active pool has its disk vdb"), "{words}");
    assert!(words.contains("disc rescue: in the library again"), "{words}");
    virsh(&["pool-create-as", &pool.name, "dir", "--target", pool.dir.to_str().unwrap()]);
    let told = home.run(&["db", "rebuild", &names[0], &names[1], &names[2]]);
    assert!(told.contains("3 restored, 0 could not be"), "{told}");
    let token = {
        home.run(&["user", "add", "second", "--admin", "--permission", "unsafe_commands"]);
        home.run(&["user", "token", "second"]).trim().to_owned()
    };
    let daemon = home.start();
    let client = daemon.client(&token);
    for (vm, then) in all.iter().zip(&then) {
        client.phase_is(vm, "STOPPED", SOON).await;
        let now = shown(&client, vm).await;
        assert_eq!(now, *then, "{now:#}\n is not as it was: \n{then:#}");
    }
    assert_eq!(client.ask(disc, json!({})).await, the_disc);
    assert_eq!(client.refused(DELETE, json!({ "name": "rescue" })).await, "MEDIUM_IN_USE");

    // Each lets go of what it has, as if nothing had been.
    detached(&client, &copy, "vdb", true).await;
    let target = then[2]["vm"]["disks"][1]["target"].as_str().unwrap();
    detached(&client, &theirs, target, true).await;
    detached(&client, &vm, "vdb", false).await;
    for card in then[0]["vm"]["interfaces"].as_array().unwrap() {
        done(&client, "detachVmInterface", &format!("{id}, mac: {}", card["mac"])).await;
    }
    done(&client, "ejectVmMedium", &format!("{id}, target: {}", then[0]["vm"]["media"][0]["target"])).await;
    assert_eq!(
        client.refused(DELETE, json!({ "name": "rescue" })).await,
        "MEDIUM_IN_USE",
        "one has it still"
    );
    done(&client, "ejectVmMedium", &format!("{their_id}, target: \"sda\"")).await;
    client.ask(DELETE, json!({ "name": "rescue" })).await;
    for vm in [&vm, &copy] {
        let delete = client.change("deleteVm", vm).await;
        client.succeeded(&delete, SOON).await;
        assert!(!host::domain_exists(vm), "the domain is left");
    }
    let release = client.change("releaseDomain", &theirs).await;
    client.succeeded(&release, SOON).await;
    let after = virsh(&["dumpxml", "--inactive", &names[2]]);
    assert!(!after.contains("infinibay"), "{after}");
    assert_eq!(after.matches("<disk ").count(), before.matches("<disk ").count(), "{after}");
    let discs = home.state_dir().join("media");
    wait("the disc to go", SOON, || host::files_in(&discs).is_empty().then_some(()));
    for dir in [
        pool.dir.clone(),
        home.socket_dir(),
        home.state_dir().join("seeds"),
        home.state_dir().join("console"),
    ] {
        assert_eq!(host::files_in(&dir), Vec::<PathBuf>::new(), "left in {}", dir.display());
    }
    for root in ["/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/swtpm"] {
        let left: Vec<_> = host::files_in(Path::new(root))
            .into_iter()
            .filter(|path| {
                let file = path.file_name().unwrap().to_string_lossy().into_owned();
                [&vm, &copy, &names[0], &names[1]].iter().any(|of| file.contains(of.as_str()))
            })
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "left in {root}");
    }
    daemon.stop();
}
