//! From a VM's making to its end. In each life every step is killed at once, at another of its moments:
//! a step begins anew after a crash, so that a second kill in it would try a way that was cut short
//! already.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::death::{ask_to_death, delete_meanwhile, points_of};
use crate::support::{
    daemon::{Client, operation_in},
    host,
    stage::{READY, SOON, Stage},
};

pub const TOLD: &[&str] = &["create", "delete", "remake-volume"];

const CREATE: &str =
    "mutation($input: CreateVmInput!) { createVm(input: $input) { operation { id } vm { id } } }";
const DELETE: &str = "mutation($id: UUID!) { deleteVm(id: $id) { operation { id } } }";

/// The points by lives: each has the first, the second, … moment of every step, in the list's order.
pub fn lives(points: &[&'static str]) -> Vec<Vec<&'static str>> {
    let (mut lives, mut moments) = (Vec::new(), BTreeMap::new());
    for point in points {
        let step = point.split_once('.').unwrap().0;
        let moment = moments.entry(step).and_modify(|moment| *moment += 1).or_insert(0_usize);
        if lives.len() <= *moment {
            lives.push(Vec::new());
        }
        lives[*moment].push(*point);
    }
    lives
}

/// The pocket guest as one that is told at its first boot who it is: so it gets a seed, too.
fn library() -> tempfile::TempDir {
    host::need_image("pocket");
    let library = tempfile::Builder::new().prefix("infinibay-story-").tempdir_in("/var/tmp").unwrap();
    let (from, to) = (host::test_images().join("pocket"), library.path().join("pocket"));
    for dir in [library.path(), &to] {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    let seeded = manifest.replace("provisioning = \"none\"", "provisioning = \"cloud-init\"");
    assert_ne!(manifest, seeded);
    for line in manifest.lines() {
        let named = line.split_once(" = ").map(|(key, value)| (key, value.trim_matches('"')));
        if let Some(("disk" | "kernel" | "initrd", file)) = named {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
    std::fs::write(to.join("manifest.toml"), seeded).unwrap();
    library
}

pub async fn story() {
    let library = library();
    let stage = Stage::over("kill", library.path().to_owned());
    let (creations, deletions) = (lives(points_of("create")), lives(points_of("delete")));
    for life in 0..creations.len().max(deletions.len()) {
        let points = |lives: &[Vec<&'static str>]| lives.get(life).cloned().unwrap_or_default();
        let vm = uuid::Uuid::new_v4().to_string();
        let before = stage.inventory(&vm);
        made(&stage, &vm, &points(&creations)).await;
        deleted(&stage, &vm, &points(&deletions)).await;
        assert_eq!(stage.inventory(&vm), before, "left in life {life}");
    }
    for point in points_of("create") {
        half_made(&stage, point).await;
    }
    for point in points_of("remake-volume") {
        remade(&stage, point).await;
    }
}

/// Something half made stands where the VM's disk is to be.
async fn remade(stage: &Stage, point: &'static str) {
    let vm = uuid::Uuid::new_v4().to_string();
    let before = stage.inventory(&vm);
    std::fs::write(stage.pool.dir.join(format!("infinibay-{vm}.qcow2")), "half").unwrap();
    made(stage, &vm, &[point]).await;
    deleted(stage, &vm, &[]).await;
    assert_eq!(stage.inventory(&vm), before, "left after {point}");
}

/// A VM whose deletion is asked for before anybody went on with it: nothing but the rows says then
/// what there is to remove.
async fn half_made(stage: &Stage, point: &str) {
    let vm = uuid::Uuid::new_v4().to_string();
    let before = stage.inventory(&vm);
    asked_and_killed(stage, &[point], CREATE, &request(stage, &vm, "none")).await;
    let operation = delete_meanwhile(&stage.home, &vm).await;
    let daemon = stage.home.start();
    daemon.client(&stage.token).succeeded(&operation, SOON).await;
    assert_eq!(stage.inventory(&vm), before, "left of what was half made at {point}");
    daemon.kill();
}

fn request(stage: &Stage, vm: &str, secret: &str) -> Value {
    let mut input = stage.request();
    input["id"] = vm.into();
    input["unattended"] = json!({ "user": "ada", "firstBootCommands": [format!("echo {secret}")] });
    json!({ "input": input })
}

async fn made(stage: &Stage, vm: &str, points: &[&str]) {
    let secret = format!("secret-{}", uuid::Uuid::new_v4());
    let request = request(stage, vm, &secret);
    asked_and_killed(stage, points, CREATE, &request).await;

    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    // Whoever was not answered asks again, and gets the VM that he asked for.
    let again = client.ask(CREATE, request).await;
    assert_eq!(again["createVm"]["vm"]["id"], vm);
    let client = stage.is_ready(&daemon, vm, &operation_in(&again)).await;
    client.phase_is(vm, "RUNNING", SOON).await;
    let state = stage.home.state_dir();
    for dir in ["seeds", "console"] {
        assert_eq!(host::files_in(&state.join(dir)).len(), 1, "{dir} of {points:?}");
    }
    // Looked for again until the log that the database writes ahead is emptied, too.
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let left = files_with(&state, secret.as_bytes());
        if left.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the secret of {points:?} stays in {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    daemon.kill();
}

async fn deleted(stage: &Stage, vm: &str, points: &[&str]) {
    let request = json!({ "id": vm });
    let answered = asked_and_killed(stage, points, DELETE, &request).await;
    let daemon = stage.home.start();
    let client = daemon.client(&stage.token);
    let operation = match answered {
        Some(answered) => Some(answered),
        None => asked_again(&client, &request).await,
    };
    match operation {
        Some(operation) => client.succeeded(&operation, SOON).await,
        None => assert_eq!(
            client.ask("query($id: UUID!) { vm(id: $id) { id } }", request).await["vm"],
            Value::Null
        ),
    }
    daemon.kill();
}

/// The operation that ends the VM; none when it is gone already.
async fn asked_again(client: &Client, request: &Value) -> Option<String> {
    let mut answer = client.send(DELETE, request.clone()).await;
    if answer["errors"][0]["extensions"]["code"] == "VM_NOT_FOUND" {
        return None;
    }
    assert!(answer.get("errors").is_none(), "{answer}");
    Some(operation_in(&answer["data"].take()))
}

/// Asks a daemon that dies at the first point, and lets the next ones carry on to theirs. Gives the
/// operation, if it was told.
pub async fn asked_and_killed(
    stage: &Stage,
    points: &[&str],
    mutation: &str,
    request: &Value,
) -> Option<String> {
    let Some((first, others)) = points.split_first() else {
        let daemon = stage.home.start();
        return Some(daemon.client(&stage.token).accepted(mutation, request.clone()).await);
    };
    let at = (&stage.home, stage.token.as_str());
    let answered = ask_to_death(at, first, async |_: &Client| (), mutation, request).await;
    for point in others {
        if *point == "remove-socket.removed" {
            // As of a guest whose process was killed.
            let vm = request["id"].as_str().unwrap();
            drop(std::os::unix::net::UnixListener::bind(stage.home.socket(vm)).unwrap());
        }
        stage.home.dies_at(point, READY);
    }
    answered.as_ref().map(operation_in)
}

fn files_with(dir: &Path, words: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for path in host::files_in(dir) {
        if path.is_dir() {
            found.extend(files_with(&path, words));
        } else if std::fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(words.len()).any(|window| window == words))
        {
            found.push(path);
        }
    }
    found
}
