//! A person who wants to know what happened, and what happens: the past as far as it is kept, and a watch that
//! outlives the daemon's restart without a gap that nobody told of.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{net::TcpListener, time::Duration};

use serde_json::{Value, json};
use support::{
    database::{Backend, TestDatabase},
    guest::{FakeGuest, well_behaved},
    people::Person,
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

/// Free, and none that is given to whoever asks for any while the daemon is away.
fn port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (first..30_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// The types of what was told, of one VM.
fn types(lines: &str, vm: &str) -> Vec<String> {
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|it| it["vmId"] == vm).map(|it| it["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_goes_on_when_the_daemon_starts_anew() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial = Trial::start_with(&db, &[("INFINIBAY__API__PORT", &port().to_string())]).await;
    let (one, guest) = heard(&trial, "one").await;
    let (other, _other_guest) = heard(&trial, "other").await;
    let url = trial.daemon.url.clone();
    let person = Person::with(&url, &trial.token);

    let words = person.watch(&["events", "--follow"]);
    let programs = person.watch(&["events", "--follow", "--json", "one"]);
    for name in ["one", "other"] {
        words.out.until(&format!("  {name}  snapshot  ")).await;
    }
    programs.out.until("\"snapshot\"").await;

    let Trial { home, daemon, token, library: _library, .. } = trial;
    drop(daemon);
    words.err.until("trying again").await;
    assert!(
        words.err.now().starts_with("infinibay: the connection to the daemon broke"),
        "{}",
        words.err.now()
    );
    let failure = programs.err.until("\n").await;
    assert_eq!(serde_json::from_str::<Value>(&failure).unwrap()["error"]["code"], "UNREACHABLE");
    // It is tried in vain at least once.
    words.err.until("trying again in 2 s").await;
    let daemon = home.start();
    assert_eq!(daemon.url, url);
    words.err.until("connected again").await;
    for name in ["one", "other"] {
        words.out.until(&format!("  {name}  lagged  since=")).await;
    }
    programs.out.until("\"lagged\"").await;

    // A QEMU that is gone listens no more.
    drop(guest);
    // What happens now is told; who is told no more of anything ends well.
    person.run(&["delete", "--yes", "one"]).await.well();
    let ran = programs.ended().await;
    assert!(ran.err.lines().count() == 1, "{ran:?}");
    let told = types(&ran.well(), &one);
    let gap = told.iter().position(|kind| kind == "lagged").unwrap();
    assert_eq!((&*told[0], &*told[gap + 1]), ("snapshot", "snapshot"), "{told:?}");
    assert_eq!(told.iter().filter(|kind| *kind == "lagged").count(), 1, "{told:?}");
    assert_eq!(told.last().unwrap(), "vm:deleted");
    words.err.until("one: nothing more is told of it").await;

    // One whose token is ended is told so, and does not try again.
    let ended = reqwest::Client::new().post(format!("{url}/auth/logout")).bearer_auth(&token).send().await;
    assert_eq!(ended.unwrap().status(), 200);
    let ran = words.ended().await;
    ran.refused(77, "UNAUTHENTICATED");
    assert!(!ran.out.contains(&format!("{other}  lagged")), "an id where there is a name: {ran:?}");
}

on_both! {
    async fn the_past_is_told_as_far_as_it_is_kept(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _guest) = heard(&trial, "one").await;
        let person = Person::with(&trial.daemon.url, &trial.token);
        person.run(&["exec", "one", "uname", "-a"]).await.well();

        let past = person.run(&["events", "one"]).await.well();
        assert!(past.contains("  one  command, answered: uname -a\n"), "{past}");
        let told = person.run(&["events", "one", "--json"]).await.json();
        assert_eq!(told["commands"][0]["vmId"], vm);
        assert_eq!(told["commands"][0]["commands"][0]["status"], "ANSWERED");
        assert_eq!((&told["alerts"], &told["audit"]), (&json!([]), &Value::Null));
        // Of the whole host, what no VM has to be named for.
        assert_eq!(person.run(&["events"]).await.well(), "");

        // Who asked for what, of one VM and of everything.
        let audit = person.run(&["events", "one", "--audit"]).await.well();
        assert!(audit.contains("  one  asked for, done: vm.create by "), "{audit}");
        assert!(audit.find("vm.create").unwrap() < audit.find("command, answered").unwrap(), "{audit}");
        assert!(!audit.contains("token.issue"), "{audit}");
        let all = person.run(&["events", "--audit", "--json"]).await.json();
        assert!(all["audit"].as_array().unwrap().iter().any(|row| row["action"] == "token.issue"), "{all}");

        let make = "mutation { createUser(input: { name: \"bob\", email: \"bob@example.org\", password: \"correct horse\" }) { id } }";
        trial.client.ask(make, json!({})).await;
        let (url, bob) = (&trial.daemon.url, Person::new());
        bob.run_with(&["login", "--url", url, "--email", "bob@example.org"], "correct horse\n").await.well();
        bob.run(&["events", "--audit"]).await.refused(77, "FORBIDDEN");
        bob.run(&["events", "--audit", "--follow"]).await.refused(64, "--follow");
    }
}
