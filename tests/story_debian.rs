//! A real Debian guest, from `createVm` to nothing left: created, installed, online, measured,
//! commanded, stopped, started, deleted; all through GraphQL over HTTP, and checked with virsh
//! and the file system.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{
    daemon::{Home, Setup},
    host::{self, DomainGuard, Pool},
};

const BOOT: Duration = Duration::from_secs(420);

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_vm_lives_and_leaves_nothing() {
    host::need_image("debian-12");
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![("INFINIBAY__METRICS__FLUSH_INTERVAL".into(), "2s".into())],
    });
    let pool = Pool::new(home.path());
    let token = home.admin();
    let daemon = home.start();
    let client = daemon.client(&token);
    let base_before = image_digest();

    let name = format!("story-debian-{}", std::process::id());
    let _guard = DomainGuard(name.clone());
    let secret = format!("secret-{}", uuid::Uuid::new_v4());
    let (vm, operation) = client
        .create(json!({
            "name": name, "image": "debian-12", "vcpus": 2, "memoryMib": 768, "diskGib": 3, "pool": pool.name,
            "unattended": {
                "user": "ada", "password": secret, "hostname": "story", "timezone": "Europe/Madrid",
                "sshKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvJ0cWnEUMX1gQ4GdRgg4m0kyHqDgmlYHbJZjzFqTB8 ada@story"],
                "packages": ["hello"],
                "firstBootCommands": [format!("printf '%s' \"it's {secret}\" > /root/first-boot")],
            },
        }))
        .await;
    client.succeeded(&operation, BOOT).await;
    client.agent_is(&vm, "ONLINE", Duration::from_secs(10)).await;
    let seen = client.vm(&vm).await;
    assert_eq!(seen["phase"], "RUNNING", "{seen}");
    assert!(!seen["macAddresses"].as_array().unwrap().is_empty(), "{seen}");

    // The first boot's secrets are gone from seed and database.
    until(Duration::from_secs(30), "the secrets to be gone", || async {
        let left = files_with(&home.state_dir(), secret.as_bytes());
        left.is_empty().then_some(())
    })
    .await;

    // Metrics come by themselves and reach the database.
    const METRICS: &str = "query($vm: UUID!) { getVmMetrics(vmId: $vm) { cpuUsage memoryUsed memoryTotal diskUsage \
        networkStats processes ports raw timestamp createdAt } }";
    let metrics = until(Duration::from_secs(60), "a stored reading", || async {
        let data = client.ask(METRICS, json!({ "vm": vm })).await;
        data["getVmMetrics"].as_array().unwrap().first().cloned()
    })
    .await;
    let total: u64 = metrics["memoryTotal"].as_str().unwrap().parse().unwrap();
    assert!((500_000..800_000).contains(&total), "{total} KiB of memory");
    assert!(metrics["raw"]["system"]["hostname"] == "story", "{}", metrics["raw"]["system"]);
    let seen = until(Duration::from_secs(60), "an address", || async {
        let seen = client.vm(&vm).await;
        (!seen["ipAddresses"].as_array().unwrap().is_empty()).then_some(seen)
    })
    .await;
    assert!(seen["ipAddresses"][0].as_str().unwrap().parse::<std::net::IpAddr>().is_ok(), "{seen}");

    // A safe and an unsafe command.
    let info = client.action(&vm, "OS_INFO").await;
    assert_eq!((&info["success"], &info["result"]["__typename"]), (&json!(true), &json!("OsInfo")), "{info}");
    let run = client
        .shell(&vm, "uname -a; hostname; id ada; hello; cut -d' ' -f1 /home/ada/.ssh/authorized_keys; head -c 5 /root/first-boot; readlink /etc/localtime")
        .await;
    assert_eq!(run["success"], true, "{run}");
    let out = run["response"]["stdout"].as_str().unwrap();
    for expected in ["Linux story", "uid=", "Hello, world!", "ssh-ed25519", "Europe/Madrid", "it's "] {
        assert!(out.contains(expected), "{expected} is not in {out}");
    }
    assert!(!run["executionMs"].is_null());

    // Off and on again.
    let stop = client.change("stopVm", &vm).await;
    client.succeeded(&stop, Duration::from_secs(120)).await;
    assert_eq!(host::domain_state(&name).as_deref(), Some("shut off"));
    client.agent_is(&vm, "OFFLINE", Duration::from_secs(5)).await;
    let refused = client
        .refused(
            "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, command: { safe: { action: OS_INFO } }) { id } }",
            json!({ "vm": vm }),
        )
        .await;
    assert_eq!(refused, "AGENT_NOT_CONNECTED");
    let start = client.change("startVm", &vm).await;
    client.succeeded(&start, Duration::from_secs(60)).await;
    client.agent_is(&vm, "ONLINE", BOOT).await;
    let again = client.shell(&vm, "test -s /root/first-boot && hostname").await;
    assert_eq!(again["success"], true, "{again}");

    // Gone without a trace.
    let delete = client.change("deleteVm", &vm).await;
    client.succeeded(&delete, Duration::from_secs(60)).await;
    assert!(!host::domain_exists(&vm), "the domain is left");
    assert_eq!(pool.volumes(), Vec::<std::path::PathBuf>::new());
    assert_eq!(host::files_in(&home.socket_dir()), Vec::<std::path::PathBuf>::new());
    assert_eq!(host::files_in(&home.state_dir().join("seeds")), Vec::<std::path::PathBuf>::new());
    assert_eq!(host::files_in(&home.state_dir().join("console")), Vec::<std::path::PathBuf>::new());
    assert_eq!(image_digest(), base_before, "the base image was touched");
    let answer = client.send("query($id: UUID!) { vm(id: $id) { id } }", json!({ "id": vm })).await;
    assert!(answer["data"]["vm"].is_null(), "{answer}");
    // History outlives the VM.
    let log =
        client.ask("query($vm: UUID!) { commandLog(vmId: $vm) { nodes { id } } }", json!({ "vm": vm })).await;
    assert_eq!(log["commandLog"]["nodes"].as_array().unwrap().len(), 3, "{log}");

    daemon.stop();
}

fn image_digest() -> (String, u64) {
    let dir = host::test_images().join("debian-12");
    let disk = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "qcow2"))
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .expect("the image has a disk");
    let output = std::process::Command::new("sha256sum").arg(&disk).output().unwrap();
    assert!(output.status.success());
    (String::from_utf8(output.stdout).unwrap(), disk.metadata().unwrap().len())
}

/// Files under `dir` that contain these bytes.
fn files_with(dir: &std::path::Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for path in host::files_in(dir) {
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(needle.len()).any(|window| window == needle)
        {
            found.push(path);
        }
    }
    found
}

async fn until<T, F: Future<Output = Option<T>>>(limit: Duration, what: &str, look: impl Fn() -> F) -> T {
    let deadline = std::time::Instant::now() + limit;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
