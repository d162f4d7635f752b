//! The seal: what an agent says and what it is told goes in signed envelopes where the VM was given a key,
//! and what is not of this exchange is refused, whoever sends it.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[path = "story_seal/agent.rs"]
mod agent;
#[macro_use]
mod support;

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::sealing;
use infinibay::vm::{SealKey, VmId};
use serde_json::{Value, json};
use support::{
    daemon::Client,
    database::TestDatabase,
    guest::{FakeGuest, well_behaved},
    scrape::Scrape,
    trial::{Blank, Trial, image},
    wait::wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

const SOON: Duration = Duration::from_secs(20);
const AGENT: &str = "query($id: UUID!) { vm(id: $id) { agent { seal clockSkewMs \
    counters { sealed badSeal replayed stale unsealed unsolicited } } } }";
const REQUIRED: [(&str, &str); 1] = [("INFINIBAY__AGENTS__SEAL", "require")];

/// A daemon with an image whose guests are given the agent, and a key.
async fn trial(db: &TestDatabase, env: &[(&str, &str)]) -> Trial {
    let trial = Trial::start_with(db, env).await;
    image(&trial.library.path().join("cloudy"), &Blank { provisioning: "cloud-init", ..Blank::default() });
    let root = trial.library.path().join("base/infiniservice");
    for (file, content) in [
        ("binaries/linux/infiniservice", "\x7fELF made up"),
        ("install/install-linux.sh", "#!/bin/sh\n"),
        ("install/infiniservice.service", "[Service]\n"),
    ] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), content).unwrap();
    }
    trial
}

/// The commands that were not accepted, by reason.
async fn refusals(trial: &Trial) -> Vec<(String, f64)> {
    let page = reqwest::Client::new().get(format!("{}/metrics", trial.daemon.url)).bearer_auth(&trial.token);
    let mut scrape = Scrape::read(&page.send().await.unwrap().text().await.unwrap());
    let family = scrape.0.remove("infinibay_commands_refused_total").unwrap();
    family.samples.into_iter().map(|sample| (sample.labels["reason"].clone(), sample.value)).collect()
}

/// A VM of that image, and its key.
async fn sealed_vm(trial: &Trial, db: &TestDatabase, name: &str) -> (VmId, SealKey) {
    let mut request = trial.request(name);
    request["image"] = json!("cloudy");
    let (vm, _) = trial.client.create(request).await;
    let vm: VmId = vm.parse().unwrap();
    let key = db.store().await.load_vm(vm).await.unwrap().unwrap().seal.expect("it was given a key");
    (vm, key)
}

async fn agent_of(client: &Client, vm: VmId) -> Value {
    client.ask(AGENT, json!({ "id": vm.to_string() })).await["vm"]["agent"].take()
}

/// Waits until the VM's agent is told of so.
async fn is_told(client: &Client, vm: VmId, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let now = agent_of(client, vm).await;
        if wanted(&now) {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "the agent is {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What somebody who has the key never has to show.
fn hex(key: &SealKey) -> String {
    key.expose().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// The binary that `scripts/test` lays out.
fn shipped() -> PathBuf {
    let base = env::var_os("INFINIBAY_TEST_BASE").map_or("/var/lib/infinibay/base".into(), PathBuf::from);
    let path = base.join("infiniservice/binaries/linux/infiniservice");
    assert!(path.is_file(), "no agent at {}: `scripts/test` lays it out", path.display());
    path
}

/// The machine that a key has to be for on this one.
fn this_machine(vm: VmId) -> uuid::Uuid {
    let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").ok();
    uuid.and_then(|text| text.trim().parse().ok()).unwrap_or(vm.uuid())
}

/// Passes on in both directions, and keeps what the host said.
async fn pass_on(mut host: UnixStream, mut agent: UnixStream, seen: Arc<Mutex<Vec<u8>>>) -> io::Result<()> {
    let (mut told, mut heard) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = host.read(&mut told) => match read? {
                0 => return Ok(()),
                count => {
                    seen.lock().unwrap().extend_from_slice(&told[..count]);
                    agent.write_all(&told[..count]).await?;
                }
            },
            read = agent.read(&mut heard) => match read? {
                0 => return Ok(()),
                count => host.write_all(&heard[..count]).await?,
            },
        }
    }
}

/// An agent, ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

on_both! {
    async fn the_real_agent_and_the_real_controller_seal(db: TestDatabase) {
        let trial = trial(&db, &REQUIRED).await;
        let client = &trial.client;
        let (vm, key) = sealed_vm(&trial, &db, "real").await;
        let dir = tempfile::tempdir().unwrap();
        // What the medium's installer puts there.
        let file = dir.path().join("seal.key");
        fs::write(&file, key.file(this_machine(vm))).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        // Between the two stands what QEMU does in a guest's life: it passes on what it is given.
        let port = dir.path().join("port");
        let inside = Arc::new(UnixListener::bind(&port).unwrap());
        let passed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&passed);
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), vm, move |host, _| {
            let (inside, seen) = (Arc::clone(&inside), Arc::clone(&seen));
            async move {
                let (agent, _) = inside.accept().await?;
                pass_on(host, agent, seen).await
            }
        });
        let agent = Command::new(shipped())
            .env("INFINIBAY_VM_ID", vm.to_string())
            .env("INFINIBAY_DEVICE", &port)
            .env("INFINIBAY_SEAL_KEY", &file)
            .env("INFINIBAY_SEAL", "require")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _agent = Running(agent);
        is_told(client, vm, |agent| agent["seal"] == "SEALED").await;
        assert_eq!(client.output(&vm.to_string(), "echo 'se\"aled'").await, "se\"aled");
        let told = agent_of(client, vm).await;
        for reason in ["sealed", "badSeal", "replayed", "stale"] {
            assert_eq!(told["counters"][reason], "0", "{told}");
        }
        let passed = String::from_utf8(passed.lock().unwrap().clone()).unwrap();
        let commands: Vec<_> = passed.lines().filter(|line| line.contains("UnsafeCommand")).collect();
        assert_eq!(commands.len(), 1, "{commands:?}");
        assert!(commands[0].starts_with("{\"type\":\"signed\""), "{commands:?}");
        trial.daemon.stop();
    }

    async fn both_ways_are_sealed_and_nothing_else_counts(db: TestDatabase) {
        let trial = trial(&db, &[]).await;
        let client = &trial.client;
        let (vm, key) = sealed_vm(&trial, &db, "sealed").await;
        let name = vm.to_string();
        // Its clock is years off.
        let guest = FakeGuest::listen(&trial.home.socket_dir(), vm, sealing(key));
        let told = is_told(client, vm, |agent| agent["seal"] == "SEALED").await;
        assert!(told["clockSkewMs"].as_str().unwrap().starts_with("-7"), "{told}");

        assert_eq!(client.output(&name, "good").await, "good");
        let commands = guest.received_of("UnsafeCommand");
        assert_eq!(commands.len(), 1, "{commands:?}");
        assert_eq!(commands[0]["sealed"], true, "{commands:?}");

        // What somebody in between makes of an answer is refused, by its reason; the answer is taken.
        for (line, reason) in
            [("tampered", "badSeal"), ("bare", "unsealed"), ("forged", "badSeal"), ("skewed", "stale")]
        {
            let before = agent_of(client, vm).await["counters"][reason].as_str().unwrap().parse::<u64>().unwrap();
            assert_eq!(client.output(&name, line).await, "good", "{line}");
            let after = agent_of(client, vm).await["counters"][reason].as_str().unwrap().parse::<u64>().unwrap();
            assert_eq!(after, before + 1, "{line}");
        }
        // The guest's clock was set by an hour, and it greeted anew.
        assert_eq!(guest.received_of("Seal").len(), 2);
        assert_eq!(client.output(&name, "replayed").await, "good");
        let told = is_told(client, vm, |agent| agent["counters"]["replayed"] == "1").await;
        assert_eq!(told["counters"]["unsolicited"], "0", "it was not looked at: {told}");
        for sent in guest.received_of("UnsafeCommand") {
            assert_eq!(sent["sealed"], true, "{sent}");
        }
        trial.daemon.stop();
    }

    async fn unsealed_agents_keep_working_where_the_policy_lets_them(db: TestDatabase) {
        let trial = trial(&db, &[]).await;
        let client = &trial.client;
        let (vm, _) = sealed_vm(&trial, &db, "older").await;
        let guest = FakeGuest::listen(&trial.home.socket_dir(), vm, |s, r| well_behaved(s, r, 4, Vec::new()));
        client.agent_is(&vm.to_string(), "ONLINE", SOON).await;
        client.output(&vm.to_string(), "true").await;
        assert_eq!(guest.received_of("UnsafeCommand").len(), 1);
        // It is no secret that it is not sealed.
        assert_eq!(agent_of(client, vm).await["seal"], "UNSEALED");
        trial.daemon.stop();
    }

    async fn unsealed_agents_are_refused_where_the_seal_is_required(db: TestDatabase) {
        const RUN: &str = "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, \
            command: { unsafe: { rawCommand: \"true\" } }) { id } }";
        let trial = trial(&db, &REQUIRED).await;
        let client = &trial.client;
        let (vm, key) = sealed_vm(&trial, &db, "strict").await;
        let name = vm.to_string();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), vm, |s, r| well_behaved(s, r, 4, Vec::new()));
        is_told(client, vm, |agent| agent["seal"] == "REFUSED").await;
        let condition = client.condition(&name, "AGENT_CONNECTED", |it| it["reason"] == "Unsealed").await;
        assert_eq!(condition["status"], "FALSE", "{condition}");
        assert_eq!(client.refused(RUN, json!({ "vm": name })).await, "AGENT_UNSEALED");
        assert_eq!(guest.received_of("UnsafeCommand"), Vec::<Value>::new(), "nothing is sent");
        assert_eq!(refusals(&trial).await, [("AGENT_UNSEALED".to_owned(), 1.0)], "told apart from silence");
        let told = agent_of(client, vm).await;
        assert_ne!(told["counters"]["unsealed"], "0", "{told}");
        assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, 0, "nothing is taken");
        drop(guest);

        // A VM without a key cannot be asked for what it was never given.
        let plain = VmId::generate();
        let mut request = trial.request("plain");
        request["id"] = json!(plain.to_string());
        let _plain =
            FakeGuest::listen(&trial.home.socket_dir(), plain, |s, r| well_behaved(s, r, 4, Vec::new()));
        client.create(request).await;
        client.agent_is(&plain.to_string(), "ONLINE", SOON).await;
        client.output(&plain.to_string(), "true").await;
        assert_eq!(agent_of(client, plain).await["seal"], "UNUSED");

        // The one that was refused comes with its key.
        let _sealed = FakeGuest::listen(&trial.home.socket_dir(), vm, sealing(key));
        is_told(client, vm, |agent| agent["seal"] == "SEALED").await;
        assert_eq!(client.output(&name, "good").await, "good");
        trial.daemon.stop();
    }

    async fn the_key_travels_on_the_medium_until_the_first_boot_is_over(db: TestDatabase) {
        let trial = trial(&db, &REQUIRED).await;
        let client = &trial.client;
        let (vm, key) = sealed_vm(&trial, &db, "keyed").await;
        let name = vm.to_string();
        client.phase_is(&name, "INSTALLING", SOON).await;
        let seed = || {
            let all = fs::read_dir(trial.home.state_dir().join("seeds")).unwrap();
            let paths = all.map(|entry| entry.unwrap().path());
            paths.filter(|path| path.to_string_lossy().contains(&name)).map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
        };
        let before = seed();
        assert_eq!(before.len(), 1);
        assert!(holds(&before[0], &key.file(vm.uuid())) && holds(&before[0], "INFINIBAY_SEAL=require"));
        // Another VM has another one, and so has a copy.
        let (other, another) = sealed_vm(&trial, &db, "other").await;
        assert_ne!(key, another);

        let guest = FakeGuest::listen(&trial.home.socket_dir(), vm, sealing(key.clone()));
        wait("the medium to be scrubbed", SOON, || {
            let now = seed();
            (!holds(&now[0], &hex(&key))).then_some(())
        });
        client.output(&name, "good").await;
        drop(guest);
        let stop = client.change("stopVm", &name).await;
        client.succeeded(&stop, SOON).await;
        const CLONE: &str = "mutation($id: UUID!) { cloneVm(id: $id, input: { name: \"copy\" }) { vm { id } operation { id } } }";
        let data = client.ask(CLONE, json!({ "id": name })).await;
        let copy: VmId = data["cloneVm"]["vm"]["id"].as_str().unwrap().parse().unwrap();
        let copied = db.store().await.load_vm(copy).await.unwrap().unwrap().seal.expect("one of its own");
        assert!(copied != key && copied != another);

        let keys = "SELECT count(*) FROM vm_seals";
        assert_eq!(db.number(keys).await, 3);
        let delete = client.change("deleteVm", &other.to_string()).await;
        client.succeeded(&delete, SOON).await;
        assert_eq!(db.number(keys).await, 2, "it goes with its VM");
        let logged = fs::read(trial.home.path().join("log-1")).unwrap();
        for secret in [&key, &another, &copied] {
            assert!(!holds(&logged, &hex(secret)), "a key was logged");
        }
        trial.daemon.stop();
    }
}
