//! Well-formed nouns to tell stories with.
#![allow(dead_code)] // each story uses a part of it

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use infinibay::{
    store::{MediaBounds, MediumEnd, NewMedium, NewVm, Store},
    vm::{
        Base, Firmware, FrameText, HostId, Image, ImageFormat, Medium, MediumFacts, MediumId, MediumKind,
        MediumSource, MetricsSample, NetworkAttachment, Operation, OperationId, OsFamily, PowerKeeping,
        Provisioning, Readings, Unattended, UserId, VmId, VmRecord, VmSpec, truncate_to_micros,
    },
};
use serde_json::json;
use uuid::Uuid;

/// Now, as both databases keep it.
pub(crate) fn now() -> DateTime<Utc> {
    truncate_to_micros(Utc::now())
}

pub(crate) fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.parse().expect("a valid name"),
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: "debian-12".parse().expect("a valid name"),
            description: "Debian 12".to_owned(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            disk: PathBuf::from("/images/debian-12.qcow2"),
            format: ImageFormat::Qcow2,
            virtual_bytes: 2 << 30,
            sha256: "0".repeat(64),
            kernel: None,
        }),
        vcpus: 2,
        memory_mib: 1024,
        disk_bytes: 10 << 30,
        pool: "default".parse().expect("a valid name"),
        network: NetworkAttachment::None,
        unattended: Unattended { user: Some("ana".to_owned()), ..Unattended::default() },
        keeping: PowerKeeping::default(),
        devices: Default::default(),
        origin: infinibay::vm::Origin::Created,
    }
}

pub(crate) fn new_vm(host: HostId, owner: UserId, name: &str) -> NewVm {
    NewVm { id: VmId::generate(), host, owner, spec: spec(name) }
}

/// Stores a VM, as a request would.
pub(crate) async fn create(store: &Store, vm: &NewVm) -> (VmRecord, Operation) {
    store.create_vm(vm, OperationId::generate(), now()).await.expect("creating a VM")
}

/// A disc of the library that is ready to be installed from, as far as the store knows.
pub(crate) async fn medium(store: &Store, host: HostId, name: &str) -> Medium {
    let new = NewMedium {
        id: MediumId::generate(),
        host,
        name: name.parse().expect("a valid name"),
        kind: MediumKind::Installation,
        source: MediumSource::Path(format!("/incoming/{name}.iso")),
        expected_sha256: None,
        disk: None,
        by: UserId::generate(),
    };
    let asked = store.ask_for_medium(&new, MediaBounds { open: 9, all: 50 }, now()).await;
    let id = asked.expect("asking for a medium").id;
    let sha256 = "ab".repeat(32);
    assert!(store.medium_started(id, now()).await.expect("starting it"));
    assert!(store.medium_checked(id, 9, &sha256, &MediumFacts::default()).await.expect("checking it"));
    assert!(store.medium_ended(id, &MediumEnd::Ready, now()).await.expect("ending it"));
    store.medium(host, &new.name).await.expect("reading it").expect("the medium")
}

/// A reading of a small frame.
pub(crate) fn sample(vm: VmId, timestamp: DateTime<Utc>, cpu: f64) -> MetricsSample {
    MetricsSample {
        id: Uuid::now_v7(),
        vm,
        timestamp,
        received_at: now(),
        readings: Readings {
            cpu_usage: cpu,
            memory_used: 400_000,
            memory_total: 1_000_000,
            disk: None,
            network: None,
        },
        frame: FrameText::from(&json!({
            "cpu": { "usage_percent": cpu, "cores_usage": [cpu, 0.5] },
            "memory": { "total_kb": 1_000_000, "used_kb": 400_000, "available_kb": 600_000 },
            "disk": { "usage_stats": [{ "mount_point": "/", "total_gb": 10.5, "used_gb": 2.25 }] },
            "network": { "interfaces": [{ "name": "eth0", "bytes_received": 12 }] },
            "processes": [{ "name": "init\u{0}", "id": 1 }],
        })),
    }
}
