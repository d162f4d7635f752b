//! A console is followed: first what there is, then what is added, over starts and full logs, by who may
//! see the VM and as long as he may.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    api::{Said, Socket},
    daemon::{Daemon, Home, Setup},
    host::{self, DomainGuard, Pool},
    trial::Trial,
};

const READY: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(60);
const CONSOLE: &str = "subscription($vm: UUID!, $max: Int! = 65536) {
    vmConsole(vmId: $vm, maxBytes: $max) { text anew skipped } }";
const LOG: &str = "query($id: UUID!) { vmConsoleLog(id: $id) { text truncated } }";

async fn followed(daemon: &Daemon, token: &str, vm: &str, max: i32) -> Socket {
    let mut socket = Socket::introduced(daemon, token).await;
    socket.begin("c", CONSOLE, json!({ "vm": vm, "max": max })).await;
    socket
}

async fn next(socket: &mut Socket) -> Value {
    socket.data("c").await["vmConsole"].take()
}

/// All that comes until this was told, and whether any of it began anew.
async fn told(socket: &mut Socket, words: &str) -> (String, bool) {
    let (mut text, mut anew) = (String::new(), false);
    let deadline = Instant::now() + READY;
    while !text.contains(words) {
        match socket.next_within(READY).await {
            Said::Message(message) if message["type"] == "next" => {
                let piece = &message["payload"]["data"]["vmConsole"];
                text += piece["text"].as_str().unwrap_or_else(|| panic!("{message}"));
                anew |= piece["anew"] == true;
            }
            said => panic!("{said:?} instead of {words:?} after {text}"),
        }
        assert!(Instant::now() < deadline, "{words:?} is not in {text}");
    }
    (text, anew)
}

fn write(log: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(log).unwrap().write_all(text.as_bytes()).unwrap();
}

fn piece(text: &str, anew: bool, skipped: bool) -> Value {
    json!({ "text": text, "anew": anew, "skipped": skipped })
}

on_both! {
    async fn what_is_written_is_told_to_who_may_see_it(db: TestDatabase) {
        let mut trial = Trial::start_with(&db, &[("INFINIBAY__API__RECHECK_INTERVAL", "1s")]).await;
        let Trial { home, daemon, .. } = &mut trial;
        let (eves, bobs) = home.between(daemon, |home| (home.user("eve", &[]), home.user("bob", &[])));
        let (eve, daemon) = (trial.daemon.client(&eves), &trial.daemon);
        let (vm, _) = eve.create(trial.request("talker")).await;
        eve.phase_is(&vm, "INSTALLING", SOON).await;
        // On this driver nobody else writes it.
        let log: PathBuf = trial.home.state_dir().join("console").join(format!("vm-{vm}.log"));

        for max in [0, -1, 1_048_577] {
            let mut socket = followed(daemon, &eves, &vm, max).await;
            assert_eq!(socket.refused("c").await, "INVALID_INPUT");
        }
        let mut strange = followed(daemon, &bobs, &vm, 64).await;
        assert_eq!(strange.refused("c").await, "VM_NOT_FOUND");
        let nobody = uuid::Uuid::new_v4().to_string();
        assert_eq!(followed(daemon, &bobs, &nobody, 64).await.refused("c").await, "VM_NOT_FOUND");

        // The end of what there is, cleaned; then what is added, wherever it is cut.
        let mut early = followed(daemon, &eves, &vm, 64).await;
        assert_eq!(next(&mut early).await, piece("", false, false), "nothing was written yet");
        write(&log, "0123456789\x1b[1mfirst\n");
        assert_eq!(told(&mut early, "first").await, ("0123456789first\n".to_owned(), false));
        let mut socket = followed(daemon, &eves, &vm, 14).await;
        assert_eq!(next(&mut socket).await, piece("6789first\n", false, true));
        write(&log, "red\x1b[3");
        assert_eq!(told(&mut socket, "red").await.0, "red");
        write(&log, "1m is no number\u{202e}\n");
        assert_eq!(next(&mut socket).await, piece(" is no number\n", false, false));

        // Full, and moved aside; then another start without what was before.
        fs::rename(&log, log.with_extension("log.0")).unwrap();
        write(&log, "second\n");
        assert_eq!(told(&mut socket, "second").await, ("second\n".to_owned(), false));
        let whole = eve.ask(LOG, json!({ "id": vm })).await["vmConsoleLog"].take();
        assert_eq!(whole, json!({ "text": "0123456789first\nred is no number\nsecond\n", "truncated": false }));
        fs::remove_file(log.with_extension("log.0")).unwrap();
        fs::remove_file(&log).unwrap();
        write(&log, "third\n");
        assert_eq!(next(&mut socket).await, piece("third\n", true, false));

        // A flood is told in pieces of some length, and its middle is left out.
        write(&log, &("x".repeat(99) + "\n").repeat(40_000));
        write(&log, "after the flood\n");
        let (mut length, mut skipped, mut ended) = (0, false, false);
        while !ended {
            let piece = next(&mut socket).await;
            let text = piece["text"].as_str().unwrap();
            assert!(text.len() <= 32 << 10, "a piece of {} bytes", text.len());
            length += text.len();
            skipped |= piece["skipped"] == true;
            ended = text.contains("after the flood");
        }
        assert!(skipped && length <= 512 << 10, "{length} bytes of a flood of 4 MB");

        // So many of one user's, and one more when one ended.
        let mut many = Socket::introduced(daemon, &eves).await;
        let more = |n: usize| (format!("m{n}"), json!({ "vm": vm, "max": 1 }));
        // The two above count.
        for n in 0..14 {
            let (id, variables) = more(n);
            many.begin(&id, CONSOLE, variables).await;
            many.data(&id).await;
        }
        let (id, variables) = more(14);
        many.begin(&id, CONSOLE, variables).await;
        assert_eq!(many.refused(&id).await, "TOO_MANY_OPERATIONS");
        many.send(json!({ "type": "complete", "id": "m0" })).await;
        let deadline = Instant::now() + SOON;
        let mut again = followed(daemon, &eves, &vm, 1).await;
        loop {
            let message = again.message().await;
            if message["payload"]["data"]["vmConsole"]["text"].is_string() {
                break;
            }
            assert!(Instant::now() < deadline, "no place came free: {message}");
            again = followed(daemon, &eves, &vm, 1).await;
        }

        // Rights that are gone end it.
        let store = db.store().await;
        let user = store.user_named("eve").await.unwrap().unwrap();
        assert!(store.revoke_tokens(user.id, chrono::Utc::now()).await.unwrap() >= 1);
        let ended = async {
            loop {
                if socket.message().await["type"] == "complete" {
                    break;
                }
            }
        };
        tokio::time::timeout(SOON, ended).await.expect("the subscription ends with the right to it");
        write(&log, "not for her\n");
        store.close().await;

        // It ends with the VM, too.
        let mut admins = followed(daemon, &trial.token, &vm, 12).await;
        assert_eq!(next(&mut admins).await, piece("not for her\n", false, true));
        let client = daemon.client(&trial.token);
        let delete = client.change("deleteVm", &vm).await;
        client.succeeded(&delete, SOON).await;
        let last = admins.message().await;
        assert_eq!(last["type"], "complete", "{last}");
        trial.daemon.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_heard_as_it_speaks_and_over_its_starts() {
    host::need_image("pocket");
    let home = Home::new(Setup {
        uri: "qemu:///system".into(),
        database_url: None,
        images_dir: host::test_images(),
        base_dir: host::test_base_dir(),
        env: vec![],
    });
    let pool = Pool::new(home.path());
    let (token, eves) = (home.admin(), home.user("eve", &[]));
    let name = format!("story-follow-{}", std::process::id());
    let _guard = DomainGuard(name.clone());
    let daemon = home.start();
    let client = daemon.client(&token);
    let input = json!({
        "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": pool.name, "network": "none",
    });
    let (vm, create) = client.create(input).await;
    // Before anything is there.
    let mut socket = followed(&daemon, &token, &vm, 65536).await;
    let (boot, _) = told(&mut socket, "infiniservice").await;
    assert!(boot.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{boot:?}");
    client.succeeded(&create, READY).await;
    assert_eq!(followed(&daemon, &eves, &vm, 64).await.refused("c").await, "VM_NOT_FOUND");

    let says = async |words: &str| {
        let line = format!("echo {words} > /dev/console && echo said");
        assert_eq!(client.output(&vm, &line).await, "said");
    };
    says("before-the-start").await;
    told(&mut socket, "before-the-start").await;

    // The same guest boots anew, and then another QEMU.
    for (mutation, words) in [("rebootVm", "after-a-reboot"), ("stopVm", ""), ("startVm", "after-a-start")] {
        let operation = client.change(mutation, &vm).await;
        client.succeeded(&operation, READY).await;
        if words.is_empty() {
            continue;
        }
        client.agent_is(&vm, "ONLINE", READY).await;
        says(words).await;
        let (text, anew) = told(&mut socket, words).await;
        assert!(text.contains("infiniservice"), "it booted: {text}");
        assert!(!anew, "what was before is gone after {mutation}: {text}");
    }
    let whole = client.ask(LOG, json!({ "id": vm })).await["vmConsoleLog"]["text"].take();
    let whole = whole.as_str().unwrap();
    let place = |words: &str| whole.find(words).unwrap_or_else(|| panic!("{words} is lost: {whole}"));
    assert!(place("before-the-start") < place("after-a-reboot"));
    assert!(place("after-a-reboot") < place("after-a-start"));

    let delete = client.change("deleteVm", &vm).await;
    client.succeeded(&delete, SOON).await;
    loop {
        let message = socket.message().await;
        if message["type"] == "complete" {
            break;
        }
        assert_eq!(message["type"], "next", "{message}");
    }
    assert_eq!(host::files_in(&home.state_dir().join("console")), Vec::<PathBuf>::new());
    assert_eq!(pool.volumes(), Vec::<PathBuf>::new());
    daemon.stop();
}
