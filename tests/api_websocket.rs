//! The WebSocket door: introductions, what is told as it happens, and when it ends.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::time::Duration;

use infinibay::vm::VmId;
use serde_json::json;
use support::{
    api::{Said, Socket},
    away::Away,
    guest::{FakeGuest, Received, handshake_line, metrics_line, well_behaved},
    trial::Trial,
};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

const SOON: Duration = Duration::from_secs(20);
const EVENTS: &str = "subscription($vm: UUID!) { vmEvents(vmId: $vm) { type vmId at payload } }";
const PROGRESS: &str = "subscription($id: UUID!) { operationProgress(id: $id) { id kind status progress } }";

/// A reading every now and then, for as long as somebody reads them.
async fn talkative(mut stream: UnixStream, _received: Received) -> std::io::Result<()> {
    stream.write_all(handshake_line(1).as_bytes()).await?;
    loop {
        stream.write_all(metrics_line(5.0).as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

on_both! {
    async fn every_client_introduces_itself(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (daemon, token) = (&trial.daemon, &trial.token);
        let bearer = format!("Bearer {token}");
        for (path, headers, payload) in [
            ("/graphql/ws", vec![], json!({ "authorization": bearer })),
            ("/graphql", vec![], json!({ "Authorization": bearer })),
            ("/graphql", vec![], json!({ "token": token })),
            ("/graphql/ws", vec![("authorization", bearer.clone())], json!({})),
        ] {
            let mut socket = Socket::open(daemon, path, &headers).await.unwrap();
            let answer = socket.introduce(payload.clone()).await;
            assert!(matches!(&answer, Said::Message(m) if m["type"] == "connection_ack"), "{payload}: {answer:?}");
            socket.begin("q", "{ me { name } }", json!({})).await;
            assert_eq!(socket.data("q").await["me"]["name"], "admin");
        }
        for payload in [json!({}), json!({ "token": "nonsense" }), json!({ "authorization": token })] {
            let mut socket = Socket::open(daemon, "/graphql/ws", &[]).await.unwrap();
            let answer = socket.introduce(payload.clone()).await;
            assert!(matches!(answer, Said::Closed(4403)), "{payload}: {answer:?}");
        }
        let mut rude = Socket::open(daemon, "/graphql/ws", &[]).await.unwrap();
        rude.begin("q", "{ me { name } }", json!({})).await;
        assert_eq!(rude.closed().await, 4401, "an operation came before the introduction");
        let mut silent = Socket::open(daemon, "/graphql/ws", &[]).await.unwrap();
        assert_eq!(silent.closed().await, 4408, "nothing came, and nothing ended it");
    }

    async fn what_happens_is_told(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let id = VmId::generate();
        let vm = id.to_string();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let mut request = trial.request("told");
        request["id"] = json!(vm);
        let (_, operation) = trial.client.create(request).await;

        let mut socket = Socket::introduced(&trial.daemon, &trial.token).await;
        socket.begin("create", PROGRESS, json!({ "id": operation })).await;
        let mut told = Vec::new();
        loop {
            let message = socket.message().await;
            if message["type"] == "complete" {
                break;
            }
            told.push(message["payload"]["data"]["operationProgress"].clone());
        }
        assert_eq!(told.last().unwrap()["status"], "SUCCEEDED", "{told:?}");
        assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "the same was told twice: {told:?}");
        // One that has ended is told once.
        socket.begin("again", PROGRESS, json!({ "id": operation })).await;
        assert_eq!(socket.data("again").await["operationProgress"]["status"], "SUCCEEDED");
        assert_eq!(socket.message().await["type"], "complete");

        let mut readings = Socket::introduced(&trial.daemon, &trial.token).await;
        let query = "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { vmId cpuUsage memoryTotal raw } }";
        readings.begin("m", query, json!({ "vm": vm })).await;
        socket.begin("events", EVENTS, json!({ "vm": vm })).await;
        // One is listened to once it has said how things are, the other once another question on the
        // same connection was answered.
        assert_eq!(socket.data("events").await["vmEvents"]["type"], "snapshot");
        readings.begin("q", "{ me { name } }", json!({})).await;
        assert_eq!(readings.data("q").await["me"]["name"], "admin");
        assert_eq!(readings.message().await["type"], "complete");
        assert_eq!(trial.client.shell(&vm, "echo hello").await["success"], true);
        let command = loop {
            let event = socket.data("events").await["vmEvents"].take();
            assert_eq!(event["vmId"], vm);
            if event["type"] == "vm:command" {
                break event;
            }
        };
        assert_eq!(command["payload"]["success"], true);

        // The agent comes back with a reading.
        let stop = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";
        trial.client.ask(stop, json!({ "id": vm })).await;
        trial.client.phase_is(&vm, "STOPPED", SOON).await;
        let start = trial.client.change("startVm", &vm).await;
        trial.client.succeeded(&start, SOON).await;
        let reading = readings.data("m").await["vmMetrics"].take();
        assert_eq!((&reading["vmId"], &reading["memoryTotal"]), (&json!(vm), &json!("1000000")));
        assert!(!reading["raw"].to_string().contains("hunter2"), "a secret was told: {reading}");

        // Its socket goes with the domain, as QEMU's does.
        drop(guest);
        let delete = trial.client.change("deleteVm", &vm).await;
        trial.client.succeeded(&delete, SOON).await;
        let mut types = Vec::new();
        loop {
            let message = socket.message().await;
            if message["type"] == "complete" {
                break;
            }
            types.push(message["payload"]["data"]["vmEvents"]["type"].as_str().unwrap().to_owned());
        }
        for expected in ["vm:offline", "vm:online", "vm:status", "vm:operation", "vm:deleted"] {
            assert!(types.iter().any(|kind| kind == expected), "{expected} was not told: {types:?}");
        }
    }

    async fn rights_are_looked_at_again(db: TestDatabase) {
        let mut trial = Trial::start_with(&db, &[("INFINIBAY__API__RECHECK_INTERVAL", "1s")]).await;
        let Trial { home, daemon, .. } = &mut trial;
        let eves = home.between(daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let (private, operation) = trial.client.create(trial.request("private")).await;
        let eve = trial.daemon.client(&eves);
        let (own, _) = eve.create(trial.request("own")).await;

        let mut socket = Socket::introduced(&trial.daemon, &eves).await;
        socket.begin("a", EVENTS, json!({ "vm": private })).await;
        assert_eq!(socket.refused("a").await, "VM_NOT_FOUND");
        let metrics = "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { id } }";
        socket.begin("b", metrics, json!({ "vm": private })).await;
        assert_eq!(socket.refused("b").await, "VM_NOT_FOUND");
        socket.begin("c", PROGRESS, json!({ "id": operation })).await;
        assert_eq!(socket.refused("c").await, "OPERATION_NOT_FOUND");
        socket.begin("d", EVENTS, json!({ "vm": own })).await;

        let store = db.store().await;
        let user = store.user_named("eve").await.unwrap().unwrap();
        assert!(store.revoke_tokens(user.id, chrono::Utc::now()).await.unwrap() >= 1);
        // What she starts now is refused at once; what she listens to ends within its time.
        let (mut refused, mut ended) = (false, false);
        socket.begin("e", "{ me { name } }", json!({})).await;
        while !(refused && ended) {
            match socket.next_within(Duration::from_secs(60)).await {
                Said::Message(message) if message["id"] == "e" && message["type"] != "complete" => {
                    let text = message.to_string();
                    assert!(text.contains("UNAUTHENTICATED"), "{text}");
                    refused = true;
                }
                Said::Message(message) if message["id"] == "d" && message["type"] == "complete" => ended = true,
                Said::Message(_) => {}
                Said::Closed(code) => panic!("closed with {code}"),
            }
        }
        store.close().await;
    }

    async fn an_outage_of_the_database_ends_nobodys_subscription(db: TestDatabase) {
        let mut away = Away::new(&db).await;
        let env = [("DATABASE_URL", away.url.as_str()), ("INFINIBAY__API__RECHECK_INTERVAL", "1s")];
        let trial = Trial::start_with(&db, &env).await;
        let id = VmId::generate();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, talkative);
        let mut request = trial.request("watched");
        request["id"] = json!(id.to_string());
        let (vm, operation) = trial.client.create(request).await;
        trial.client.succeeded(&operation, SOON).await;
        let query = "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { vmId } }";
        let mut socket = Socket::introduced(&trial.daemon, &trial.token).await;
        socket.begin("m", query, json!({ "vm": vm })).await;
        assert_eq!(socket.data("m").await["vmMetrics"]["vmId"], vm);

        away.cut().await;
        // Rights are looked at again every second, and looking may take two.
        let cut = tokio::time::Instant::now();
        while cut.elapsed() < Duration::from_secs(7) {
            assert_eq!(socket.data("m").await["vmMetrics"]["vmId"], vm);
        }
        away.restore().await;
        // Who has lost the right is found as soon as somebody can be asked.
        let store = db.store().await;
        let user = store.user_named("admin").await.unwrap().unwrap();
        assert!(store.revoke_tokens(user.id, chrono::Utc::now()).await.unwrap() >= 1);
        let ended = async { while socket.message().await["type"] != "complete" {} };
        tokio::time::timeout(SOON, ended).await.expect("whoever has no right listens on");
        store.close().await;
        drop(guest);
    }

    async fn connections_are_bounded_and_told_of_the_end(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__API__MAX_WEBSOCKETS", "2")]).await;
        let mut first = Socket::introduced(&trial.daemon, &trial.token).await;
        let second = Socket::introduced(&trial.daemon, &trial.token).await;
        let third = Socket::open(&trial.daemon, "/graphql/ws", &[]).await;
        assert_eq!(third.err().expect("a third connection was served").as_u16(), 503);
        drop(second);
        let freed = async {
            while Socket::open(&trial.daemon, "/graphql/ws", &[]).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, freed).await.expect("the place was not freed");

        // One connection does not run everything at once.
        let (vm, _) = trial.client.create(trial.request("busy")).await;
        for n in 0..64 {
            first.begin(&format!("s{n}"), EVENTS, json!({ "vm": vm })).await;
        }
        first.begin("over", "{ me { name } }", json!({})).await;
        let refused = loop {
            let message = first.message().await;
            if message["id"] == "over" {
                break message;
            }
        };
        assert!(refused.to_string().contains("TOO_MANY_OPERATIONS"), "{refused}");

        let end = async move {
            loop {
                if let Said::Closed(code) = first.next().await {
                    return code;
                }
            }
        };
        let stop = tokio::task::spawn_blocking(move || trial.daemon.stop());
        assert_eq!(end.await, 1001, "the stop was not told");
        assert!(stop.await.unwrap() < Duration::from_secs(8), "WebSockets held the stop");
    }
}
