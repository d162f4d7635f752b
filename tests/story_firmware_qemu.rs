//! UEFI, secure boot and a TPM on real QEMU: what was asked for is what the guest finds, and of no kind
//! of VM is anything left on the host when it is deleted.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use infinibay::{
    domain_xml::{DomainInputs, DomainKind, Templates, render},
    vm::{Firmware, VmId, VmSpec},
};
use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup, wait},
    guests::Places,
    host::{self, DomainGuard, Pool},
    inventory::{Inventory, Survey},
    sample,
};

/// Software emulation takes its time over firmware.
const READY: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(120);
const RENAME: &str =
    "mutation($id: UUID!, $name: String!) { renameVm(id: $id, name: $name) { operation { id } } }";
const SNAPSHOT: &str =
    "mutation($id: UUID!, $name: String!) { createVmSnapshot(id: $id, name: $name) { operation { id } } }";
const REVERT: &str =
    "mutation($id: UUID!, $name: String!) { revertVmSnapshot(id: $id, name: $name) { operation { id } } }";

struct Stage {
    home: Home,
    pool: Pool,
}

impl Stage {
    fn inventory(&self, vm: &str, names: &[&str]) -> Inventory {
        Survey::of(&self.home, &self.pool).with_vm(vm, names).take()
    }
}

async fn asked(client: &Client, mutation: &str, vm: &str) {
    let operation = client.change(mutation, vm).await;
    client.succeeded(&operation, READY).await;
}

async fn ask(client: &Client, mutation: &str, vm: &str, name: &str) -> String {
    let asked = client.ask(mutation, json!({ "id": vm, "name": name })).await;
    let payload = asked.as_object().unwrap().values().next().unwrap();
    payload["operation"]["id"].as_str().unwrap().to_owned()
}

async fn ended(client: &Client, operation: &str) -> Value {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let now = client.operation(operation).await;
        if !matches!(now["status"].as_str(), Some("PENDING" | "RUNNING")) {
            return now;
        }
        assert!(tokio::time::Instant::now() < deadline, "{now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn shell(client: &Client, vm: &str, line: &str) -> String {
    let told = client.shell(vm, line).await;
    assert_eq!(told["success"], true, "{line}: {told}");
    told["response"]["stdout"].as_str().unwrap().trim().to_owned()
}

/// What the guest finds itself on is what was asked for.
async fn finds(client: &Client, vm: &str, firmware: &str, tpm: bool) {
    let shown = client.ask("query($id: UUID!) { vm(id: $id) { firmware tpm } }", json!({ "id": vm })).await;
    assert_eq!(shown["vm"], json!({ "firmware": firmware, "tpm": tpm }));
    let efi = shell(client, vm, "test -d /sys/firmware/efi && echo efi || echo bios").await;
    assert_eq!(efi, if firmware == "BIOS" { "bios" } else { "efi" });
    let told = shell(client, vm, "dmesg | grep -iE 'secure boot|TPM2|secureboot' || true").await;
    assert_eq!(told.contains("Secure boot enabled"), firmware == "UEFI_SECURE_BOOT", "{told}");
    assert_eq!(told.contains("ACPI: TPM2"), tpm, "{told}");
}

async fn lives_and_leaves_nothing(stage: &Stage, client: &Client, firmware: &str, tpm: bool) {
    let vm = uuid::Uuid::new_v4().to_string();
    let name = format!("story-firmware-{}", &vm[..8]);
    let new_name = format!("{name}-b");
    let _guards = (DomainGuard(name.clone()), DomainGuard(new_name.clone()));
    let names = [name.as_str(), &new_name];
    let before = stage.inventory(&vm, &names);
    let input = json!({
        "id": vm, "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 256, "pool": stage.pool.name,
        "network": "none", "firmware": firmware, "tpm": tpm,
    });
    let begun = std::time::Instant::now();
    let (_, create) = client.create(input).await;
    client.succeeded(&create, READY).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    println!("{firmware}, TPM {tpm}: ready after {:?}", begun.elapsed());
    finds(client, &vm, firmware, tpm).await;
    let during = stage.inventory(&vm, &names);
    let holds = |part: &str| during.iter().any(|line| line.contains(part));
    assert_eq!(holds("/nvram/"), firmware != "BIOS", "{during:?}");
    assert_eq!(holds("/lib/libvirt/swtpm/"), tpm, "{during:?}");
    assert_eq!(holds("process swtpm"), tpm, "{during:?}");

    // QEMU keeps no snapshot of a running VM whose firmware's variables are in a raw file.
    if firmware == "BIOS" {
        let taken = ended(client, &ask(client, SNAPSHOT, &vm, "running").await).await;
        assert_eq!(taken["status"], "SUCCEEDED", "{taken}");
    } else {
        assert_eq!(
            client.refused(SNAPSHOT, json!({ "id": vm, "name": "running" })).await,
            "SNAPSHOT_UNSUPPORTED"
        );
    }

    // Its memory, and its TPM's, come back.
    let boot = shell(client, &vm, "cat /proc/sys/kernel/random/boot_id").await;
    asked(client, "saveVm", &vm).await;
    client.phase_is(&vm, "SAVED", SOON).await;
    asked(client, "startVm", &vm).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    assert_eq!(shell(client, &vm, "cat /proc/sys/kernel/random/boot_id").await, boot);

    let stop = client.change("stopVm", &vm).await;
    client.succeeded(&stop, READY).await;
    if firmware != "BIOS" {
        let rename = ask(client, RENAME, &vm, &new_name).await;
        client.succeeded(&rename, SOON).await;
    }
    let off = ask(client, SNAPSHOT, &vm, "off").await;
    client.succeeded(&off, SOON).await;
    let revert = ask(client, REVERT, &vm, "off").await;
    client.succeeded(&revert, SOON).await;
    asked(client, "startVm", &vm).await;
    client.agent_is(&vm, "ONLINE", READY).await;
    finds(client, &vm, firmware, tpm).await;
    asked(client, "saveVm", &vm).await;
    client.phase_is(&vm, "SAVED", SOON).await;

    // With saved memory and snapshots.
    asked(client, "deleteVm", &vm).await;
    assert_eq!(stage.inventory(&vm, &names), before, "something is left of a VM with {firmware}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_there_and_nothing_is_left() {
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
    let daemon = home.start();
    let client = daemon.client(&token);
    let stage = Stage { home, pool };
    let told = client.ask("{ host { firmware tpm } }", json!({})).await;
    let all = json!({ "firmware": ["BIOS", "UEFI", "UEFI_SECURE_BOOT"], "tpm": true });
    assert_eq!(told["host"], all, "ovmf, swtpm and swtpm-tools are needed; scripts/test installs them");
    for (firmware, tpm) in [("BIOS", false), ("UEFI", true), ("UEFI_SECURE_BOOT", true)] {
        lives_and_leaves_nothing(&stage, &client, firmware, tpm).await;
    }
}

/// What the firmware of a machine of ours says, until it has said one of `words`, when its disk holds a
/// program that is signed by none of those it trusts: a directory that QEMU shows as a disk.
fn firmware_says(firmware: Firmware, dir: &Path, words: [&str; 2]) -> String {
    let id = VmId::generate();
    let name = format!("story-firmware-{id}");
    let spec = VmSpec { firmware, vcpus: 1, memory_mib: 256, ..sample::spec(&name) };
    let (disk, console) = (dir.join("disk"), dir.join(format!("{id}.log")));
    let inputs = DomainInputs {
        id,
        spec: &spec,
        kind: DomainKind::Qemu,
        disk_path: &disk,
        seed_path: None,
        socket_path: &dir.join("agent.sock"),
        console_log: Some(&console),
        installer: None,
    };
    let xml = render(&Templates::load(None).unwrap(), &inputs).unwrap();
    let rendered = xml.split_once("<disk ").and_then(|(_, rest)| rest.split_once("</disk>")).unwrap().0;
    let directory = format!(
        "type='dir' device='disk'><driver name='qemu' type='fat'/><source dir='{}'/>\
         <target dev='vda' bus='virtio'/><readonly/>",
        disk.display()
    );
    let file = dir.join("domain.xml");
    fs::write(&file, xml.replace(rendered, &directory)).unwrap();
    let _guard = DomainGuard(name);
    host::virsh(&["define", "--validate", file.to_str().unwrap()]);
    host::virsh(&["start", &id.to_string()]);
    wait("the firmware to have tried the disk", SOON, || {
        let said = String::from_utf8_lossy(&fs::read(&console).unwrap()).into_owned();
        words.iter().any(|word| said.contains(word)).then_some(said)
    })
}

#[test]
fn secure_boot_starts_nothing_that_is_not_signed() {
    host::need_image("pocket");
    let image = host::test_images().join("pocket");
    let manifest = fs::read_to_string(image.join("manifest.toml")).unwrap();
    let kernel = manifest.lines().find_map(|line| line.strip_prefix("kernel = \"")).unwrap();
    // Below a directory that QEMU's user passes through.
    let dir = tempfile::Builder::new().prefix("infinibay-story-").tempdir_in("/var/tmp").unwrap();
    fs::create_dir_all(dir.path().join("disk/EFI/BOOT")).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    // Linux is a program for UEFI too; Debian signs it with a key of its own.
    let program = dir.path().join("disk/EFI/BOOT/BOOTX64.EFI");
    fs::copy(image.join(kernel.trim_end_matches('"')), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o644)).unwrap();

    let _place = Places::take(1);
    let (started, refused) = ("BdsDxe: starting Boot", "Access Denied");
    let said = firmware_says(Firmware::Uefi, dir.path(), [started, refused]);
    assert!(said.contains(started) && !said.contains(refused), "{said}");
    let said = firmware_says(Firmware::UefiSecureBoot, dir.path(), [started, refused]);
    assert!(said.contains(refused), "{said}");
}
