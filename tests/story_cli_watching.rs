//! A person at the command line who signs in, watches, goes back and changes his mind: profiles,
//! consoles, events, readings, snapshots, and Ctrl-C.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::Child,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{
    database::{Backend, TestDatabase},
    guest::{FakeGuest, well_behaved},
    people::{Person, ended},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(30);

/// A VM whose agent is heard.
async fn heard(trial: &Trial, name: &str) -> (String, FakeGuest) {
    let id = uuid::Uuid::new_v4().to_string();
    let guest = FakeGuest::listen(&trial.home.socket_dir(), id.parse().unwrap(), |s, r| {
        well_behaved(s, r, 4, Vec::new())
    });
    let mut request = trial.request(name);
    request["id"] = json!(id);
    let (vm, operation) = trial.client.create(request).await;
    trial.client.succeeded(&operation, SOON).await;
    (vm, guest)
}

/// Ctrl-C.
fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Reads lines of what it says until one holds the words; all of them.
async fn says(child: &mut Child, words: &'static str) -> String {
    let output = child.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let (mut reader, mut said) = (BufReader::new(output), String::new());
        while !said.contains(words) && reader.read_line(&mut said).unwrap() > 0 {}
        (said, reader)
    });
    let (said, reader) = tokio::time::timeout(SOON, read).await.expect("it says nothing").unwrap();
    assert!(said.contains(words), "{words} is not in {said:?}");
    child.stdout = Some(reader.into_inner());
    said
}

on_both! {
    async fn snapshots_make_a_tree_that_is_gone_back_to(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let person = Person::with(&trial.daemon.url, &trial.token);
        let (_, _guest) = heard(&trial, "treed").await;
        assert_eq!(person.run(&["snapshots", "list", "treed"]).await.well(), "");
        let taken = person.run(&["snapshots", "create", "treed", "one", "--description", "before"]).await.well();
        assert_eq!(taken, "treed: snapshot one taken\n");
        person.run(&["snapshots", "create", "treed", "two"]).await.well();
        let tree = person.run(&["snapshots", "list", "treed"]).await.well();
        assert!(tree.contains("\none ") && tree.contains("before") && tree.contains("\n└─ two * "), "{tree}");
        person.run(&["snapshots", "create", "treed", "two"]).await.refused(65, "SNAPSHOT_EXISTS");
        person.run(&["snapshots", "revert", "treed", "one"]).await.refused(64, "--yes");
        person.run(&["snapshots", "revert", "treed", "one", "--yes"]).await.well();
        person.run(&["snapshots", "delete", "treed", "none-such", "--yes"]).await.refused(66, "SNAPSHOT_NOT_FOUND");
        person.run(&["snapshots", "delete", "treed", "one", "--children", "--yes"]).await.well();
        assert_eq!(person.run(&["snapshots", "list", "treed", "--json"]).await.json(), json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_as_it_happens_until_ctrl_c() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial = Trial::start_with(&db, &[("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s")]).await;
    let person = Person::with(&trial.daemon.url, &trial.token);
    let (vm, _guest) = heard(&trial, "watched").await;

    // The console: what there is, then what is added, with nothing that steers a terminal.
    let log = trial.home.state_dir().join("console").join(format!("vm-{vm}.log"));
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    fs::write(&log, "first\x1b[31m boot\n").unwrap();
    assert_eq!(person.run(&["logs", "watched"]).await.well(), "first boot\n");
    let mut following = person.begin(&["logs", "watched", "--follow"]);
    assert_eq!(says(&mut following, "first boot").await, "first boot\n");
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"second boot\n").unwrap();
    assert_eq!(says(&mut following, "second").await, "second boot\n");
    interrupt(&following);
    ended(following).await.refused(130, "interrupted");

    // Events, as words and as JSON.
    let mut words = person.begin(&["events", "--follow"]);
    let mut programs = person.begin(&["events", "watched", "--follow", "--json"]);
    let talk = async {
        loop {
            // Whoever subscribes late hears of a later command.
            person.run(&["exec", "watched", "true"]).await.well();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let both = async { (says(&mut words, "vm:command").await, says(&mut programs, "vm:command").await) };
    let (line, object) = tokio::select! { told = both => told, () = talk => unreachable!("it has no end") };
    assert!(line.contains("  watched  "), "{line}");
    let event: Value = serde_json::from_str(object.lines().last().unwrap()).unwrap();
    assert_eq!(event["vmId"], vm);
    for following in [words, programs] {
        interrupt(&following);
        ended(following).await.refused(130, "");
    }
    person.run(&["events", "watched"]).await.well();

    // Readings, as soon as one is stored.
    let deadline = Instant::now() + SOON;
    let chart = loop {
        let ran = person.run(&["metrics", "watched"]).await;
        if ran.out.contains("cpu usage") {
            break ran.well();
        }
        assert!(Instant::now() < deadline, "{ran:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(chart.contains('▁') && chart.contains('%') && chart.contains("memory used"), "{chart}");
    assert_eq!(person.run(&["metrics", "watched", "--json"]).await.json()["resolution"], "RAW");

    // A command that is interrupted is cancelled in the guest's queue.
    let running = person.begin(&["exec", "watched", "--timeout", "60", "sleep", "50000"]);
    let pending = "query($vm: UUID!) { commandLog(vmId: $vm, first: 1) { nodes { status } } }";
    let status = async |wanted: &str| {
        let deadline = Instant::now() + SOON;
        loop {
            let told = trial.client.ask(pending, json!({ "vm": vm })).await;
            if told["commandLog"]["nodes"][0]["status"] == wanted {
                break;
            }
            assert!(Instant::now() < deadline, "the command is not {wanted}: {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    status("PENDING").await;
    interrupt(&running);
    ended(running).await.refused(130, "cancelled");
    status("CANCELLED").await;

    // An operation that is interrupted goes on, and its id is told. No agent is ever heard of this one.
    let create =
        ["create", "late", "--image", "blank", "--memory=128", "--network=none", "--pool=default-pool"];
    let mut making = person.begin(&create);
    let stages = making.stderr.take().unwrap();
    let first = tokio::task::spawn_blocking(move || {
        let (mut reader, mut said) = (BufReader::new(stages), String::new());
        reader.read_line(&mut said).unwrap();
        (said, reader)
    });
    let (said, mut reader) = tokio::time::timeout(SOON, first).await.expect("no stage is told").unwrap();
    assert!(said.starts_with("creating late: "), "{said}");
    interrupt(&making);
    let ran = ended(making).await;
    assert_eq!(ran.status, 130, "{ran:?}");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("goes on"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_once_and_his_profile_is_his_alone() {
    const PASSWORD: &str = "correct horse battery";
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial = Trial::start(&db).await;
    let make = "mutation($i: CreateUserInput!) { createUser(input: $i) { id } }";
    let input = json!({ "name": "eve", "email": "eve@example.org", "password": PASSWORD });
    trial.client.ask(make, json!({ "i": input })).await;
    let (url, person) = (&trial.daemon.url, Person::new());
    person.run(&["list"]).await.refused(78, "infinibay login");
    // With a password, which leaves a token and no session.
    let login = ["login", "--url", url, "--email", "eve@example.org"];
    person.run_with(&login, "wrong password\n").await.refused(77, "FORBIDDEN");
    let said = person.run_with(&login, &format!("{PASSWORD}\n")).await.well();
    assert!(said.contains("as eve") && !said.contains(PASSWORD), "{said}");
    assert_eq!(db.number("SELECT count(*) FROM sessions").await, 0);
    let file = person.home().join(".config/infinibay/profiles.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains(PASSWORD));
    assert!(person.run(&["whoami"]).await.well().starts_with("eve (member)"));
    assert_eq!(person.run(&["list", "--json"]).await.json(), json!([]));
    // Another one, with a token.
    let login = ["login", "--url", url, "--profile", "root"];
    person.run_with(&login, "ibt_wrong\n").await.refused(77, "UNAUTHENTICATED");
    person.run_with(&login, &format!("{}\n", trial.token)).await.well();
    assert!(person.run(&["whoami", "--profile", "root"]).await.well().starts_with("admin (admin)"));
    assert!(person.run(&["whoami"]).await.well().starts_with("eve (member)"));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    person.run(&["whoami"]).await.refused(78, "chmod 600");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    person.run(&["logout", "--profile", "root"]).await.well();
    person.run(&["whoami", "--profile", "root"]).await.refused(78, "no profile");
}
