//! An installation: from the installer's files to the system that boots from its disk, and those files'
//! end. The installer is a pretended one, which is done at once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    death::points_of,
    life::{asked_and_killed, lives},
};
use crate::support::{
    daemon::operation_in,
    host, pretended,
    stage::{READY, SOON, Stage},
};

pub const TOLD: &[&str] = &["install"];

pub const CREATE: &str =
    "mutation($input: CreateVmInput!) { createVm(input: $input) { operation { id } vm { id } } }";
const MEDIUM: &str = "pretended";

pub async fn story() {
    let media = tempfile::tempdir().unwrap();
    let disc = pretended::debian(media.path(), MEDIUM, pretended::DONE_AT_ONCE);
    let dirs = media.path().display().to_string();
    let stage = Stage::with("installed", &[("INFINIBAY__MEDIA__IMPORT_DIRS", &dirs)]);
    let daemon = stage.home.start();
    pretended::import(&daemon.client(&stage.token), MEDIUM, &disc).await;
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
