//! What a VM writes to its console and shows on its screen: seen by who may see the VM.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::json;
use support::{
    daemon::{Daemon, Home, Setup},
    host::{self, DomainGuard, Pool},
};

const READY: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const LOG: &str =
    "query($id: UUID!, $max: Int!) { vmConsoleLog(id: $id, maxBytes: $max) { text truncated } }";

async fn screen(daemon: &Daemon, token: Option<&str>, vm: &str) -> Response {
    let asked = reqwest::Client::new().get(format!("{}/vms/{vm}/screenshot", daemon.url));
    let asked = match token {
        Some(token) => asked.bearer_auth(token),
        None => asked,
    };
    asked.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_and_a_screen_are_seen_by_who_may() {
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
    let name = format!("story-console-{}", std::process::id());
    let _guard = DomainGuard(name.clone());
    let daemon = home.start();
    let (client, eve) = (daemon.client(&token), daemon.client(&eves));
    let input = json!({
        "name": name, "image": "pocket", "vcpus": 1, "memoryMib": 192, "pool": pool.name, "network": "none",
    });
    let (vm, create) = client.create(input).await;
    client.succeeded(&create, READY).await;
    client.phase_is(&vm, "RUNNING", SOON).await;

    let log = client.ask(LOG, json!({ "id": vm, "max": 1_048_576 })).await["vmConsoleLog"].take();
    let text = log["text"].as_str().unwrap();
    assert!(text.contains("infiniservice"), "{text}");
    assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{text:?}");
    assert_eq!(log["truncated"], false);
    let end = client.ask(LOG, json!({ "id": vm, "max": 64 })).await["vmConsoleLog"].take();
    assert_eq!(end["truncated"], true);
    assert!(end["text"].as_str().unwrap().len() <= 64, "{end}");
    for max in [0, -1, 1_048_577] {
        assert_eq!(client.refused(LOG, json!({ "id": vm, "max": max })).await, "INVALID_INPUT");
    }
    assert_eq!(eve.refused(LOG, json!({ "id": vm, "max": 64 })).await, "VM_NOT_FOUND");

    let shown = screen(&daemon, Some(&token), &vm).await;
    assert_eq!(shown.status(), StatusCode::OK, "{:?}", shown.text().await);
    let header = |name| shown.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(
        (header("cache-control"), header("x-content-type-options")),
        ("no-store".into(), "nosniff".into())
    );
    let magic: &[u8] = match header("content-type").as_str() {
        "image/png" => b"\x89PNG\r\n",
        "image/x-portable-pixmap" => b"P6",
        other => panic!("a picture of kind {other}"),
    };
    let picture = shown.bytes().await.unwrap();
    assert!(picture.starts_with(magic) && picture.len() > 100, "{} bytes", picture.len());
    let refused = [
        (None, vm.as_str(), StatusCode::UNAUTHORIZED),
        (Some("ibt_x"), &vm, StatusCode::UNAUTHORIZED),
        (Some(&eves), &vm, StatusCode::NOT_FOUND),
        (Some(&token), "7f3c2a10-0000-4000-8000-000000000000", StatusCode::NOT_FOUND),
        (Some(&token), "nothing", StatusCode::BAD_REQUEST),
    ];
    for (token, id, status) in refused {
        assert_eq!(screen(&daemon, token, id).await.status(), status, "{token:?} {id}");
    }
    let stop = "mutation($id: UUID!) { stopVm(id: $id, force: true) { operation { id } } }";
    let stop = client.ask(stop, json!({ "id": vm })).await;
    client.succeeded(stop["stopVm"]["operation"]["id"].as_str().unwrap(), SOON).await;
    client.phase_is(&vm, "STOPPED", SOON).await;
    assert_eq!(screen(&daemon, Some(&token), &vm).await.status(), StatusCode::CONFLICT);

    let delete = client.change("deleteVm", &vm).await;
    client.succeeded(&delete, SOON).await;
    assert_eq!(client.refused(LOG, json!({ "id": vm, "max": 64 })).await, "VM_NOT_FOUND");
    daemon.stop();
}
