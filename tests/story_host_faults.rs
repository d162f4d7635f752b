//! What somebody with rights on the host does behind the controller's back, on real QEMU with a real
//! guest: its socket is taken away or another put in its place, its configuration and its disk are
//! removed. All is told, nothing else is spoken to, and what is put right again works again. And VMs
//! that are to be deleted while they are being made.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    io::ErrorKind,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Daemon, Home, Setup, wait},
    host::{self, DomainGuard, Pool},
};

const READY: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(90);
/// Nobody's.
const STRANGER: u32 = 65_534;
const RUN: &str =
    "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, command: { safe: { action: OS_INFO } }) { id } }";
const PULL_PLUG: &str = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";

struct Stage {
    // Ended before its home is removed.
    daemon: Daemon,
    home: Home,
    pool: Pool,
    token: String,
    client: Client,
    name: String,
    _guard: DomainGuard,
}

impl Stage {
    fn set(story: &str) -> Self {
        host::need_image("pocket");
        let number = |key: &str, value: &str| (format!("INFINIBAY__{key}"), value.to_owned());
        let home = Home::new(Setup {
            uri: "qemu:///system".into(),
            database_url: None,
            images_dir: host::test_images(),
            base_dir: host::test_base_dir(),
            env: vec![
                number("RECONCILE__SCAN_INTERVAL", "2s"),
                number("RECONCILE__MISSING_GRACE", "2s"),
                number("RECONCILE__RETRY_MAX", "1s"),
                number("AGENTS__RECONNECT_MAX", "2s"),
            ],
        });
        let pool = Pool::new(home.path());
        let token = home.admin();
        let daemon = home.start();
        let client = daemon.client(&token);
        let name = format!("story-{story}-{}", std::process::id());
        Self { daemon, home, pool, token, client, _guard: DomainGuard(name.clone()), name }
    }

    fn input(&self) -> Value {
        json!({
            "name": self.name, "image": "pocket", "vcpus": 1, "memoryMib": 192,
            "pool": self.pool.name, "network": "none",
        })
    }

    async fn ready(&self) -> String {
        let (vm, create) = self.client.create(self.input()).await;
        self.client.succeeded(&create, READY).await;
        self.is_heard(&vm).await;
        vm
    }

    async fn is_heard(&self, vm: &str) {
        self.client.agent_is(vm, "ONLINE", READY).await;
        assert_eq!(self.client.shell(vm, "echo here").await["response"]["stdout"], "here\n");
    }

    async fn asked(&self, mutation: &str, vm: &str) {
        let operation = self.client.change(mutation, vm).await;
        self.client.succeeded(&operation, READY).await;
    }

    async fn pulls_the_plug(&self, vm: &str) {
        let stop = self.client.ask(PULL_PLUG, json!({ "id": vm })).await;
        self.client.succeeded(stop["stopVm"]["operation"]["id"].as_str().unwrap(), SOON).await;
    }

    /// The code with which the operation fails.
    async fn fails(&self, mutation: &str, vm: &str) -> String {
        let operation = self.client.change(mutation, vm).await;
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let now = self.client.operation(&operation).await;
            if now["status"] == "FAILED" {
                return now["error"]["code"].as_str().unwrap().to_owned();
            }
            assert!(tokio::time::Instant::now() < deadline, "{mutation} is still at {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn drifts(&self, vm: &str, reason: &str) {
        self.client.condition(vm, "DRIFTED_FROM_INTENT", |it| it["reason"] == reason).await;
    }

    /// The channel cannot be used for this reason, nobody says that the agent is there, and no
    /// command is taken.
    async fn is_refused_because(&self, vm: &str, words: &str) {
        let told = |it: &Value| it["message"].as_str().unwrap().contains(words);
        let condition = self.client.condition(vm, "AGENT_CONNECTED", told).await;
        assert_ne!(condition["status"], "TRUE", "{condition}");
        assert_ne!(self.client.vm(vm).await["agent"]["connectivity"], "ONLINE");
        assert_eq!(self.client.refused(RUN, json!({ "vm": vm })).await, "AGENT_NOT_CONNECTED");
    }

    fn nothing_is_left(&self) {
        assert!(!host::domain_exists(&self.name), "the domain is left");
        let state = self.home.state_dir();
        let dirs =
            [self.pool.dir.clone(), self.home.socket_dir(), state.join("seeds"), state.join("console")];
        for dir in dirs {
            assert_eq!(host::files_in(&dir), Vec::<PathBuf>::new(), "left in {}", dir.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_sockets_place_is_not_taken_for_the_guest() {
    let mut stage = Stage::set("socket");
    let vm = stage.ready().await;
    let (socket, aside) = (stage.home.socket(&vm), stage.home.path().join("aside.sock"));

    // Taken away, and a stranger's put there: the link that stands is the guest's as before.
    std::fs::rename(&socket, &aside).unwrap();
    stage.is_heard(&vm).await;
    let stranger = UnixListener::bind(&socket).unwrap();
    stranger.set_nonblocking(true).unwrap();
    std::os::unix::fs::chown(&socket, Some(STRANGER), None).unwrap();
    stage.is_heard(&vm).await;

    // A controller that starts anew has nothing but the file.
    stage.home.between(&mut stage.daemon, |_| ());
    stage.client = stage.daemon.client(&stage.token);
    stage.is_refused_because(&vm, &format!("belongs to user {STRANGER}")).await;
    assert_eq!(stranger.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the stranger was spoken to");
    stage.client.phase_is(&vm, "RUNNING", SOON).await;

    std::fs::remove_file(&socket).unwrap();
    symlink(&aside, &socket).unwrap();
    stage.is_refused_because(&vm, "a symbolic link").await;
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "").unwrap();
    stage.is_refused_because(&vm, "no socket").await;

    std::fs::rename(&aside, &socket).unwrap();
    stage.is_heard(&vm).await;

    // Gone for good: the next start makes another.
    std::fs::remove_file(&socket).unwrap();
    stage.home.between(&mut stage.daemon, |_| ());
    stage.client = stage.daemon.client(&stage.token);
    stage.is_refused_because(&vm, "there is no socket").await;
    stage.pulls_the_plug(&vm).await;
    stage.asked("startVm", &vm).await;
    stage.is_heard(&vm).await;
    stage.asked("deleteVm", &vm).await;
    stage.nothing_is_left();
    stage.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_behind_our_back_is_told_and_can_be_put_back() {
    let stage = Stage::set("removed");
    let vm = stage.ready().await;
    let xml = stage.home.path().join("domain.xml");
    std::fs::write(&xml, host::virsh(&["dumpxml", "--inactive", "--security-info", &vm])).unwrap();
    let define = || host::virsh(&["define", xml.to_str().unwrap()]);

    // Its configuration, while it runs: it runs on, and is gone when it ends.
    host::virsh(&["undefine", &vm]);
    stage.drifts(&vm, "NotPersistent").await;
    stage.is_heard(&vm).await;
    assert_eq!(stage.client.vm(&vm).await["phase"], "RUNNING");
    define();
    stage.drifts(&vm, "AsAsked").await;
    host::virsh(&["undefine", &vm]);
    host::virsh(&["destroy", &vm]);
    stage.drifts(&vm, "DomainMissing").await;
    stage.client.phase_is(&vm, "MISSING", SOON).await;
    stage.client.agent_is(&vm, "OFFLINE", SOON).await;
    // Nobody makes it anew.
    assert_eq!(stage.fails("startVm", &vm).await, "VM_MISSING");
    assert!(!host::domain_exists(&vm), "it was made anew");
    define();
    stage.asked("startVm", &vm).await;
    stage.is_heard(&vm).await;

    // While it is off.
    stage.pulls_the_plug(&vm).await;
    host::virsh(&["undefine", &vm]);
    stage.client.phase_is(&vm, "MISSING", SOON).await;
    define();
    stage.client.phase_is(&vm, "STOPPED", SOON).await;

    // Its disk.
    let [disk] = &stage.pool.volumes()[..] else { panic!("{:?}", stage.pool.volumes()) };
    let aside = stage.home.path().join("aside.qcow2");
    std::fs::rename(disk, &aside).unwrap();
    assert_eq!(stage.fails("startVm", &vm).await, "STEP_FAILED");
    stage.client.phase_is(&vm, "FAILED", SOON).await;
    stage.client.condition(&vm, "RECONCILED", |it| it["status"] == "FALSE").await;
    std::fs::rename(&aside, disk).unwrap();
    stage.asked("startVm", &vm).await;
    stage.is_heard(&vm).await;

    // For good, while it runs, and the pool does not know yet: nothing keeps the VM from going.
    std::fs::remove_file(disk).unwrap();
    stage.asked("deleteVm", &vm).await;
    stage.nothing_is_left();
    stage.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_can_be_deleted_at_every_moment_of_its_making() {
    let stage = Stage::set("brief");
    let process = PathBuf::from(format!("/run/libvirt/qemu/{}.pid", stage.name));
    let exists = |path: &Path| path.exists().then_some(());
    for moment in ["accepted", "disk", "defined", "process", "socket", "speaking"] {
        let (vm, create) = stage.client.create(stage.input()).await;
        match moment {
            "accepted" => {}
            "disk" => drop(wait("the disk", SOON, || stage.pool.volumes().pop())),
            "defined" => wait("the domain", SOON, || host::domain_exists(&vm).then_some(())),
            "process" => wait("the process", SOON, || exists(&process)),
            "socket" => wait("the socket", SOON, || exists(&stage.home.socket(&vm))),
            _ => stage.client.agent_is(&vm, "ONLINE", READY).await,
        }
        stage.asked("deleteVm", &vm).await;
        let create = stage.client.operation(&create).await;
        assert!(
            ["SUPERSEDED", "SUCCEEDED"].contains(&create["status"].as_str().unwrap()),
            "{moment}: {create}"
        );
        assert!(!process.exists(), "{moment}: the process is left");
        stage.nothing_is_left();
    }
    stage.daemon.stop();
}
