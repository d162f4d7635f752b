//! A person at the command line: signs in, makes a VM and sees it come up, looks at it, has it do
//! something, and throws it away. And a hostile guest, which gets no hold of his terminal.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    guest::{FakeGuest, Received, handshake_line, metrics_line, now},
    people::{self, Person},
    trial::Trial,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

const SOON: Duration = Duration::from_secs(30);
/// Retitles a terminal, colours it, hides what follows, and turns it around.
const HOSTILE: &str = "\x1b]0;owned\x07\x1b[31mred\x1b[8mhidden\u{9b}2J\u{202e}around\rover";

/// An agent that knows a few lines.
async fn agent(stream: UnixStream, received: Received) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(handshake_line(4).as_bytes()).await?;
    writer.write_all(metrics_line(25.0).as_bytes()).await?;
    let mut incoming = BufReader::new(reader).lines();
    while let Some(line) = incoming.next_line().await? {
        let message: Value = serde_json::from_str(&line)?;
        received.lock().unwrap().push(message.clone());
        let Some(raw) = message["raw_command"].as_str() else { continue };
        let (code, stdout, stderr) = match raw {
            "never" => continue,
            "hostile" => (0, HOSTILE, HOSTILE),
            "false" => (3, "", "no such luck\n"),
            other => (0, other, ""),
        };
        let answer = json!({
            "type": "response", "id": message["id"], "success": code == 0, "exit_code": code, "stdout": stdout,
            "stderr": stderr, "execution_time_ms": 1, "command_type": "unsafe", "data": null, "error": null,
            "timestamp": now(),
        });
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

/// Waits until the daemon knows a VM of this name; its id.
async fn known(trial: &Trial, name: &str) -> String {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let told = trial.client.ask("{ vms { nodes { id name } } }", json!({})).await;
        let vms = told["vms"]["nodes"].as_array().unwrap();
        if let Some(vm) = vms.iter().find(|vm| vm["name"] == name) {
            return vm["id"].as_str().unwrap().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "no VM is called {name}: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const CREATE: [&str; 9] =
    ["--image", "blank", "--memory", "128M", "--pool", "default-pool", "--network", "none", "--vcpus=1"];

/// A VM with our agent in it, made by this person, and what its making said.
async fn made(trial: &Trial, person: &Person, name: &str) -> (String, FakeGuest, people::Ran) {
    let child = person.begin(&[&["create", name], &CREATE[..]].concat());
    let vm = known(trial, name).await;
    let guest = FakeGuest::listen(&trial.home.socket_dir(), vm.parse().unwrap(), agent);
    (vm, guest, people::ended(child).await)
}

on_both! {
    async fn a_vm_is_made_looked_at_commanded_and_deleted(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let person = Person::with(&trial.daemon.url, &trial.token);
        assert_eq!(person.run(&["list", "--json"]).await.json(), json!([]));

        // The stages come as lines where nobody watches.
        let (vm, guest, ran) = made(&trial, &person, "web-1").await;
        assert!(ran.err.contains("creating web-1: ") && ran.err.contains("(100 %)"), "{ran:?}");
        assert_eq!(ran.well(), "web-1: created\n");

        let listed = person.run(&["list"]).await.well();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "PHASE", "AGENT", "CPUS", "MEMORY", "ADDRESS", "ID"]);
        assert_eq!(lines[1], ["web-1", "running", "online", "1", "128", "MiB", "-", &*vm]);
        assert_eq!(person.run(&["vm", "ls"]).await.well(), listed);
        let list = person.run(&["list", "--json"]).await.json();
        assert_eq!((&list[0]["id"], &list[0]["phase"]), (&json!(vm), &json!("RUNNING")));

        // By name and by id alike.
        let shown = person.run(&["show", "web-1", "--json"]).await.json();
        assert_eq!(shown["id"], vm);
        assert_eq!(person.run(&["show", &vm, "--json"]).await.json()["id"], vm);
        let words = person.run(&["show", "web-1"]).await.well();
        assert!(words.contains(&vm) && words.contains("AGENT_CONNECTED"), "{words}");

        // Output and status are the command's.
        assert_eq!(person.run(&["exec", "web-1", "uname", "-a"]).await.well(), "uname -a");
        let failed = person.run(&["exec", "web-1", "false"]).await;
        assert_eq!((failed.status, &*failed.out, &*failed.err), (3, "", "no such luck\n"));
        let told = person.run(&["exec", "web-1", "--json", "false"]).await;
        let answer: Value = serde_json::from_str(&told.out).unwrap();
        assert_eq!((told.status, &answer["status"], &answer["response"]["exit_code"]),
            (3, &json!("ANSWERED"), &json!(3)));
        person.run(&["exec", "web-1", "--timeout", "1", "never"]).await.refused(124, "");

        assert_eq!(person.run(&["stop", "web-1", "--force"]).await.well(), "web-1: stopped\n");
        assert_eq!(person.run(&["start", "web-1"]).await.well(), "web-1: started\n");

        // A QEMU that is gone listens no more.
        person.run(&["stop", "web-1", "--force"]).await.well();
        drop(guest);
        // Nobody can be asked, so nothing is deleted.
        person.run(&["delete", "web-1"]).await.refused(64, "--yes");
        assert_eq!(person.run(&["delete", "web-1", "--yes"]).await.well(), "web-1: deleted\n");
        assert_eq!(person.run(&["list", "--json"]).await.json(), json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_status_and_its_code() {
    let db = support::database::TestDatabase::new(support::database::Backend::Sqlite).await;
    let trial = Trial::start(&db).await;
    let url = &trial.daemon.url;
    let person = Person::with(url, &trial.token);
    let nobody = uuid::Uuid::new_v4().to_string();
    for vm in ["nobody", &*nobody] {
        for command in [
            &["show", vm][..],
            &["start", vm],
            &["exec", vm, "true"],
            &["logs", vm],
            &["metrics", vm],
            &["delete", "--yes", vm],
            &["snapshots", "list", vm],
            &["logs", vm, "--follow"],
        ] {
            person.run(command).await.refused(66, "VM_NOT_FOUND");
        }
    }
    let create = |name| [&["create", name], &CREATE[..]].concat();
    person.run(&create("a b")).await.refused(65, "INVALID_INPUT");
    person.run(&["create", "x", "--image", "none-such"]).await.refused(66, "IMAGE_NOT_FOUND");
    let told = person.run(&["create", "x", "--image", "none-such", "--json"]).await;
    let error: Value = serde_json::from_str(&told.err).unwrap();
    assert_eq!(error["error"]["code"], "IMAGE_NOT_FOUND");
    assert_eq!(told.out, "");
    let stranger = Person::with(url, "ibt_wrong");
    stranger.run(&["list"]).await.refused(77, "UNAUTHENTICATED");
    stranger.run(&["events", "--follow", &nobody]).await.refused(77, "UNAUTHENTICATED");
    person.run(&[&create("off")[..], &["--no-wait"]].concat()).await.well();
    person.run(&["exec", "off", "true"]).await.refused(65, "AGENT_NOT_CONNECTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_guest_gets_no_hold_of_a_terminal() {
    let db = support::database::TestDatabase::new(support::database::Backend::Sqlite).await;
    let trial = Trial::start(&db).await;
    let person = Person::with(&trial.daemon.url, &trial.token);
    let (_, _guest, ran) = made(&trial, &person, "evil").await;
    ran.well();
    // A program gets what the guest gave.
    let piped = person.run(&["exec", "evil", "hostile"]).await;
    assert_eq!((&*piped.out, &*piped.err), (HOSTILE, HOSTILE));
    // A terminal is shown it.
    let shown = person.run_on_a_terminal(&["exec", "evil", "hostile"]).await.well();
    let escaped = "\\x1b]0;owned\\x07\\x1b[31mred\\x1b[8mhidden\\x9b2J\\u{202e}around\\rover";
    assert_eq!(shown.matches(escaped).count(), 2, "{shown:?}");
    for steering in ['\x1b', '\x07', '\u{9b}', '\u{202e}'] {
        assert!(!shown.contains(steering), "{shown:?}");
    }
    let shown = person.run_on_a_terminal(&["exec", "evil", "--json", "hostile"]).await.well();
    assert!(!shown.contains(['\x1b', '\x07', '\u{9b}', '\u{202e}']), "{shown:?}");
    let told: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(told["response"]["stdout"], HOSTILE);
}
