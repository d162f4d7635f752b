//! The daemon as the package runs it: as a user without privileges, in the groups that the package puts
//! him in, on a libvirt that lets in one of them. A guest is made, heard, obeyed, shown and deleted, and
//! what was secret of its first boot is gone.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    time::Duration,
};

use serde_json::json;
use support::{
    daemon::{Home, Setup},
    host,
    libvirtd::Libvirtd,
    wait::wait,
};

/// `nobody`, whom every host knows, as libvirt wants it.
const USER: u32 = 65_534;
const READY: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);
const LOG: &str = "query($id: UUID!) { vmConsoleLog(id: $id, maxBytes: 65536) { text } }";

/// The groups that the package puts its user in, by number.
fn groups() -> Vec<(String, u32)> {
    let sysusers = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sysusers.d/infinibay.conf");
    let known = fs::read_to_string("/etc/group").unwrap();
    let of = |line: &str| line.strip_prefix("m infinibay ").map(|name| name.trim().to_owned());
    let names: Vec<_> = fs::read_to_string(sysusers).unwrap().lines().filter_map(of).collect();
    assert!(names.len() > 1, "{names:?}");
    let number = |name: &String| {
        let line = known.lines().find(|line| line.split(':').next() == Some(name.as_str()))?;
        line.split(':').nth(2)?.parse().ok()
    };
    // Which of them there are depends on how libvirt was packaged.
    names.iter().filter_map(|name| Some((name.clone(), number(name)?))).collect()
}

/// An image whose guests are given a medium with secrets; its guest itself takes no notice.
fn library(dir: &Path) {
    let (from, to) = (host::test_images().join("pocket"), dir.join("pocket"));
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(&from).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap();
        if name == "manifest.toml" {
            let manifest = fs::read_to_string(&file).unwrap();
            let seeded = manifest.replace("provisioning = \"none\"", "provisioning = \"cloud-init\"");
            assert_ne!(manifest, seeded);
            fs::write(to.join(name), seeded).unwrap();
        } else {
            fs::copy(&file, to.join(name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_privileges_is_enough() {
    host::need_image("pocket");
    let images = tempfile::Builder::new().prefix("infinibay-images-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(images.path(), fs::Permissions::from_mode(0o755)).unwrap();
    library(images.path());
    let libvirtd = Libvirtd::start_for("libvirt", 1);
    let groups = groups();
    let list = groups.iter().map(|(_, number)| number.to_string()).collect::<Vec<_>>().join(",");
    let user = USER.to_string();
    let by = [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--groups",
        &list,
        "--no-new-privs",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--pdeathsig=KILL",
    ]
    .map(str::to_owned);
    let home = Home::new(Setup {
        uri: libvirtd.uri(),
        database_url: None,
        images_dir: images.path().to_owned(),
        base_dir: host::test_base_dir(),
        env: Vec::new(),
    })
    .run_by(&by);
    // As tmpfiles.d and StateDirectory have them.
    fs::create_dir(home.state_dir()).unwrap();
    fs::set_permissions(home.state_dir(), fs::Permissions::from_mode(0o711)).unwrap();
    chown(home.state_dir(), Some(USER), Some(USER)).unwrap();
    chown(home.socket_dir(), Some(0), Some(USER)).unwrap();
    fs::set_permissions(home.socket_dir(), fs::Permissions::from_mode(0o771)).unwrap();
    libvirtd.pool(home.path());

    let token = home.admin();
    let daemon = home.start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("CapEff:"), field("CapBnd:")), ("0".repeat(16), "0".repeat(16)));
    assert!(field("Uid:").starts_with(&user), "{status}");

    let client = daemon.client(&token);
    let secret = format!("secret-{}", std::process::id());
    let input = json!({
        "name": "unprivileged", "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": "story", "network": "none",
        "unattended": { "user": "ada", "firstBootCommands": [format!("echo {secret}")] },
    });
    let (vm, create) = client.create(input).await;
    client.succeeded(&create, READY).await;
    client.phase_is(&vm, "RUNNING", SOON).await;
    // The agent's socket is QEMU's, and open to its group.
    assert_eq!(client.shell(&vm, "echo here").await["response"]["stdout"], "here\n");
    let log = client.ask(LOG, json!({ "id": vm })).await;
    assert!(log["vmConsoleLog"]["text"].as_str().is_some_and(|text| text.contains("infiniservice")), "{log}");
    // The log daemon moves it aside when it is full, and makes the next one for root alone: nothing fails.
    let file = home.state_dir().join(format!("console/vm-{vm}.log"));
    fs::rename(&file, file.with_extension("log.0")).unwrap();
    fs::write(&file, "for root").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let log = client.ask(LOG, json!({ "id": vm })).await;
    assert!(log["vmConsoleLog"]["text"].as_str().is_some_and(|text| text.contains("infiniservice")), "{log}");

    // The medium was handed to QEMU, and is scrubbed all the same.
    let seed = home.state_dir().join(format!("seeds/vm-{vm}.iso"));
    wait("the medium to be scrubbed", SOON, || {
        let medium = fs::read(&seed).unwrap();
        (!medium.windows(secret.len()).any(|bytes| bytes == secret.as_bytes())).then_some(())
    });
    let delete = client.change("deleteVm", &vm).await;
    client.succeeded(&delete, SOON).await;
    for left in ["seeds", "console"] {
        let left: Vec<_> = fs::read_dir(home.state_dir().join(left)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(fs::read_dir(home.socket_dir()).unwrap().count(), 0);
    daemon.stop();
}
