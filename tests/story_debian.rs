//! A real Debian guest, from `createVm` to nothing left: created, installed, online, measured,
//! commanded, resized while it runs, brought to rest for a snapshot and let go again, rebooted by its QEMU
//! agent, stopped, started, deleted; all through GraphQL over HTTP, and checked with virsh
//! and the file system.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{
    daemon::{Client, Home, Setup},
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
        env: vec![
            ("INFINIBAY__METRICS__FLUSH_INTERVAL".into(), "2s".into()),
            ("INFINIBAY__RECONCILE__REBOOT_GRACE".into(), "240s".into()),
        ],
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

    // The agent was given a key by the medium, and seals.
    const SEAL: &str = "query($id: UUID!) { vm(id: $id) { agent { seal } } }";
    assert_eq!(client.ask(SEAL, json!({ "id": vm })).await["vm"]["agent"]["seal"], "SEALED");
    let key = client.output(&vm, "stat -c '%a %U' /etc/infiniservice/seal.key").await;
    assert_eq!(key, "600 root");

    takes_and_gives_memory(&client, &vm).await;
    rests_for_a_snapshot(&client, &vm).await;
    reboots_by_its_agent(&client, &vm).await;

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
    const LOG: &str = "query($vm: UUID!) { commandLog(vmId: $vm, first: 100) { nodes { command } } }";
    let log = client.ask(LOG, json!({ "vm": vm })).await.to_string();
    for command in ["OsInfo", "uname -a", "test -s /root/first-boot"] {
        assert!(log.contains(command), "{command}: {log}");
    }

    daemon.stop();
}

/// The guest hands memory over, and takes it back, while it runs.
async fn takes_and_gives_memory(client: &Client, vm: &str) {
    const RESIZE: &str =
        "mutation($id: UUID!, $mib: Int!) { resizeVm(id: $id, memoryMib: $mib) { operation { id } } }";
    const EFFECT: &str = "query($id: UUID!) { operation(id: $id) { effect } }";
    const TOTAL: &str = "awk '/^MemTotal/ { print $2 }' /proc/meminfo";
    let total = async || client.output(vm, TOTAL).await.parse::<i64>().unwrap();
    let before = total().await;
    for (mib, less) in [(640, 128 << 10), (768, 0)] {
        let operation = client.accepted(RESIZE, json!({ "id": vm, "mib": mib })).await;
        client.succeeded(&operation, Duration::from_secs(60)).await;
        let told = client.ask(EFFECT, json!({ "id": operation })).await;
        assert_eq!(told["operation"]["effect"], "LIVE", "{mib} MiB");
        let now = total().await;
        assert!((now - (before - less)).abs() < 8 << 10, "{before} KiB before, {now} with {mib} MiB");
        assert_eq!(host::virsh(&["dominfo", vm]).contains(&format!("{} KiB", 640 << 10)), less > 0);
    }
}

/// Frozen and thawed by the QEMU agent that Debian has.
async fn rests_for_a_snapshot(client: &Client, vm: &str) {
    const CREATE: &str = "mutation($id: UUID!) { createVmSnapshot(id: $id, name: \"rested\", memory: false, \
        quiesce: REQUIRED) { operation { id } } }";
    const LIST: &str = "query($id: UUID!) { vmSnapshots(vmId: $id) { name state quiesced } }";
    let agent = |command: &str| host::virsh(&["qemu-agent-command", vm, command]);
    until(Duration::from_secs(120), "Debian's QEMU agent", || async {
        let ping = ["qemu-agent-command", vm, r#"{"execute":"guest-ping"}"#];
        host::try_virsh("qemu:///system", &ping).then_some(())
    })
    .await;
    let operation = client.accepted(CREATE, json!({ "id": vm })).await;
    client.succeeded(&operation, Duration::from_secs(120)).await;
    let list = client.ask(LIST, json!({ "id": vm })).await;
    assert_eq!(list["vmSnapshots"], json!([{ "name": "rested", "state": "DISK", "quiesced": true }]));
    let frozen = agent(r#"{"execute":"guest-fsfreeze-status"}"#);
    assert!(frozen.contains("thawed"), "{frozen}");
    // The agent itself wrote down that it was asked, and files can be written again.
    let told =
        "date >/root/after && sync && journalctl -b -u qemu-guest-agent -o cat | grep 'fsfreeze called'";
    assert!(client.output(vm, told).await.contains("guest-fsfreeze called"));
}

/// Through the agent and nothing else: the guest does not mind its power button any more.
async fn reboots_by_its_agent(client: &Client, vm: &str) {
    const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
    let deaf = "mkdir -p /etc/systemd/logind.conf.d && \
        printf '[Login]\\nHandlePowerKey=ignore\\n' >/etc/systemd/logind.conf.d/deaf.conf && \
        systemctl restart systemd-logind && cat /proc/sys/kernel/random/boot_id";
    let before = client.output(vm, deaf).await;
    let operation = client.change("rebootVm", vm).await;
    client.succeeded(&operation, Duration::from_secs(250)).await;
    assert_eq!(client.operation(&operation).await["stage"], "done", "it was reset");
    until(BOOT, "the next boot", || async {
        let query = "mutation($vm: UUID!, $line: String!) { executeVmCommand(vmId: $vm, timeoutSeconds: 20, \
            command: { unsafe: { rawCommand: $line } }) { response } }";
        let answer = client.send(query, json!({ "vm": vm, "line": BOOT_ID })).await;
        let now = answer["data"]["executeVmCommand"]["response"]["stdout"].as_str()?.trim().to_owned();
        (now.len() == before.len() && now != before).then_some(())
    })
    .await;
    let listens = "rm /etc/systemd/logind.conf.d/deaf.conf && systemctl restart systemd-logind";
    client.output(vm, listens).await;
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
