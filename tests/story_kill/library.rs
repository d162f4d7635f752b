//! A disk is brought into the library and taken out again; no guest is needed for that.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::death::{ask_to_death, points_of};
use crate::support::{
    daemon::{Client, Daemon},
    database::TestDatabase,
    host,
    origin::{ALLOWED, Manner, Origin},
    stage::SOON,
    trial::Trial,
};

pub const TOLD: &[&str] = &["import-medium", "cancel-medium", "delete-medium"];

const IMPORT: &str = "mutation($input: ImportMediumInput!) { importMedium(input: $input) { state } }";
const CANCEL: &str = "mutation($name: String!) { cancelMediumImport(name: $name) { state } }";
const DELETE: &str = "mutation($name: String!) { deleteMedium(name: $name) { state } }";

pub async fn story(db: &TestDatabase) {
    let inbox = tempfile::tempdir().unwrap();
    let source = inbox.path().join("disk.qcow2");
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&source).arg("8M").status();
    assert!(made.expect("qemu-img is needed; scripts/test installs it").success());
    let dirs = inbox.path().to_str().unwrap();
    let Trial { daemon, home, token, library, .. } = Trial::start_with(
        db,
        &[
            ("INFINIBAY__MEDIA__IMPORT_DIRS", dirs),
            ("INFINIBAY__MEDIA__RESERVE_BYTES", "0"),
            ("INFINIBAY__MEDIA__ALLOW_ADDRESSES", ALLOWED),
        ],
    )
    .await;
    daemon.kill();
    let at = (&home, token.as_str());
    let start = || -> (Daemon, Client) {
        let daemon = home.start();
        let client = daemon.client(&token);
        (daemon, client)
    };
    let standing = || host::files_in(library.path());
    let before = standing();

    let mut deletions = points_of("delete-medium").iter();
    for point in points_of("import-medium") {
        let input = json!({ "input": {
            "name": "fresh", "kind": "DISK_IMAGE", "path": source, "osFamily": "LINUX", "provisioning": "NONE",
            "format": "QCOW2", "description": "An empty disk",
        } });
        ask_to_death(at, point, async |_: &Client| (), IMPORT, &input).await;
        {
            let (_daemon, client) = start();
            becomes(&client, &json!("READY"), point).await;
            // Whoever was not answered asks again, and gets what he asked for.
            assert_eq!(client.ask(IMPORT, input).await["importMedium"]["state"], "READY", "{point}");
        }
        let place = library.path().join("fresh");
        let mut expected = before.clone();
        expected.push(place.clone());
        expected.sort();
        assert_eq!(standing(), expected, "{point}");
        assert!(is_whole(&place, &source), "{point}: {:?}", host::files_in(&place));

        let name = json!({ "name": "fresh" });
        let client = match deletions.next() {
            Some(point) => {
                ask_to_death(at, point, async |_: &Client| (), DELETE, &name).await;
                start()
            }
            None => {
                let (daemon, client) = start();
                client.ask(DELETE, name).await;
                (daemon, client)
            }
        };
        becomes(&client.1, &Value::Null, point).await;
        assert_eq!(standing(), before, "{point}");
    }
    assert_eq!(deletions.next(), None, "more ways to delete a medium than to bring one in");

    // One that never ends is given up on the way.
    let origin = Origin::new().await;
    let url = origin.on("/endless", Manner::Drips);
    for (number, point) in points_of("cancel-medium").iter().enumerate() {
        let name = format!("endless-{number}");
        {
            let (_daemon, client) = start();
            let input = json!({ "input": { "name": name, "kind": "INSTALLATION", "url": url } });
            client.ask(IMPORT, input).await;
            comes_to(&client, &name, |now| now["state"] == "DOWNLOADING").await;
        }
        let at_work = async |client: &Client| {
            comes_to(client, &name, |now| now["state"] == "DOWNLOADING").await;
        };
        ask_to_death(at, point, at_work, CANCEL, &json!({ "name": name })).await;
        let discs = home.state_dir().join("media");
        let (_daemon, client) = start();
        comes_to(&client, &name, |now| now["state"] == "FAILED" && now["error"]["code"] == "CANCELLED").await;
        let deadline = Instant::now() + SOON;
        while !host::files_in(&discs).is_empty() {
            assert!(Instant::now() < deadline, "{point}: left: {:?}", host::files_in(&discs));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        client.ask(DELETE, json!({ "name": name })).await;
        comes_to(&client, &name, Value::is_null).await;
    }
}

async fn comes_to(client: &Client, name: &str, is_there: impl Fn(&Value) -> bool) {
    const MEDIUM: &str = "query($name: String!) { medium(name: $name) { state error { code } } }";
    let deadline = Instant::now() + SOON;
    loop {
        let now = client.ask(MEDIUM, json!({ "name": name })).await["medium"].take();
        if is_there(&now) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_whole(place: &Path, source: &Path) -> bool {
    let files = host::files_in(place);
    let same = |path: &Path| std::fs::read(path).unwrap() == std::fs::read(source).unwrap();
    files.len() == 2 && files.iter().any(|path| same(path)) && place.join("manifest.toml").exists()
}

async fn becomes(client: &Client, state: &Value, point: &str) {
    const MEDIUM: &str = "{ medium(name: \"fresh\") { state error { code message } } }";
    let deadline = Instant::now() + SOON;
    loop {
        let now = client.ask(MEDIUM, json!({})).await["medium"].take();
        // Where there is none, there is no state.
        if now["state"] == *state {
            return;
        }
        assert!(Instant::now() < deadline && now["state"] != "FAILED", "{point}: {now}, not {state}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
