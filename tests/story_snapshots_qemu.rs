//! Snapshots of a real guest on real QEMU: what it had in memory and on disk comes back, its file
//! systems are brought to rest and let go again, and nothing is left of any of it.
//!
//! The QEMU agent in the guest is a few lines of shell: it speaks the agent's protocol on the real
//! channel, and writes down what it is told.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    daemon::{Client, Daemon, Home, Setup, wait},
    host::{self, DomainGuard, Pool},
};

const READY: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const CREATE: &str = "mutation($id: UUID!, $name: String!, $memory: Boolean, $quiesce: SnapshotQuiesce! = IF_POSSIBLE) \
    { createVmSnapshot(id: $id, name: $name, memory: $memory, quiesce: $quiesce) { operation { id } } }";
const REVERT: &str =
    "mutation($id: UUID!, $name: String!) { revertVmSnapshot(id: $id, name: $name) { operation { id } } }";
const DELETE: &str = "mutation($id: UUID!, $name: String!, $children: Boolean! = false) { \
    deleteVmSnapshot(id: $id, name: $name, children: $children) { operation { id } } }";
const LIST: &str =
    "query($id: UUID!) { vmSnapshots(vmId: $id) { name parent state current quiesced quiescedReason } }";

/// `PAUSE` is how long freezing takes.
const QEMU_AGENT: &str = r#"
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=/dev/$(basename $(dirname $name))
done
cat >/tmp/qga <<'EOF'
exec 3<>$1
# Nothing is read until libvirt has connected.
while :; do read -r line <&3 || { sleep 1; continue; }
    case $line in
    *guest-sync*) id=${line##*\"id\":}; id=${id# }; id=${id%%\}*}; echo "{\"return\": $id}" >&3 ;;
    *fsfreeze-freeze*) echo freeze >>/tmp/qga.log; sleep PAUSE; echo '{"return": 1}' >&3 ;;
    *fsfreeze-thaw*) echo thaw >>/tmp/qga.log; echo '{"return": 1}' >&3 ;;
    *guest-get-time*) echo '{"return": 1700000000000000000}' >&3 ;;
    *) echo '{"error": {"class": "CommandNotFound", "desc": "unknown"}}' >&3 ;;
    esac
done
EOF
: >/tmp/qga.log
setsid sh /tmp/qga $port </dev/null >/dev/null 2>&1 &
sleep 1
echo started $port
"#;

struct Stage {
    home: Home,
    pool: Pool,
    token: String,
    name: String,
    _guard: DomainGuard,
}

impl Stage {
    fn set(story: &str) -> Self {
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
        let name = format!("story-{story}-{}", std::process::id());
        Self { home, pool, token, _guard: DomainGuard(name.clone()), name }
    }

    async fn create(&self, daemon: &Daemon) -> (Client, String) {
        let client = daemon.client(&self.token);
        let (vm, operation) = client
            .create(json!({
                "name": self.name, "image": "pocket", "vcpus": 1, "memoryMib": 192,
                "pool": self.pool.name, "network": "none",
            }))
            .await;
        client.succeeded(&operation, READY).await;
        client.agent_is(&vm, "ONLINE", SOON).await;
        (client, vm)
    }

    async fn delete(&self, client: &Client, vm: &str) {
        let operation = client.change("deleteVm", vm).await;
        client.succeeded(&operation, SOON).await;
        assert!(!host::domain_exists(vm), "the domain is left");
        let (state, sockets) = (self.home.state_dir(), self.home.socket_dir());
        for dir in [self.pool.dir.clone(), sockets, state.join("seeds"), state.join("console")] {
            assert_eq!(host::files_in(&dir), Vec::<std::path::PathBuf>::new(), "left in {}", dir.display());
        }
    }
}

async fn ask(client: &Client, mutation: &str, variables: Value) -> String {
    let asked = client.ask(mutation, variables).await;
    let (_, payload) = asked.as_object().unwrap().iter().next().unwrap();
    payload["operation"]["id"].as_str().unwrap().to_owned()
}

async fn done(client: &Client, mutation: &str, variables: Value) {
    let operation = ask(client, mutation, variables).await;
    client.succeeded(&operation, SOON).await;
}

async fn shell(client: &Client, vm: &str, line: &str) -> String {
    let told = client.shell(vm, line).await;
    assert_eq!(told["success"], true, "{line}: {told}");
    told["response"]["stdout"].as_str().unwrap().trim().to_owned()
}

async fn write(client: &Client, vm: &str, words: &str) {
    shell(
        client,
        vm,
        &format!("echo {words} >/root/mark; echo {words} | dd of=/dev/vda bs=512 conv=sync,fsync"),
    )
    .await;
}

async fn memory_and_disk(client: &Client, vm: &str) -> (String, String) {
    let memory = shell(client, vm, "cat /root/mark 2>/dev/null || echo none").await;
    let disk = shell(client, vm, "head -n 1 /dev/vda").await;
    (memory, disk)
}

async fn list(client: &Client, vm: &str) -> Vec<Value> {
    client.ask(LIST, json!({ "id": vm })).await["vmSnapshots"].as_array().unwrap().clone()
}

async fn start(client: &Client, vm: &str) {
    let start = client.change("startVm", vm).await;
    client.succeeded(&start, SOON).await;
    client.agent_is(vm, "ONLINE", READY).await;
}

fn pair(memory: &str, disk: &str) -> (String, String) {
    (memory.to_owned(), disk.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_had_comes_back() {
    let stage = Stage::set("snapshots");
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;

    write(&client, &vm, "one").await;
    done(&client, CREATE, json!({ "id": vm, "name": "with-memory" })).await;
    write(&client, &vm, "two").await;
    done(&client, CREATE, json!({ "id": vm, "name": "unrested", "memory": false })).await;
    let required = json!({ "id": vm, "name": "x", "memory": false, "quiesce": "REQUIRED" });
    let refused = ask(&client, CREATE, required).await;
    let told = wait_for_end(&client, &refused).await;
    assert_eq!(told["error"]["code"], "QUIESCE_FAILED", "{told}");

    let agent = shell(&client, &vm, &QEMU_AGENT.replace("PAUSE", "0")).await;
    assert!(agent.starts_with("started /dev/vport"), "{agent}");
    done(&client, CREATE, json!({ "id": vm, "name": "rested", "memory": false, "quiesce": "REQUIRED" }))
        .await;
    assert_eq!(shell(&client, &vm, "cat /tmp/qga.log").await, "freeze\nthaw");
    let told: Vec<_> = list(&client, &vm)
        .await
        .iter()
        .map(|snapshot| {
            let of = |field: &str| snapshot[field].to_string().replace('"', "");
            format!("{} {} {} {} {}", of("name"), of("parent"), of("state"), of("quiesced"), of("current"))
        })
        .collect();
    let mut sorted = told.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "rested unrested DISK true true",
            "unrested with-memory DISK false false",
            "with-memory null RUNNING null false"
        ]
    );
    assert_eq!(stage.pool.volumes().len(), 1, "snapshots are inside the disk: {:?}", stage.pool.volumes());

    // Back to a running guest, which goes on where it was.
    write(&client, &vm, "three").await;
    done(&client, REVERT, json!({ "id": vm, "name": "with-memory" })).await;
    client.phase_is(&vm, "RUNNING", SOON).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    assert_eq!(memory_and_disk(&client, &vm).await, pair("one", "one"));

    // Back to disks that were at rest: off, and nobody starts it.
    done(&client, REVERT, json!({ "id": vm, "name": "rested" })).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    assert_eq!(host::domain_state(&vm).as_deref(), Some("shut off"));
    done(&client, CREATE, json!({ "id": vm, "name": "off" })).await;
    start(&client, &vm).await;
    assert_eq!(memory_and_disk(&client, &vm).await, pair("none", "two"));

    // A running VM goes back to one that was off.
    write(&client, &vm, "four").await;
    done(&client, REVERT, json!({ "id": vm, "name": "off" })).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    start(&client, &vm).await;
    assert_eq!(memory_and_disk(&client, &vm).await, pair("none", "two"));

    done(&client, DELETE, json!({ "id": vm, "name": "unrested", "children": true })).await;
    let names: Vec<_> = list(&client, &vm).await.iter().map(|snapshot| snapshot["name"].clone()).collect();
    assert_eq!(names, ["with-memory"]);
    stage.delete(&client, &vm).await;
}

async fn wait_for_end(client: &Client, operation: &str) -> Value {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let now = client.operation(operation).await;
        if !matches!(now["status"].as_str(), Some("PENDING" | "RUNNING")) {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "{now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The daemon dies while the guest freezes: the next one lets it go, and takes the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_guest_is_frozen() {
    let stage = Stage::set("frozen");
    let daemon = stage.home.start();
    let (client, vm) = stage.create(&daemon).await;
    shell(&client, &vm, &QEMU_AGENT.replace("PAUSE", "3")).await;
    let operation =
        ask(&client, CREATE, json!({ "id": vm, "name": "rested", "memory": false, "quiesce": "REQUIRED" }))
            .await;
    let deadline = std::time::Instant::now() + SOON;
    while shell(&client, &vm, "cat /tmp/qga.log").await != "freeze" {
        assert!(std::time::Instant::now() < deadline, "the guest is never frozen");
    }
    daemon.kill();
    // Whatever was under way at libvirt ends there.
    wait("libvirt to be free", SOON, || Some(host::domain_state(&vm)));
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    client.agent_is(&vm, "ONLINE", SOON).await;
    client.succeeded(&operation, SOON).await;
    let log = shell(&client, &vm, "cat /tmp/qga.log").await;
    assert!(log.starts_with("freeze\nthaw") && log.ends_with("thaw"), "{log}");
    let found = list(&client, &vm).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["quiesced"], true);
    stage.delete(&client, &vm).await;
}
