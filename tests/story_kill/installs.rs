//! An installation: from the installer's files to the system that boots from its disk, and those files'
//! end. The installer is a pretended one, which is done at once.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    death::points_of,
    life::{asked_and_killed, lives},
};
use crate::support::{
    daemon::{Client, operation_in},
    host, pretended,
    stage::{READY, SOON, Stage},
};

pub const TOLD: &[&str] = &["install"];

pub const CREATE: &str =
    "mutation($input: CreateVmInput!) { createVm(input: $input) { operation { id } vm { id } } }";
const MEDIUM: &str = "pretended";

/// Says that it is done, and switches off.
const INIT: &str = "#!/bin/busybox sh
[ -e /preseed.cfg ] && echo 'infinibay: stage installed'
/bin/busybox sleep 1
/bin/busybox poweroff -f
";

/// A disc that is taken for Debian's.
fn disc(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    for folder in [".disk", "install.amd"] {
        std::fs::create_dir_all(tree.join(folder)).unwrap();
    }
    let about = "Debian GNU/Linux 13.0.0 \"Trixie\" - Official amd64 NETINST with firmware 20250809-11:20";
    std::fs::write(tree.join(".disk/info"), about).unwrap();
    std::fs::write(tree.join("install.amd/vmlinuz"), pretended::kernel()).unwrap();
    std::fs::write(tree.join("install.amd/initrd.gz"), pretended::initrd(dir, INIT)).unwrap();
    let disc = dir.join("pretended.iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-R", "-J", "-V", "Debian 13.0.0 amd64 n", "-o"])
        .args([&disc, &tree])
        .output()
        .expect("xorriso is needed; scripts/test installs it");
    assert!(made.status.success(), "xorriso: {}", String::from_utf8_lossy(&made.stderr));
    disc
}

pub async fn story() {
    let media = tempfile::tempdir().unwrap();
    let disc = disc(media.path());
    let dirs = media.path().display().to_string();
    let stage = Stage::with("installed", &[("INFINIBAY__MEDIA__IMPORT_DIRS", &dirs)]);
    let daemon = stage.home.start();
    import(&daemon.client(&stage.token), MEDIUM, &disc).await;
    daemon.stop();

    for points in lives(points_of("install")) {
        let vm = uuid::Uuid::new_v4().to_string();
        let before = stage.inventory(&vm);
        let request = json!({ "input": {
            "id": vm, "name": stage.name, "vcpus": 1, "memoryMib": 256, "diskGib": 4, "pool": stage.pool.name,
            "network": "none", "install": { "medium": MEDIUM, "agent": false },
        } });
        asked_and_killed(&stage, &points, CREATE, &request).await;

        let daemon = stage.home.start();
        let client = daemon.client(&stage.token);
        let again = client.ask(CREATE, request).await;
        assert_eq!(again["createVm"]["vm"]["id"], vm, "{points:?}");
        client.succeeded(&operation_in(&again), READY).await;
        client.phase_is(&vm, "RUNNING", SOON).await;
        boots_from_its_disk(&stage, &vm, &points).await;

        let gone = client.change("deleteVm", &vm).await;
        client.succeeded(&gone, SOON).await;
        assert_eq!(stage.inventory(&vm), before, "left of {points:?}");
        daemon.stop();
    }
}

/// Nothing of the installer is in the domain, nor on the host.
async fn boots_from_its_disk(stage: &Stage, vm: &str, points: &[&str]) {
    let seeds = stage.home.state_dir().join("seeds");
    let deadline = Instant::now() + SOON;
    while !host::files_in(&seeds).is_empty() {
        let left = host::files_in(&seeds);
        assert!(Instant::now() < deadline, "{points:?}: the installer's files stay: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let xml = host::virsh(&["dumpxml", "--inactive", vm]);
    for part in ["<kernel>", "cdrom", ".iso", "<on_reboot>destroy</on_reboot>"] {
        assert!(!xml.contains(part), "{points:?}: {part} is still in {xml}");
    }
    assert_eq!(stage.pool.volumes().len(), 1, "{points:?}");
}

pub async fn import(client: &Client, name: &str, disc: &Path) {
    const IMPORT: &str = "mutation($i: ImportMediumInput!) { importMedium(input: $i) { id } }";
    let input = json!({ "name": name, "kind": "INSTALLATION", "path": disc });
    client.ask(IMPORT, json!({ "i": input })).await;
    let deadline = Instant::now() + SOON;
    loop {
        const LOOK: &str = "query($n: String!) { medium(name: $n) { state error { message } } }";
        let now: Value = client.ask(LOOK, json!({ "n": name })).await["medium"].take();
        if now["state"] == "READY" {
            return;
        }
        assert!(now["state"] != "FAILED" && Instant::now() < deadline, "the disc is {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
