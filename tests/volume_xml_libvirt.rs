//! The XML of volumes and snapshots that libvirt is given, judged by libvirt's own schemas.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output},
};

use infinibay::{
    hypervisor::{
        OverlayVolume, SnapshotRequest,
        libvirt::{overlay_xml, plain_xml, snapshot_xml},
    },
    vm::{OperationId, Quiesced, SnapshotTag, VmId},
};

/// Asks libvirt's schema of that name.
fn judge(xml: &str, schema: &str) -> Output {
    let mut file = tempfile::Builder::new().prefix("volxml-").suffix(".xml").tempfile().unwrap();
    file.write_all(xml.as_bytes()).unwrap();
    Command::new("virt-xml-validate")
        .arg(file.path())
        .arg(schema)
        .output()
        .unwrap_or_else(|error| panic!("virt-xml-validate cannot be run ({error}); scripts/test installs it"))
}

#[track_caller]
fn approve(xml: &str, schema: &str) {
    let judged = judge(xml, schema);
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{schema}: {said}{}\n{xml}", String::from_utf8_lossy(&judged.stdout));
}

#[track_caller]
fn refuse(xml: &str, schema: &str) {
    assert!(!judge(xml, schema).status.success(), "{schema} takes anything: {xml}");
}

/// The name of a VM's disk, and names that somebody else's volume may have.
fn names() -> Vec<String> {
    let own = format!("vm-{}.qcow2", VmId::generate());
    [own.as_str(), "a<b&c>\"'", "ñandú 🦀", "]]>"].map(str::to_owned).into()
}

#[test]
fn libvirts_schema_takes_the_volumes() {
    for name in names() {
        for capacity_bytes in [0, 1 << 20, u64::MAX] {
            approve(&plain_xml(&name, capacity_bytes).unwrap(), "storagevol");
            for format in ["qcow2", "raw"] {
                let volume = OverlayVolume {
                    pool: "default".to_owned(),
                    name: name.clone(),
                    capacity_bytes,
                    backing_path: PathBuf::from(format!("/images/{name}")),
                    backing_format: format.to_owned(),
                };
                approve(&overlay_xml(&volume).unwrap(), "storagevol");
            }
        }
    }
    let whole = plain_xml("a", 1).unwrap();
    for (from, to) in
        [("qcow2", "nonsense"), ("bytes", "bits"), ("<target>", "<target><owner/>"), (">1<", ">one<")]
    {
        assert!(whole.contains(from), "{from} is not in {whole}");
        refuse(&whole.replacen(from, to, 1), "storagevol");
    }
}

#[test]
fn libvirts_schema_takes_the_snapshots() {
    let request = |description: &str, memory, quiesced| SnapshotRequest {
        name: "before-upgrade".parse().unwrap(),
        description: description.to_owned(),
        tag: SnapshotTag { operation: OperationId::generate(), memory, quiesced },
    };
    for description in ["", "a < b & \"c\"", "</description><name>x</name>", "]]>", "one\ntwo", "ñandú 🦀"]
    {
        for (memory, quiesced) in [
            (true, Quiesced::NotNeeded),
            (false, Quiesced::Yes),
            (false, Quiesced::NoAgent),
            (false, Quiesced::Late),
        ] {
            let xml = snapshot_xml(&request(description, memory, quiesced)).unwrap();
            approve(&xml, "domainsnapshot");
            refuse(&xml.replace("<description>", "<nonsense/><description>"), "domainsnapshot");
        }
    }
}
