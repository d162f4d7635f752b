//! A person at the command line who signs in and out: what becomes of his token, where the daemon is away
//! too, and whom he believes over https.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::fs;

use serde_json::json;
use support::{
    daemon::{Home, Setup},
    database::{Backend, TestDatabase},
    people::Person,
    raw,
    trial::Trial,
};

const PASSWORD: &str = "correct horse battery";

async fn eve(trial: &Trial) {
    let make = "mutation($i: CreateUserInput!) { createUser(input: $i) { id } }";
    let input = json!({ "name": "eve", "email": "eve@example.org", "password": PASSWORD });
    trial.client.ask(make, json!({ "i": input })).await;
}

on_both! {
    async fn who_signs_out_leaves_no_good_token(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        eve(&trial).await;
        let (url, person) = (&trial.daemon.url, Person::new());
        let tokens = async || db.number("SELECT count(*) FROM tokens").await;
        let before = tokens().await;

        // One that was issued to it, and can do nothing but look.
        let login = ["login", "--url", url, "--email", "eve@example.org", "--read-only"];
        person.run_with(&login, &format!("{PASSWORD}\n")).await.well();
        assert_eq!(tokens().await, before + 1);
        let said = person.run(&["logout"]).await.well();
        assert_eq!(said, "ended the token and forgot the profile default\n");
        assert_eq!(tokens().await, before);
        person.run(&["whoami"]).await.refused(78, "infinibay login");
        person.run(&["logout"]).await.refused(78, "no profile");

        // One that is to stay good, one that another profile has too, and one that was given by hand.
        let given = format!("{}\n", trial.token);
        for profile in ["one", "two", "three"] {
            person.run_with(&["login", "--url", url, "--profile", profile], &given).await.well();
        }
        let told = person.run(&["logout", "--profile", "one", "--keep-token", "--json"]).await.json();
        assert_eq!(told, json!({ "profile": "one", "tokenRevoked": false }));
        let shared = person.run(&["logout", "--profile", "two"]).await;
        assert!(shared.err.contains("three") && shared.err.contains("stays good"), "{shared:?}");
        person.run(&["whoami", "--profile", "three"]).await.well();
        // Another daemon's is not what was meant.
        let elsewhere = ["logout", "--profile", "three", "--url", "http://127.0.0.1:1"];
        person.run(&elsewhere).await.refused(78, url);
        let told = person.run(&["logout", "--profile", "three", "--json"]).await.json();
        assert_eq!(told, json!({ "profile": "three", "tokenRevoked": true }));
        Person::with(url, &trial.token).run(&["whoami"]).await.refused(77, "UNAUTHENTICATED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_kept_while_its_token_cannot_be_ended() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let Trial { home, daemon, token, library: _library, .. } = Trial::start(&db).await;
    let (url, person) = (daemon.url.clone(), Person::new());
    let login = ["login", "--url", &url];
    person.run_with(&login, &format!("{token}\n")).await.well();
    drop(daemon);
    let told = person.run(&["logout"]).await;
    told.refused(69, "cannot be reached");
    assert!(told.err.contains("--force"), "{told:?}");
    person.run(&["whoami"]).await.refused(69, "cannot be reached");
    let forced = person.run(&["logout", "--force"]).await;
    assert!(forced.err.contains("stays good"), "{forced:?}");
    assert_eq!(forced.well(), "forgot the profile default\n");
    person.run(&["whoami"]).await.refused(78, "no profile");
    // What was said is true.
    let daemon = home.start();
    Person::with(&daemon.url, &token).run(&["whoami"]).await.well();
}

/// A certificate for `localhost` that vouches for itself, and its key.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_believed_by_whom_one_names() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let put = |name: &str, text: &str| {
        fs::write(at(name), text).unwrap();
        at(name)
    };
    let (ours, others) = (pair(), pair());
    let env = [
        ("INFINIBAY__TLS__CERTIFICATE", put("tls.crt", &ours.0)),
        ("INFINIBAY__TLS__KEY", put("tls.key", &ours.1)),
    ];
    let home = Home::new(Setup {
        uri: "test:///default".into(),
        database_url: Some(db.url.clone()),
        images_dir: dir.path().to_owned(),
        base_dir: dir.path().join("base"),
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
    });
    let token = home.admin();
    let daemon = home.start();
    let url = format!("https://localhost:{}", raw::address(&daemon).port());
    let (good, other, key) = (at("tls.crt"), put("other.crt", &others.0), at("tls.key"));

    // Nobody who is built in vouches for it, nor does somebody else's authority; over a WebSocket neither.
    let someone = uuid::Uuid::new_v4().to_string();
    let stranger = Person::with(&url, &token);
    for command in [&["whoami"][..], &["events", "--follow", &someone]] {
        let told = stranger.run(command).await;
        told.refused(78, "--ca FILE");
        assert!(told.err.contains("not believed") && !told.err.contains(&token), "{told:?}");
        stranger.run(&[command, &["--ca", &other]].concat()).await.refused(78, "not believed");
        let told = stranger.run(&[command, &["--ca", &other, "--json"]].concat()).await;
        told.refused(78, "\"UNTRUSTED\"");
    }
    // A file that is none is told before anything is asked, or typed.
    for file in [at("missing"), put("empty", ""), put("words", "nonsense"), key, at("")] {
        stranger.run(&["whoami", "--ca", &file, "--json"]).await.refused(78, "\"CA\"");
        Person::new().run(&["login", "--url", &url, "--ca", &file]).await.refused(78, &file);
    }

    // Named once, it is kept, also where the file is gone.
    let person = Person::new();
    let login = ["login", "--url", &url, "--ca", &good];
    person.run_with(&login[..3], &format!("{token}\n")).await.refused(78, "not believed");
    person.run_with(&login, &format!("{token}\n")).await.well();
    person.run_with(&login[..1], &format!("{token}\n")).await.well();
    let moved = at("moved.crt");
    fs::rename(&good, &moved).unwrap();
    assert!(person.run(&["whoami"]).await.well().contains(&url));
    // A stranger to the daemon, and not to the person.
    person.run(&["events", "--follow", &someone]).await.refused(66, "VM_NOT_FOUND");
    // By the environment, which goes before the profile.
    let named = |file: &str| {
        Person::with_env(&[("INFINIBAY_URL", &url), ("INFINIBAY_TOKEN", &token), ("INFINIBAY_CA", file)])
    };
    named(&moved).run(&["whoami"]).await.well();
    named(&moved).run(&["events", "--follow", &someone]).await.refused(66, "VM_NOT_FOUND");
    named("").run(&["whoami"]).await.refused(78, "not believed");
    person.run(&["whoami", "--ca", &other]).await.refused(78, "not believed");
    person.run(&["logout"]).await.well();
}
