//! What metadata may say, and what it may not.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::{
    domain_xml::{Note, find_note, put_note, read_facts},
    vm::{
        Base, DomainFacts, Firmware, Image, ImageFormat, NetworkAttachment, OsFamily, Provisioning,
        Unattended, VmSpec,
    },
};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn noted(id: VmId) -> Value {
    let spec = VmSpec {
        devices: crate::vm::Plugged::default(),
        keeping: crate::vm::PowerKeeping::default(),
        name: "lost".parse().unwrap(),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian".parse().unwrap(),
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: PathBuf::from("/etc/shadow"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 1 << 30,
            sha256: "ab".repeat(32),
            kernel: None,
        }),
        vcpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        pool: "default".parse().unwrap(),
        network: NetworkAttachment::None,
        unattended: Unattended::default(),
        origin: Origin::Created,
    };
    let resource = |kind, place: &str, name: String| NotedResource { kind, place: place.to_owned(), name };
    let note = VmNote {
        host: HostId::generate(),
        owner: UserId::generate(),
        owner_name: "ana".to_owned(),
        spec,
        created_at: now(),
        installed_at: Some(now()),
        seed_scrubbed_at: None,
        resources: vec![
            resource(ResourceKind::Volume, "default", format!("infinibay-{id}.qcow2")),
            resource(ResourceKind::Seed, "/state/seeds", format!("vm-{id}.iso")),
            resource(ResourceKind::ConsoleLog, "/state/console", format!("vm-{id}.log")),
        ],
    };
    serde_json::to_value(note).unwrap()
}

fn restored(id: VmId, carrier: VmId, note: &Value) -> Result<(FoundVm, NotedOwner), String> {
    let xml = format!("<domain><name>lost</name><uuid>{carrier}</uuid></domain>");
    let note = Note { digest: "d".to_owned(), text: note.to_string() };
    let xml = put_note(&xml, id, &note).unwrap();
    let about = read_facts(&xml).unwrap().about;
    let facts = DomainFacts {
        managed_save: false,
        waiting: Vec::new(),
        name: "lost".to_owned(),
        state: DomainState::Running,
        reason: 1,
        persistent: true,
        channel: None,
        interfaces: Vec::new(),
        about,
    };
    let found = find_note(&xml).unwrap().unwrap();
    let domain = DomainDescription { facts, note: Some(found.clone()) };
    let places = Places {
        seeds_dir: Path::new("/state/seeds"),
        console_dir: Path::new("/state/console"),
        discs_dir: Path::new("/state/media"),
    };
    noted_vm(carrier, &domain, &found, HostId::generate(), places, now())
}

#[test]
fn a_vm_comes_back_with_all_that_is_its_own() {
    let id = VmId::generate();
    let (found, owner) = restored(id, id, &noted(id)).unwrap();
    assert_eq!(found.resources.len(), 3);
    assert_eq!((found.power, owner.name.as_str()), (DesiredPower::Running, "ana"));
    assert_eq!(found.vm.spec.image().unwrap().disk, PathBuf::new(), "a path out of metadata was taken");
    assert!(found.milestones.installed.is_some() && found.milestones.seed_written.is_some());
}

#[test]
fn an_installers_files_are_its_own_too() {
    let id = VmId::generate();
    for ending in ["iso", "kernel", "initrd"] {
        let mut note = noted(id);
        note["resources"][1]["name"] = json!(format!("vm-{id}.{ending}"));
        assert!(restored(id, id, &note).is_ok(), "{ending}");
    }
}

#[test]
fn hostile_metadata_is_refused_with_the_reason() {
    let id = VmId::generate();
    let other = VmId::generate();
    let cases: [(&str, Value, &str); 16] = [
        ("/resources/0/name", json!(format!("infinibay-{other}.qcow2")), "not this VM's"),
        ("/resources/0/name", json!(format!("infinibay-{id}0.qcow2")), "not this VM's"),
        ("/resources/0/name", json!(format!("infinibay-{id}-/../x")), "not this VM's"),
        ("/resources/0/place", json!("../pool"), "not this VM's"),
        ("/resources/1/place", json!("/etc"), "not this VM's"),
        ("/resources/1/name", json!("../../etc/passwd"), "not this VM's"),
        ("/resources/1/name", json!(format!("vm-{id}.kernel.draft")), "not this VM's"),
        ("/resources/2/name", json!(format!("vm-{other}.log")), "not this VM's"),
        ("/resources/0/kind", json!("everything"), "cannot be read"),
        ("/spec/vcpus", json!(0), "vcpus"),
        ("/spec/pool", json!("a b"), "cannot be read"),
        ("/spec/devices/media", json!([{ "target": "sda", "medium": "../../etc/shadow" }]), "cannot be read"),
        ("/spec/unattended/user", json!("root; rm"), "user"),
        ("/spec/origin", json!({ "adopted": { "macs": [] } }), "contradicts"),
        ("/spec/image/description", json!("a\u{0}"), "description"),
        ("/owner", json!("00000000-0000-0000-0000-000000000000"), "nobody"),
    ];
    for (place, value, why) in cases {
        let mut note = noted(id);
        *note.pointer_mut(place).unwrap() = value.clone();
        let refused = restored(id, id, &note).expect_err(place);
        assert!(refused.contains(why), "{place} = {value}: {refused}");
    }
    assert!(restored(id, id, &json!("nothing")).unwrap_err().contains("cannot be read"));
    assert!(restored(other, id, &noted(other)).unwrap_err().contains("copy"));
}

#[test]
fn what_is_plugged_in_is_not_taken_from_metadata() {
    let (id, other) = (VmId::generate(), VmId::generate());
    let mut note = noted(id);
    note["spec"]["devices"]["disks"] = json!([
        { "target": "vdb", "pool": "default", "volume": format!("infinibay-{other}.qcow2"), "bytes": 1 }
    ]);
    let (found, _) = restored(id, id, &note).unwrap();
    assert_eq!(found.vm.spec.devices, Plugged::default());
    assert!(found.resources.iter().all(|resource| resource.name.contains(&id.to_string())));
}

#[test]
fn only_names_that_we_give_say_whose_a_volume_is() {
    let (id, other) = (VmId::generate(), VmId::generate());
    assert!(id.is_extra_disk(&id.extra_disk_name()));
    for name in [
        id.disk_name(),
        other.extra_disk_name(),
        format!("{}.snapshot", id.extra_disk_name()),
        format!("infinibay-{id}-0123456789AB.qcow2"),
        format!("infinibay-{id}-../etc/sha.qcow2"),
        format!("infinibay-{id}-.qcow2"),
        format!("x{}", id.extra_disk_name()),
    ] {
        assert!(!id.is_extra_disk(&name), "{name}");
    }
}

#[test]
fn secrets_and_times_to_come_are_not_taken() {
    let id = VmId::generate();
    let mut note = noted(id);
    note["spec"]["unattended"]["first_boot_commands"] = json!(["rm -rf /"]);
    note["installed_at"] = json!("2999-01-01T00:00:00Z");
    let (found, _) = restored(id, id, &note).unwrap();
    assert_eq!(found.vm.spec.unattended.first_boot_commands, Vec::<String>::new());
    assert_eq!(found.milestones.installed, Some(now()));
}
