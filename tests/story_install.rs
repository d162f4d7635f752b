//! Debian's own installer, with answers that this controller wrote: from a disc to a system whose agent
//! answers, and, where packages cannot be had, to a stuck installation that is told as one.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::{
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    daemon::{Client, Home, Setup},
    host::{self, DomainGuard, Pool},
    nothing::NothingServer,
};

/// This host on libvirt's network `default`, as its guests see it.
const HOST: &str = "192.168.122.1";
const MEDIUM: &str = "debian-13-installer";

struct Stage {
    home: Home,
    pool: Pool,
    token: String,
}

impl Stage {
    fn new(env: &[(&str, &str)]) -> Self {
        let disc = installer();
        assert!(disc.exists(), "{} is missing; scripts/test makes it", disc.display());
        let own = [
            ("INFINIBAY__GUESTS__LISTEN", format!("{HOST}:{}", free_port())),
            ("INFINIBAY__MEDIA__IMPORT_DIRS", disc.parent().unwrap().display().to_string()),
        ];
        let given = env.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env = own.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect();
        let home = Home::new(Setup {
            uri: "qemu:///system".into(),
            database_url: None,
            images_dir: host::test_images(),
            base_dir: host::test_base_dir(),
            env,
        });
        let pool = Pool::new(home.path());
        let token = home.admin();
        Self { home, pool, token }
    }

    fn name(&self) -> String {
        format!("story-install-{}", std::process::id())
    }

    /// What is asked for; `mirror` is where packages come from.
    fn input(&self, mirror: Option<&str>) -> Value {
        json!({
            "name": self.name(), "vcpus": 2, "memoryMib": 1024, "diskGib": 8, "pool": self.pool.name,
            "install": { "medium": MEDIUM, "mirror": mirror },
            "unattended": {
                "user": "ada", "password": "correct horse", "hostname": "installed", "timezone": "Europe/Madrid",
                "locale": "en_US.UTF-8", "keyboard": "us", "packages": ["hello"],
                "firstBootCommands": ["echo done > /root/first-boot"],
            },
        })
    }

    fn nothing_is_left(&self) {
        assert!(!host::domain_exists(&self.name()), "the domain is left");
        assert_eq!(self.pool.volumes(), Vec::<PathBuf>::new());
        for dir in ["seeds", "console"] {
            assert_eq!(host::files_in(&self.home.state_dir().join(dir)), Vec::<PathBuf>::new(), "{dir}");
        }
        assert_eq!(host::files_in(&self.home.socket_dir()), Vec::<PathBuf>::new());
    }
}

/// The disc: `scripts/test` makes it.
fn installer() -> PathBuf {
    let dir = std::env::var_os("INFINIBAY_TEST_INSTALLERS")
        .map_or_else(|| PathBuf::from("/var/lib/infinibay/installers"), PathBuf::from);
    dir.join("debian-13.iso")
}

fn free_port() -> u16 {
    let bound = TcpListener::bind((HOST, 0));
    let bound = bound.unwrap_or_else(|error| panic!("libvirt's network `default` is not up: {error}"));
    bound.local_addr().unwrap().port()
}

async fn import(client: &Client) {
    const IMPORT: &str = "mutation($i: ImportMediumInput!) { importMedium(input: $i) { id } }";
    let input = json!({ "name": MEDIUM, "kind": "INSTALLATION", "path": installer() });
    client.ask(IMPORT, json!({ "i": input })).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        const LOOK: &str = "query($n: String!) { medium(name: $n) { state error { message } } }";
        let now = client.ask(LOOK, json!({ "n": MEDIUM })).await["medium"].take();
        match now["state"].as_str() {
            Some("READY") => return,
            Some("FAILED") => panic!("the disc was refused: {now}"),
            _ => assert!(Instant::now() < deadline, "the disc is still {now}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Follows the operation to its end; prints each stage as it comes. Gives its end and the stages.
async fn followed(client: &Client, operation: &str, limit: Duration) -> (Value, Vec<String>) {
    let begun = Instant::now();
    let mut stages: Vec<String> = Vec::new();
    loop {
        let now = client.operation(operation).await;
        let stage = now["stage"].as_str().unwrap_or_default();
        if stages.last().is_none_or(|last| last != stage) {
            println!("[{:>5} s] {} % {stage}", begun.elapsed().as_secs(), now["progress"]);
            stages.push(stage.to_owned());
        }
        if !matches!(now["status"].as_str(), Some("PENDING" | "RUNNING")) {
            return (now, stages);
        }
        assert!(begun.elapsed() < limit, "the operation is still at {now} after {limit:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn condition(client: &Client, vm: &str, kind: &str) -> Value {
    let seen = client.vm(vm).await;
    let conditions = seen["conditions"].as_array().unwrap();
    conditions.iter().find(|it| it["type"] == kind).cloned().unwrap_or_else(|| panic!("no {kind}: {seen}"))
}

async fn deleted(client: &Client, vm: &str) {
    let operation = client.change("deleteVm", vm).await;
    client.succeeded(&operation, Duration::from_secs(60)).await;
}

/// A mirror that has nothing: the installer asks what to do, of nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_installer_that_waits_for_an_answer_is_told_as_stuck() {
    let mirror = NothingServer::at(HOST).await;
    let stage = Stage::new(&[("INFINIBAY__INSTALLS__STALL_TIMEOUT", "45s")]);
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    import(&client).await;
    let _guard = DomainGuard(stage.name());
    let (vm, operation) = client.create(stage.input(Some(&format!("{}/debian", mirror.url())))).await;
    let (end, stages) = followed(&client, &operation, Duration::from_secs(600)).await;

    assert_eq!((&end["status"], &end["error"]["code"]), (&json!("FAILED"), &json!("INSTALL_STUCK")), "{end}");
    assert!(mirror.asked() > 0, "the installer did not ask the mirror it was told; it was at {stages:?}");
    assert!(stages.iter().any(|it| it.contains("installer-")), "the installer's words: {stages:?}");
    let told = condition(&client, &vm, "INSTALL_PROGRESSING").await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("FALSE"), &json!("InstallStuck")), "{told}");
    for message in [&told["message"], &end["error"]["message"]] {
        let message = message.as_str().unwrap();
        assert!(message.contains("installer-"), "no phase in {message:?}");
        assert!(message.to_lowercase().contains("mirror"), "no line of the console in {message:?}");
        assert!(!message.contains('\u{1b}'), "an escape sequence in {message:?}");
    }
    assert_eq!(
        host::domain_state(&stage.name()).as_deref(),
        Some("running"),
        "it is left for a person to look"
    );

    deleted(&client, &vm).await;
    stage.nothing_is_left();
    daemon.stop();
}

/// The whole of it, with the mirror that INFINIBAY_TEST_MIRROR names.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 20 minutes and a mirror of Debian; scripts/test-install debian runs it"]
async fn debian_is_installed_from_its_disc() {
    // Without a directory of templates, the answers are those that are shipped.
    let changed = changed_answers().map(in_a_directory);
    let dir = changed.as_ref().map(|dir| dir.path().display().to_string());
    let env = dir.as_deref().map(|dir| ("INFINIBAY__PATHS__TEMPLATES_DIR", dir));
    let stage = Stage::new(env.as_slice());
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    import(&client).await;
    let _guard = DomainGuard(stage.name());
    let mirror = std::env::var("INFINIBAY_TEST_MIRROR").ok();
    let (vm, operation) = client.create(stage.input(mirror.as_deref())).await;
    let (end, stages) = followed(&client, &operation, Duration::from_secs(3 * 3600)).await;
    assert_eq!(end["status"], "SUCCEEDED", "{end}; the conditions: {}", client.vm(&vm).await["conditions"]);
    println!("{} stages were seen", stages.len());

    client.agent_is(&vm, "ONLINE", Duration::from_secs(60)).await;
    let run = client
        .shell(
            &vm,
            "cat /etc/debian_version; hostname; hello; id ada; readlink /etc/localtime; cat /root/first-boot",
        )
        .await;
    assert_eq!(run["success"], true, "{run}");
    let out = run["response"]["stdout"].as_str().unwrap();
    for expected in ["13.", "installed", "Hello, world!", "ada", "Europe/Madrid", "done"] {
        assert!(out.contains(expected), "{expected} is not in {out}");
    }
    let xml = host::virsh(&["dumpxml", &stage.name()]);
    assert!(!xml.contains("<kernel>") && !xml.contains(".iso"), "something of the installer is left: {xml}");
    assert_eq!(host::files_in(&stage.home.state_dir().join("seeds")), Vec::<PathBuf>::new());

    // What is installed outlives the power.
    let stop = client.change("stopVm", &vm).await;
    client.succeeded(&stop, Duration::from_secs(180)).await;
    let start = client.change("startVm", &vm).await;
    client.succeeded(&start, Duration::from_secs(60)).await;
    client.agent_is(&vm, "ONLINE", Duration::from_secs(420)).await;
    deleted(&client, &vm).await;
    stage.nothing_is_left();
    daemon.stop();
}

/// Answers of an operator's own, only where `scripts/test-install` was asked for them. A mirror may not
/// have the modules of the disc's kernel, which the disc brings along; without a word the installer would
/// ask whether that is meant. And what it has may not fit its signature.
fn changed_answers() -> Option<String> {
    const OURS: &str = include_str!("../domain-templates/unattended/debian.preseed");
    const LINE: &str = "#_preseed_V1\n";
    let said = |name: &str, word: &str| std::env::var_os(name).is_some_and(|said| said == word);
    let added = [
        ("INFINIBAY_TEST_KERNEL_MODULES", "no", "d-i anna/no_kernel_modules boolean true\n"),
        ("INFINIBAY_TEST_UNSIGNED", "yes", "d-i debian-installer/allow_unauthenticated boolean true\n"),
    ];
    let lines: String =
        added.iter().filter(|(name, word, _)| said(name, word)).map(|(_, _, line)| *line).collect();
    assert!(OURS.contains(LINE), "the template has changed");
    (!lines.is_empty()).then(|| OURS.replacen(LINE, &format!("{LINE}{lines}"), 1))
}

fn in_a_directory(answers: String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("unattended")).unwrap();
    std::fs::write(dir.path().join("unattended/debian.preseed"), answers).unwrap();
    dir
}
