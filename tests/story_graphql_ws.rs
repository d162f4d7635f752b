//! Subscriptions as front ends have them: npm's graphql-ws. First how things are, then what happens;
//! rights that are taken away, clients that do not answer or do not read, and crowds.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    api::Socket,
    database::{Backend, TestDatabase},
    guest::{FakeGuest, Received, handshake_line, metrics_line, well_behaved},
    node::Node,
    trial::Trial,
};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

const SOON: Duration = Duration::from_secs(20);
/// What a change of rights may take to hold, and what a busy machine may add.
const AT_ONCE: Duration = Duration::from_secs(3);

const EVENTS: &str = "subscription($vm: UUID!) { vmEvents(vmId: $vm) { type vmId payload } }";
const METRICS: &str = "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { id vmId cpuUsage } }";
const WHOLE: &str = "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { id raw } }";
const CONSOLE: &str = "subscription($vm: UUID!) { vmConsole(vmId: $vm) { text anew } }";
const PROGRESS: &str = "subscription($id: UUID!) { operationProgress(id: $id) { id status } }";

/// So many readings a second, for as long as somebody reads them.
async fn talks(mut stream: UnixStream, per_second: u32, padding: usize) -> std::io::Result<()> {
    stream.write_all(handshake_line(1).as_bytes()).await?;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let line = metrics_line(5.0).replace("init", &"x".repeat(padding));
        let lines = line.repeat(usize::try_from(per_second.div_ceil(50)).unwrap());
        stream.write_all(lines.as_bytes()).await?;
    }
}

async fn talkative(stream: UnixStream, _received: Received) -> std::io::Result<()> {
    talks(stream, 5, 4).await
}

async fn open(node: &mut Node, trial: &Trial, socket: &str, payload: Value, deaf: bool) {
    let url = format!("{}/graphql/ws", trial.daemon.url.replacen("http", "ws", 1));
    node.tell(json!({ "do": "open", "socket": socket, "url": url, "payload": payload, "deaf": deaf })).await;
}

/// A connection that was let in.
async fn connected(node: &mut Node, trial: &Trial, socket: &str, token: &str) {
    open(node, trial, socket, json!({ "authorization": format!("Bearer {token}") }), false).await;
    node.hears(socket, "connected").await;
}

async fn begin(node: &mut Node, socket: &str, id: &str, query: &str, variables: Value) {
    let command =
        json!({ "do": "subscribe", "socket": socket, "id": id, "query": query, "variables": variables });
    node.tell(command).await;
}

/// What the operation tells next, which is no error.
async fn data(node: &mut Node, socket: &str, id: &str) -> Value {
    let mut answer = node.hears(socket, &format!("next:{id}")).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].take()
}

/// The code that the operation ends with.
async fn ended(node: &mut Node, socket: &str, id: &str) -> Value {
    let failed = |answer: &Value| answer.get("errors").is_some();
    let mut answer = node.hears_such(socket, &format!("next:{id}"), failed).await;
    node.hears(socket, &format!("complete:{id}")).await;
    answer["errors"][0]["extensions"]["code"].take()
}

/// A VM whose agent is played by the story; and the operation that made it.
async fn vm(trial: &Trial, name: &str, id: VmId) -> (String, String) {
    let mut request = trial.request(name);
    request["id"] = json!(id.to_string());
    let (vm, operation) = trial.client.create(request).await;
    trial.client.succeeded(&operation, SOON).await;
    (vm, operation)
}

on_both! {
    async fn each_begins_with_how_things_are(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s")]).await;
        let id = VmId::generate();
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let (vm, operation) = vm(&trial, "watched", id).await;
        trial.client.agent_is(&vm, "ONLINE", SOON).await;
        const NEWEST: &str = "query($vm: UUID!) { getVmMetrics(vmId: $vm, hours: 1) { id } }";
        let since = Instant::now();
        let newest = loop {
            let stored = trial.client.ask(NEWEST, json!({ "vm": vm })).await["getVmMetrics"].take();
            if let Some(newest) = stored.as_array().unwrap().first() {
                break newest["id"].clone();
            }
            assert!(since.elapsed() < SOON, "no reading was stored");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };

        let mut node = Node::start("graphql-ws.mjs");
        connected(&mut node, &trial, "ana", &trial.token).await;
        begin(&mut node, "ana", "e", EVENTS, json!({ "vm": vm })).await;
        let first = data(&mut node, "ana", "e").await["vmEvents"].take();
        assert_eq!((&first["type"], &first["vmId"]), (&json!("snapshot"), &json!(vm)), "{first}");
        assert_eq!(first["payload"]["agent"], "ONLINE", "{first}");
        assert!(first["payload"]["conditions"].is_array(), "{first}");
        begin(&mut node, "ana", "m", METRICS, json!({ "vm": vm })).await;
        assert_eq!(data(&mut node, "ana", "m").await["vmMetrics"]["id"], newest);
        begin(&mut node, "ana", "o", PROGRESS, json!({ "id": operation })).await;
        assert_eq!(data(&mut node, "ana", "o").await["operationProgress"]["status"], "SUCCEEDED");
        node.hears("ana", "complete:o").await;
        begin(&mut node, "ana", "c", CONSOLE, json!({ "vm": vm })).await;
        assert!(data(&mut node, "ana", "c").await["vmConsole"]["text"].is_string());

        // Then what happens.
        assert_eq!(trial.client.shell(&vm, "echo hello").await["success"], true);
        let told = |answer: &Value| answer["data"]["vmEvents"]["type"] == "vm:command";
        let command = node.hears_such("ana", "next:e", told).await;
        assert_eq!(command["data"]["vmEvents"]["payload"]["success"], true);

        for (n, payload) in [json!({}), json!({ "token": "nonsense" }), json!({ "authorization": trial.token })].into_iter().enumerate() {
            let socket = format!("stranger-{n}");
            open(&mut node, &trial, &socket, payload, false).await;
            assert_eq!(node.hears(&socket, "closed").await["code"], 4403);
        }
    }

    async fn a_right_that_is_taken_away_ends_what_is_open(db: TestDatabase) {
        let mut trial = Trial::start_with(&db, &[("INFINIBAY__API__RECHECK_INTERVAL", "1h")]).await;
        let Trial { home, daemon, .. } = &mut trial;
        let eves = home.between(daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let eve = trial.daemon.client(&eves);
        let me = eve.ask("{ me { id } }", json!({})).await["me"]["id"].take();
        let id = VmId::generate();
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, talkative);
        let (shared, _) = vm(&trial, "shared", id).await;
        let share = "mutation($vm: UUID!, $user: UUID!) { shareVm(vmId: $vm, userId: $user, share: VIEW) { userId } }";
        let unshare = "mutation($vm: UUID!, $user: UUID!) { unshareVm(vmId: $vm, userId: $user) { userId } }";
        let of_her = json!({ "vm": shared, "user": me });
        trial.client.ask(share, of_her.clone()).await;
        let (own, _) = eve.create(trial.request("own")).await;

        let mut node = Node::start("graphql-ws.mjs");
        connected(&mut node, &trial, "eve", &eves).await;
        for (operation, query, vm) in [
            ("events", EVENTS, &shared), ("metrics", METRICS, &shared), ("console", CONSOLE, &shared), ("own", EVENTS, &own),
        ] {
            begin(&mut node, "eve", operation, query, json!({ "vm": vm })).await;
            data(&mut node, "eve", operation).await;
        }
        trial.client.ask(unshare, of_her).await;
        let since = Instant::now();
        for operation in ["events", "metrics", "console"] {
            assert_eq!(ended(&mut node, "eve", operation).await, "VM_NOT_FOUND", "{operation}");
        }
        assert!(since.elapsed() < AT_ONCE, "it took {:?}", since.elapsed());
        // What is hers goes on.
        trial.client.change("stopVm", &own).await;
        data(&mut node, "eve", "own").await;

        let disable = "mutation($id: UUID!) { updateUser(id: $id, input: { disabled: true }) { id } }";
        trial.client.ask(disable, json!({ "id": me })).await;
        let since = Instant::now();
        assert_eq!(ended(&mut node, "eve", "own").await, "UNAUTHENTICATED");
        assert_eq!(node.hears("eve", "closed").await["code"], 4403);
        assert!(since.elapsed() < AT_ONCE, "it took {:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_answer_is_gone() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial = Trial::start_with(&db, &[("INFINIBAY__API__PING_INTERVAL", "1s")]).await;
    let mut node = Node::start("graphql-ws.mjs");
    connected(&mut node, &trial, "lives", &trial.token).await;
    open(&mut node, &trial, "deaf", json!({ "token": trial.token }), true).await;
    node.hears("deaf", "connected").await;
    let since = Instant::now();
    assert_eq!(node.hears("deaf", "closed").await["code"], 1006);
    let took = since.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "it took {took:?}");
    begin(&mut node, "lives", "q", "{ me { name } }", json!({})).await;
    assert_eq!(data(&mut node, "lives", "q").await["me"]["name"], "admin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_is_told_what_he_missed_and_then_cut_off() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let env = [("INFINIBAY__AGENTS__MAX_FRAMES_PER_SECOND", "2000"), ("INFINIBAY__API__MAX_WEBSOCKETS", "2")];
    let trial = Trial::start_with(&db, &env).await;
    let id = VmId::generate();
    let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, |stream, _| talks(stream, 600, 3000));
    let (loud, _) = vm(&trial, "loud", id).await;
    let mut node = Node::start("graphql-ws.mjs");
    connected(&mut node, &trial, "witness", &trial.token).await;
    node.tell(json!({ "do": "count", "socket": "witness", "id": "m" })).await;
    begin(&mut node, "witness", "m", METRICS, json!({ "vm": loud })).await;
    let mut slow = Socket::narrow(&trial.daemon, &trial.token).await;
    slow.begin("e", EVENTS, json!({ "vm": loud })).await;
    assert_eq!(slow.data("e").await["vmEvents"]["type"], "snapshot");
    slow.begin("m", WHOLE, json!({ "vm": loud })).await;
    while slow.message().await["id"] != "m" {}
    // Little is on its way to him, and no more waits for him than the bus holds.
    node.heard("witness", "count:m");
    for _ in 0..8 {
        node.hears("witness", "count:m").await;
    }
    let since = Instant::now();
    let (mut readings, mut events) = (None, Vec::new());
    while readings.is_none() || events.len() < 2 {
        assert!(since.elapsed() < SOON, "nothing is missing: {readings:?} {events:?}");
        let message = slow.message().await;
        let (payload, event) = (&message["payload"], &message["payload"]["data"]["vmEvents"]);
        if message["id"] == "m" && payload.get("errors").is_some() {
            readings = Some(payload["errors"][0]["extensions"]["code"].clone());
        }
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "lagged" || !events.is_empty() && events.len() < 2 && message["id"] == "e" {
            events.push((kind.to_owned(), event["payload"].clone()));
        }
    }
    assert_eq!(readings.unwrap(), "LAGGED");
    assert_eq!((events[0].0.as_str(), events[1].0.as_str()), ("lagged", "snapshot"), "{events:?}");
    assert!(events[0].1["missed"].as_u64().unwrap() > 0, "{events:?}");
    assert_eq!(events[1].1["agent"], "ONLINE", "{events:?}");

    // Now he reads nothing at all. His place is free once he was cut off; meanwhile others are served on.
    let third = Socket::open(&trial.daemon, "/graphql/ws", &[]).await;
    assert_eq!(third.err().expect("a third connection was served").as_u16(), 503);
    let since = Instant::now();
    while Socket::open(&trial.daemon, "/graphql/ws", &[]).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(30), "who does not read keeps his place");
        node.hears("witness", "count:m").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_find_as_many_places_as_there_are() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    // All of them come from one address, which would be stopped before.
    let env = [
        ("INFINIBAY__HTTP__MAX_CONNECTIONS_PER_ADDRESS", "6000"),
        ("INFINIBAY__HTTP__REQUEST_BURST", "100000"),
    ];
    let trial = Trial::start_with(&db, &env).await;
    let mut node = Node::start("graphql-ws.mjs");
    connected(&mut node, &trial, "first", &trial.token).await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..50 {
        let crowd = (0..100).map(|_| Socket::open(&trial.daemon, "/graphql/ws", &[]));
        for knocked in futures_util::future::join_all(crowd).await {
            match knocked {
                Ok(socket) => open.push(socket),
                Err(status) => {
                    assert_eq!(status.as_u16(), 503);
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0 && open.len() + refused == 5000, "{} were let in, {refused} not", open.len());
    // The silent ones lose their places in time, so that a few more than there are found one.
    begin(&mut node, "first", "q", "{ me { name } }", json!({})).await;
    assert_eq!(data(&mut node, "first", "q").await["me"]["name"], "admin");
    assert_eq!(trial.client.ask("{ me { name } }", json!({})).await["me"]["name"], "admin");
}
