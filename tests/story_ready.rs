//! Whether requests may be sent here: each part with its reason, until the controller stops, and how it stops.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    api::{Said, Socket},
    away::Away,
    daemon::{Daemon, Home, Setup},
    database::TestDatabase,
    trial::Trial,
};
use tokio::io::AsyncWriteExt as _;

async fn ready(daemon: &Daemon) -> (u16, Value) {
    let answer = reqwest::get(format!("{}/readyz", daemon.url)).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Waits until it is told so.
async fn told(daemon: &Daemon, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let (status, body) = ready(daemon).await;
        if wanted(status, &body) {
            return body;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "it still says {status} {body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

on_both! {
    async fn each_part_has_its_reason(db: TestDatabase) {
        let mut away = Away::new(&db).await;
        let trial = Trial::start_over(&away.url, &[]).await;
        let fine = json!({ "ready": true });
        let body = told(&trial.daemon, |status, _| status == 200).await;
        for part in ["controller", "database", "libvirt", "socketDirectory"] {
            assert_eq!(body[part], fine, "{part}");
        }
        fs::rename(trial.home.socket_dir(), trial.home.path().join("elsewhere")).unwrap();
        let body = told(&trial.daemon, |status, body| status == 503 && body["socketDirectory"] != fine).await;
        assert_eq!(body["socketDirectory"]["reason"], "the directory of the agents' sockets is not there");
        assert_eq!((&body["database"], &body["libvirt"]), (&fine, &fine), "{body}");
        fs::rename(trial.home.path().join("elsewhere"), trial.home.socket_dir()).unwrap();
        away.cut().await;
        let reads = db.backend() == support::database::Backend::Sqlite;
        if !reads {
            let body = told(&trial.daemon, |status, body| status == 503 && body["database"] != fine).await;
            assert!(body["database"]["reason"].as_str().unwrap().contains("does not answer"), "{body}");
            assert_eq!(body["libvirt"], fine, "{body}");
        }
        away.restore().await;
        told(&trial.daemon, |status, _| status == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_libvirt_it_serves_and_is_not_ready() {
    let db = TestDatabase::new(support::database::Backend::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(Setup {
        uri: "test:///nowhere/that/is.xml".into(),
        database_url: Some(db.url.clone()),
        images_dir: dir.path().to_owned(),
        base_dir: dir.path().join("base"),
        env: Vec::new(),
    });
    let daemon = home.start();
    let (status, body) = ready(&daemon).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert_eq!(body["libvirt"], json!({ "ready": false, "reason": "libvirt is not reachable" }));
    assert_eq!(body["database"], json!({ "ready": true }));
    let alive = reqwest::get(format!("{}/healthz", daemon.url)).await.unwrap();
    assert_eq!(alive.status(), 200, "that is no reason to restart it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_announced_and_then_gentle() {
    let db = TestDatabase::new(support::database::Backend::Sqlite).await;
    let trial = Trial::start_with(&db, &[("INFINIBAY__HTTP__DRAIN_WAIT", "2s")]).await;
    told(&trial.daemon, |status, _| status == 200).await;
    let mut socket = Socket::introduced(&trial.daemon, &trial.token).await;
    let address = support::raw::address(&trial.daemon);
    let daemon = trial.daemon;
    // A request that is on its way when the stop comes: its body comes after the end of the wait.
    let body = json!({ "query": "{ me { name } }" }).to_string();
    let request =
        support::raw::post("/graphql", &body, &format!("Authorization: Bearer {}\r\n", trial.token));
    let (head, tail) = request.split_at(request.len() - 5);
    let mut under_way = tokio::net::TcpStream::connect(address).await.unwrap();
    under_way.write_all(head.as_bytes()).await.unwrap();

    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let body = told(&daemon, |status, _| status == 503).await;
    assert_eq!(body["controller"], json!({ "ready": false, "reason": "the controller is stopping" }));
    assert!(daemon.client(&trial.token).ask("{ me { name } }", json!({})).await["me"]["name"].is_string());
    // WebSockets are told once it stops, and nobody else comes in.
    let closed = socket.next_within(Duration::from_secs(10)).await;
    assert!(matches!(closed, Said::Closed(1001)), "{closed:?}");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still takes connections");
    under_way.write_all(tail.as_bytes()).await.unwrap();
    let answer = support::raw::rest(&mut under_way).await;
    assert!(support::raw::status(&answer) == 200 && answer.contains("admin"), "{answer}");
    let took = daemon.stop();
    assert!(took < Duration::from_secs(15), "{took:?}");
}
