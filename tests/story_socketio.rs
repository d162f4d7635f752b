//! Existing front ends: npm's socket.io-client, over WebSocket and polling, several tabs of one user.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    guest::{FakeGuest, Received, handshake_line, metrics_line, well_behaved},
    node::Node,
    trial::Trial,
};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

const SOON: Duration = Duration::from_secs(20);
/// What a change of rights may take to hold, and what a busy machine may add.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A reading every now and then, for as long as somebody reads them.
async fn talkative(mut stream: UnixStream, _received: Received) -> std::io::Result<()> {
    stream.write_all(handshake_line(1).as_bytes()).await?;
    loop {
        stream.write_all(metrics_line(5.0).as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn open(trial: &Trial, socket: &str, token: &Value, transports: &[&str]) -> Value {
    json!({
        "do": "open", "socket": socket, "url": trial.daemon.url, "auth": { "token": token },
        "transports": transports,
    })
}

/// A socket that was let in.
async fn connected(node: &mut Node, trial: &Trial, socket: &str, token: &str, transports: &[&str]) {
    node.tell(open(trial, socket, &json!(token), transports)).await;
    let transport = node.hears(socket, "connect").await["transport"].take();
    assert!(transports.len() > 1 || transport == transports[0], "{socket} came by {transport}");
}

/// A VM whose agent is played by the story.
async fn vm(trial: &Trial, name: &str, id: VmId) -> String {
    let mut request = trial.request(name);
    request["id"] = json!(id.to_string());
    let (vm, operation) = trial.client.create(request).await;
    trial.client.succeeded(&operation, SOON).await;
    vm
}

on_both! {
    async fn every_tab_hears_of_its_vms(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let id = VmId::generate();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let watched = vm(&trial, "watched", id).await;
        let other = VmId::generate();
        let _other = FakeGuest::listen(&trial.home.socket_dir(), other, talkative);
        vm(&trial, "other", other).await;

        let mut node = Node::start("socketio.mjs");
        let tabs = [("ws", &["websocket"][..]), ("polling", &["polling"]), ("upgraded", &["polling", "websocket"])];
        for (tab, transports) in tabs {
            connected(&mut node, &trial, tab, &trial.token, transports).await;
            if tab == "upgraded" {
                assert_eq!(node.hears(tab, "upgrade").await["transport"], "websocket");
            }
            let answer = node.ask(tab, "subscribe:vm", json!(watched)).await;
            assert_eq!((&answer["ok"], &answer["vmId"]), (&json!(true), &json!(watched)), "{answer}");
            assert_eq!(answer["state"]["agent"], "ONLINE", "{answer}");
        }
        // A tab that asks for nothing hears nothing.
        connected(&mut node, &trial, "silent", &trial.token, &["websocket"]).await;

        assert_eq!(trial.client.shell(&watched, "echo hello").await["success"], true);
        for (tab, _) in tabs {
            let command = node.hears(tab, "vm:command").await;
            assert_eq!((&command["vmId"], &command["data"]["success"]), (&json!(watched), &json!(true)));
            assert!(command["timestamp"].is_string(), "{command}");
        }
        // The agent goes and comes back, with a reading.
        let stop = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";
        trial.client.ask(stop, json!({ "id": watched })).await;
        trial.client.phase_is(&watched, "STOPPED", SOON).await;
        let start = trial.client.change("startVm", &watched).await;
        trial.client.succeeded(&start, SOON).await;
        for (tab, _) in tabs {
            for event in ["vm:offline", "vm:online"] {
                assert_eq!(node.hears(tab, event).await["vmId"], watched);
            }
            let brief = node.hears(tab, "vm:metrics").await;
            assert_eq!((&brief["vmId"], &brief["data"]["cpuUsage"]), (&json!(watched), &json!(5)), "{brief}");
            let reading = node.hears(tab, "metrics").await;
            let keys: Vec<_> = reading.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["data", "timestamp", "vmId"]);
            assert_eq!((&reading["vmId"], &reading["data"]["cpu"]["usage_percent"]), (&json!(watched), &json!(5)));
            assert!(!reading.to_string().contains("hunter2"), "a secret was told: {reading}");
        }
        // One leaves the room, the others stay.
        let left = node.ask("ws", "unsubscribe:vm", json!({ "vmId": watched })).await;
        assert_eq!(left["ok"], true, "{left}");
        for event in ["vm:command", "metrics", "vm:metrics"] {
            node.heard("ws", event);
        }
        assert_eq!(trial.client.shell(&watched, "echo again").await["success"], true);
        for tab in ["polling", "upgraded"] {
            node.hears(tab, "vm:command").await;
        }
        // What it would have heard is behind another answer now.
        node.ask("ws", "unsubscribe:vm", json!(watched)).await;
        assert!(node.heard("ws", "vm:command").is_empty(), "who left is told on");
        for event in ["metrics", "vm:metrics", "vm:command", "vm:status"] {
            assert!(node.heard("silent", event).is_empty(), "who asked for nothing is told {event}");
        }
        for (tab, _) in tabs {
            let of_others = node.heard(tab, "metrics").into_iter().filter(|it| it["vmId"] != watched).count();
            assert_eq!(of_others, 0, "{tab} was told of a VM that it did not ask for");
        }
        drop(guest);
    }

    async fn whoever_shows_no_good_token_is_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let mut node = Node::start("socketio.mjs");
        let long = "x".repeat(1000);
        let forged = format!("ibt_{}", "0".repeat(64));
        for (n, token) in [json!(null), json!(""), json!(5), json!("nonsense"), json!(long), json!(forged)].iter().enumerate() {
            for transport in ["websocket", "polling"] {
                let socket = format!("{transport}-{n}");
                node.tell(open(&trial, &socket, token, &[transport])).await;
                let refused = node.hears(&socket, "connect_error").await;
                assert_eq!(refused["message"], "UNAUTHENTICATED", "{token}");
            }
        }
        connected(&mut node, &trial, "spelt", &format!("Bearer {}", trial.token), &["websocket"]).await;
    }

    async fn what_is_not_ones_own_is_not_there(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let Trial { home, daemon, .. } = &mut trial;
        let eves = home.between(daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let (private, _) = trial.client.create(trial.request("private")).await;
        let nobody = VmId::generate().to_string();
        let mut node = Node::start("socketio.mjs");
        connected(&mut node, &trial, "eve", &eves, &["websocket"]).await;
        let mut told = Vec::new();
        for vm in [&private, &nobody] {
            let mut answer = node.ask("eve", "subscribe:vm", json!(vm)).await;
            let mut error = node.hears("eve", "vm:error").await;
            assert_eq!((&answer["ok"], &answer["code"]), (&json!(false), &json!("VM_NOT_FOUND")), "{answer}");
            assert_eq!((&error["vmId"], &error["data"]["code"]), (&json!(vm), &json!("VM_NOT_FOUND")), "{error}");
            error["timestamp"].take();
            answer["error"] = json!(answer["error"].as_str().unwrap().replace(vm.as_str(), "…"));
            told.push((answer.to_string().replace(vm.as_str(), "…"), error.to_string().replace(vm.as_str(), "…")));
        }
        assert_eq!(told[0], told[1], "a VM of somebody else can be told from none");
        // Without an acknowledgement the refusal comes as an event.
        node.tell(json!({ "do": "emit", "socket": "eve", "event": "subscribe:vm", "data": private })).await;
        assert_eq!(node.hears("eve", "vm:error").await["data"]["code"], "VM_NOT_FOUND");
        for asked in [json!(null), json!(7), json!("vm"), json!({ "id": private }), json!([[[]]]), json!("x".repeat(9000))] {
            let answer = node.ask("eve", "subscribe:vm", asked.clone()).await;
            assert_eq!(answer["code"], "INVALID_INPUT", "{asked}: {answer}");
        }
        assert_eq!(node.ask("eve", "join", json!(private)).await["code"], "INVALID_INPUT");
    }

    async fn everything_has_its_bound(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__API__MAX_WEBSOCKETS", "34")]).await;
        let mut node = Node::start("socketio.mjs");
        for n in 0..32 {
            connected(&mut node, &trial, &n.to_string(), &trial.token, &["websocket"]).await;
        }
        node.tell(open(&trial, "one more", &json!(trial.token), &["websocket"])).await;
        assert_eq!(node.hears("one more", "connect_error").await["message"], "TOO_MANY_CONNECTIONS");
        // A place is given back. What was refused holds its own until its time to show a token is over.
        node.tell(json!({ "do": "close", "socket": "0" })).await;
        node.tell(json!({ "do": "close", "socket": "one more" })).await;
        let since = Instant::now();
        for n in 0.. {
            let again = format!("again-{n}");
            node.tell(open(&trial, &again, &json!(trial.token), &["websocket"])).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !node.heard(&again, "connect").is_empty() {
                break;
            }
            assert!(since.elapsed() < SOON, "no place was given back");
        }

        // Of strangers there are as many as there are places, whichever way they come.
        let url = format!("{}/socket.io/?EIO=4&transport=polling", trial.daemon.url);
        let http = reqwest::Client::new();
        let mut sid = String::new();
        let refused = loop {
            let answer = http.get(&url).send().await.unwrap();
            if answer.status() != 200 {
                break answer;
            }
            let opened = answer.text().await.unwrap();
            sid = opened.split('"').nth(3).unwrap().to_owned();
            assert!(since.elapsed() < SOON, "every stranger finds a place");
        };
        assert_eq!(refused.status(), 503);
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["errors"][0]["extensions"]["code"], "TOO_MANY_CONNECTIONS", "{refused}");
        // What a stranger may say is bounded, too.
        let long = http.post(format!("{url}&sid={sid}")).body(format!("4{}", "x".repeat(20_000)));
        assert_eq!(long.send().await.unwrap().status(), 413);
        node.tell(json!({ "do": "emit", "socket": "2", "event": "subscribe:vm", "data": "x".repeat(20_000) })).await;
        node.hears("2", "disconnect").await;
        // And whoever is in is served on.
        let answer = node.ask("1", "subscribe:vm", json!(VmId::generate().to_string())).await;
        assert_eq!(answer["code"], "VM_NOT_FOUND", "{answer}");
    }

    async fn rights_that_change_hold_on_open_sockets_at_once(db: TestDatabase) {
        let mut trial = Trial::start_with(&db, &[("INFINIBAY__API__RECHECK_INTERVAL", "1h")]).await;
        let Trial { home, daemon, .. } = &mut trial;
        let eves = home.between(daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let eve = trial.daemon.client(&eves);
        let me = eve.ask("{ me { id } }", json!({})).await["me"]["id"].take();
        let id = VmId::generate();
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, talkative);
        let shared = vm(&trial, "shared", id).await;
        let share = "mutation($vm: UUID!, $user: UUID!) { shareVm(vmId: $vm, userId: $user, share: VIEW) { userId } }";
        let unshare = "mutation($vm: UUID!, $user: UUID!) { unshareVm(vmId: $vm, userId: $user) { userId } }";
        let of_her = json!({ "vm": shared, "user": me });
        trial.client.ask(share, of_her.clone()).await;

        let mut node = Node::start("socketio.mjs");
        for (tab, transport) in [("ws", "websocket"), ("polling", "polling")] {
            connected(&mut node, &trial, tab, &eves, &[transport]).await;
            assert_eq!(node.ask(tab, "subscribe:vm", json!(shared)).await["ok"], true);
            node.hears(tab, "metrics").await;
        }
        trial.client.ask(unshare, of_her).await;
        let since = Instant::now();
        for tab in ["ws", "polling"] {
            let lost = node.hears(tab, "vm:error").await;
            assert_eq!((&lost["vmId"], &lost["data"]["code"]), (&json!(shared), &json!("VM_NOT_FOUND")), "{lost}");
            // What came before it was hers; nothing comes after it.
            node.heard(tab, "metrics");
            assert_eq!(node.ask(tab, "unsubscribe:vm", json!(shared)).await["ok"], true);
        }
        assert!(since.elapsed() < AT_ONCE, "it took {:?}", since.elapsed());
        // The VM talks on.
        connected(&mut node, &trial, "witness", &trial.token, &["websocket"]).await;
        assert_eq!(node.ask("witness", "subscribe:vm", json!(shared)).await["ok"], true);
        for _ in 0..2 {
            node.hears("witness", "metrics").await;
        }
        for tab in ["ws", "polling"] {
            node.ask(tab, "unsubscribe:vm", json!(shared)).await;
            assert!(node.heard(tab, "metrics").is_empty(), "{tab} hears on of what was taken away");
        }

        let disable = "mutation($id: UUID!) { updateUser(id: $id, input: { disabled: true }) { id } }";
        trial.client.ask(disable, json!({ "id": me })).await;
        let since = Instant::now();
        for tab in ["ws", "polling"] {
            assert_eq!(node.hears(tab, "vm:error").await["data"]["code"], "UNAUTHENTICATED");
            node.hears(tab, "disconnect").await;
        }
        assert!(since.elapsed() < AT_ONCE, "it took {:?}", since.elapsed());
    }
}
