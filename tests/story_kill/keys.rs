//! Firmware asks for a key before it boots Windows' disc, and the daemon dies of pressing it: the machine
//! goes on, and is the same one.

use infinibay::install::{SeedFile, build_medium};
use serde_json::json;

use super::{death::points_of, installs::CREATE, life::asked_and_killed};
use crate::support::{
    daemon::operation_in,
    host::virsh,
    pretended,
    stage::{SOON, Stage},
};

pub const TOLD: &[&str] = &["press-key"];

/// As much of Windows as is looked at.
fn disc() -> Vec<u8> {
    let xml = "\u{feff}<WIM><IMAGE INDEX=\"1\"><WINDOWS><ARCH>9</ARCH><INSTALLATIONTYPE>Client</INSTALLATIONTYPE>\
               <VERSION><MAJOR>10</MAJOR><BUILD>19045</BUILD></VERSION></WINDOWS><NAME>Windows Pro</NAME></IMAGE></WIM>";
    let xml: Vec<u8> = xml.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut wim = vec![0; 208];
    wim[..8].copy_from_slice(b"MSWIM\0\0\0");
    wim[72..80].copy_from_slice(&(xml.len() as u64 | 2 << 56).to_le_bytes());
    wim[80..88].copy_from_slice(&208_u64.to_le_bytes());
    wim.extend(xml);
    let file = |path: &str, contents: Vec<u8>| SeedFile { path: path.to_owned(), contents };
    let files = [file("sources/boot.wim", b"MSWIM".to_vec()), file("sources/install.wim", wim)];
    build_medium("CCCOMA_X64FRE", &files).unwrap()
}

pub async fn story() {
    let media = tempfile::tempdir().unwrap();
    let file = media.path().join("windows.iso");
    std::fs::write(&file, disc()).unwrap();
    let dirs = media.path().display().to_string();
    let env = [("INFINIBAY__MEDIA__IMPORT_DIRS", dirs.as_str()), ("INFINIBAY__MEDIA__RESERVE_BYTES", "0")];
    let stage = Stage::with("keyed", &env);
    let daemon = stage.home.start();
    pretended::import(&daemon.client(&stage.token), "windows", &file).await;
    daemon.stop();

    for point in points_of("press-key") {
        let vm = uuid::Uuid::new_v4().to_string();
        let before = stage.inventory(&vm);
        let request = json!({ "input": {
            "id": vm, "name": stage.name, "vcpus": 1, "memoryMib": 512, "diskGib": 64, "pool": stage.pool.name,
            "network": "none", "firmware": "UEFI", "install": { "medium": "windows", "agent": false },
            "unattended": { "user": "ada", "password": "correct horse" },
        } });
        asked_and_killed(&stage, &[point], CREATE, &request).await;
        let process = virsh(&["domid", &vm]);

        // Whether a key came the next daemon cannot know; one too many does no harm.
        let daemon = stage.home.start();
        let client = daemon.client(&stage.token);
        client.phase_is(&vm, "INSTALLING", SOON).await;
        let again = client.ask(CREATE, request).await;
        assert_eq!(again["createVm"]["vm"]["id"], vm, "{point}");
        assert_eq!(client.operation(&operation_in(&again)).await["status"], "RUNNING", "{point}");
        assert_eq!(virsh(&["domid", &vm]), process, "{point}: another process");
        let gone = client.change("deleteVm", &vm).await;
        client.succeeded(&gone, SOON).await;
        assert_eq!(stage.inventory(&vm), before, "left of {point}");
        daemon.stop();
    }
}
