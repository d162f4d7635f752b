//! A person who sits at a terminal: what he types in secret is shown nowhere, a question waits for its
//! answer, a bar is drawn and gone, and whatever ends a program leaves him a terminal that works.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{fs, time::Duration};

use serde_json::json;
use support::{
    database::{Backend, TestDatabase},
    people::Person,
    terminal::{Terminal, seen},
    trial::Trial,
};

const PASSWORD: &str = "correct horse battery";
/// Ctrl-C, Ctrl-D.
const INTERRUPT: &str = "\x03";
const END: &str = "\x04";

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_typed_unseen_and_the_terminal_is_put_back() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial = Trial::start(&db).await;
    let make = "mutation($i: CreateUserInput!) { createUser(input: $i) { id } }";
    let input = json!({ "name": "eve", "email": "eve@example.org", "password": PASSWORD });
    trial.client.ask(make, json!({ "i": input })).await;
    let (url, person) = (&trial.daemon.url, Person::new());
    let with_password = ["login", "--url", url, "--email", "eve@example.org"];
    let with_token = ["login", "--url", url];

    for (login, question, secret) in
        [(&with_password[..], "Password: ", PASSWORD), (&with_token, "Token: ", &*trial.token)]
    {
        // Typed, and then told that it was wrong.
        for (keys, status) in [(format!("{secret}\r"), 0), ("wrong\r".to_owned(), 77), ("\r".to_owned(), 64)]
        {
            let mut terminal = person.sits_at(login);
            terminal.shown.until(question).await;
            assert!(!terminal.echoes(), "what is typed is shown");
            terminal.types(&keys);
            let ran = terminal.ended().await;
            assert_eq!(ran.status, status, "{ran:?}");
            assert!(!ran.out.contains(secret) && !ran.out.contains("wrong\r"), "{ran:?}");
            assert!(terminal.echoes());
            // The answer has a line of its own.
            assert_eq!(seen(&ran.out)[0], question.trim_end());
        }
        // Half typed, and thought better of; or told to end by somebody else; or never to be typed.
        for (typed, told, status) in [(&secret[..4], INTERRUPT, 130), ("", "", 130), ("", END, 64)] {
            let mut terminal = person.sits_at(login);
            terminal.shown.until(question).await;
            terminal.types(typed);
            if told.is_empty() {
                terminal.terminate()
            } else {
                terminal.types(told)
            }
            let ran = terminal.ended().await;
            assert_eq!(ran.status, status, "{ran:?}");
            assert!(!ran.out.contains(&secret[..4]), "{ran:?}");
            assert!(terminal.echoes(), "the terminal stays dumb: {ran:?}");
            assert!(seen(&ran.out)[1].starts_with("infinibay: "), "{ran:?}");
        }
    }
    let kept = fs::read_to_string(person.home().join(".config/infinibay/profiles.toml")).unwrap();
    assert!(kept.contains(&trial.token) && !kept.contains(PASSWORD), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_and_a_bar_is_drawn_and_gone() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial = Trial::start(&db).await;
    let person = Person::with(&trial.daemon.url, &trial.token);
    let create =
        ["create", "web-1", "--image", "blank", "--memory=128", "--network=none", "--pool=default-pool"];
    let made = || trial.client.ask("{ vms { nodes { id name } } }", json!({}));

    // No agent is ever heard of it, so that the bar goes on until Ctrl-C takes it away.
    let mut terminal = person.sits_at(&create);
    let drawn = terminal.shown.until("waiting for the agent").await;
    assert!(drawn.contains("creating web-1 ["), "{drawn:?}");
    terminal.types(INTERRUPT);
    let ran = terminal.ended().await;
    assert_eq!(ran.status, 130);
    let left = seen(&ran.out).concat();
    assert!(left.contains("infinibay: interrupted; the operation") && !left.contains('%'), "{left}");
    assert!(terminal.echoes());

    // Whatever is no yes is a no; Ctrl-C and the end of what is typed are as well.
    let id = made().await["vms"]["nodes"][0]["id"].as_str().unwrap().to_owned();
    let question = format!("Delete web-1 ({id}) with all disks and snapshots? [y/N] ");
    for answer in ["\r", "n\r", "no\r", "yeah\r", END, INTERRUPT] {
        let mut terminal = person.sits_at(&["delete", &id]);
        terminal.shown.until(&question).await;
        terminal.types(answer);
        let ran = terminal.ended().await;
        assert_eq!(ran.status, 130, "{answer:?}: {ran:?}");
        assert!(seen(&ran.out)[1].starts_with("infinibay: interrupted"), "{ran:?}");
    }
    assert_eq!(made().await["vms"]["nodes"][0]["name"], "web-1");

    // Who takes his time is waited for.
    let mut terminal = person.sits_at(&["delete", "web-1"]);
    terminal.shown.until(&question).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    terminal.types("Yes\r");
    let ran = terminal.ended().await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.contains("deleting web-1 ["), "no bar was drawn: {ran:?}");
    let question = format!("{question}Yes");
    assert_eq!(seen(&ran.out), [&*question, "web-1: deleted", ""], "{ran:?}");
    assert_eq!(made().await["vms"]["nodes"], json!([]));

    // A terminal that cannot be drawn over gets lines.
    person.run(&[&create[..], &["--no-wait"]].concat()).await.well();
    let mut delete = person.command(&["delete", "--yes", "web-1"]);
    delete.env("TERM", "dumb");
    let ran = Terminal::run(&delete).ended().await;
    let lines = ran.out.starts_with("deleting web-1: ") && !ran.out.contains('\x1b');
    assert!(ran.status == 0 && lines, "{ran:?}");
}
