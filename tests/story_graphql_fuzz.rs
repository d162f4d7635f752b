//! A public fuzzer of GraphQL (schemathesis, from PyPI) asks for everything that the schema has, with
//! what is there, what is nearly there and what makes no sense: as an admin and as somebody with a VM of his
//! own. Nothing of it is our fault, everything that is refused has its code, and somebody else is served on.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use infinibay::vm::VmId;
use serde_json::json;
use support::{
    daemon::Client,
    guest::{FakeGuest, well_behaved},
    node::{SOON, clients, here},
    trial::Trial,
};
use tokio_util::sync::CancellationToken;

/// How long anybody may wait meanwhile; the machine of a test may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest run of the fuzzer.
const LIMIT: Duration = Duration::from_secs(60);
/// The same requests each time, as far as the schema is the same.
const SEED: &str = "20";
/// What takes the rest of the story's ground away.
const DELETIONS: &str = "^Mutation\\.(delete|release)";

/// Limits that a query of the fuzzer's is not to meet before anything else is looked at.
const WIDE: [(&str, &str); 5] = [
    ("INFINIBAY__API__MAX_QUERY_COMPLEXITY", "100000"),
    ("INFINIBAY__API__MAX_QUERY_DEPTH", "64"),
    ("INFINIBAY__API__MAX_QUERY_ALIASES", "10000"),
    ("INFINIBAY__API__MAX_ROOT_FIELDS", "10000"),
    ("INFINIBAY__HTTP__REQUESTS_PER_SECOND", "100000"),
];

/// Answers by code, besides `requests` and `done`.
type Answers = BTreeMap<String, u64>;

/// Has the fuzzer ask with this token, so many times of each field.
async fn fuzz(trial: &Trial, token: &str, known: &Path, examples: u32, besides: &[&str]) -> Answers {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let mut schemathesis = tokio::process::Command::new(format!("{}/python/bin/schemathesis", clients()));
    schemathesis
        .args(["--config-file", "schemathesis.toml", "run"])
        .arg(schema)
        .args(["--url", &format!("{}/graphql", trial.daemon.url)])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--phases", "fuzzing", "--checks", "answered_well", "--seed", SEED, "--workers", "1"])
        .args(["--max-examples", &examples.to_string()])
        .args(besides)
        .current_dir(known)
        .env("FUZZED", known.join("known.json"))
        .env("SCHEMATHESIS_HOOKS", "fuzz")
        .env("PYTHONPATH", here(""))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    let begun = Instant::now();
    let ran = tokio::time::timeout(LIMIT, schemathesis.output()).await.expect("the fuzzer does not end");
    let ran = ran.expect("schemathesis is needed; scripts/test installs it");
    println!("{} examples of each field, {:?}", examples, begun.elapsed());
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "the fuzzer found something:\n{out}\n{err}");
    serde_json::from_slice(&fs::read(known.join("answers.json")).unwrap()).unwrap()
}

/// What the fuzzer may name.
fn known(ids: &[String], words: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("known.json"), json!({ "ids": ids }).to_string()).unwrap();
    let words =
        words.iter().map(|word| format!("\"{word}\"\n")).chain(ids.iter().map(|id| format!("\"{id}\"\n")));
    fs::write(dir.path().join("known.dict"), words.collect::<String>()).unwrap();
    fs::copy(here("fuzz.toml"), dir.path().join("schemathesis.toml")).unwrap();
    dir
}

/// Somebody else, who asks all the while; how often he was served.
async fn bystander(client: Client, stop: CancellationToken) -> u32 {
    let mut served = 0;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        client.ask("{ me { id name } vms { nodes { id } } }", json!({})).await;
        assert!(begun.elapsed() < PATIENCE, "somebody else waited for {:?}", begun.elapsed());
        served += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    served
}

/// Enough was asked, and enough of it was neither refused at once nor for one reason.
fn enough(who: &str, answers: &Answers, requests: u64, done: u64, codes: usize) {
    println!("{who} was answered {answers:?}");
    let count = |name: &str| answers.get(name).copied().unwrap_or_default();
    assert!(count("requests") >= requests, "{who} asked {} times: {answers:?}", count("requests"));
    assert!(count("done") >= done, "{who} was refused too much: {answers:?}");
    assert!(answers.len() >= codes + 2, "{who} met too few refusals: {answers:?}");
}

on_both! {
    async fn a_fuzzer_finds_nothing_of_ours(db: TestDatabase) {
        let mut trial = Trial::start_with(&db, &WIDE).await;
        let (eve, other) = trial.home.between(&mut trial.daemon, |home| (home.user("eve", &[]), home.user("other", &[])));
        trial.client = trial.daemon.client(&trial.token);
        let eves = trial.daemon.client(&eve);
        let (mut ids, mut agents) = (Vec::new(), Vec::new());
        for (name, client) in [("web", &trial.client), ("db", &trial.client), ("eves", &eves), ("off", &eves)] {
            let id = VmId::generate();
            agents.push(FakeGuest::listen(&trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new())));
            let mut request = trial.request(name);
            request["id"] = json!(id.to_string());
            let (vm, operation) = client.create(request).await;
            ids.extend([vm, operation]);
        }
        for pair in ids.chunks(2) {
            trial.client.succeeded(&pair[1], SOON).await;
            trial.client.agent_is(&pair[0], "ONLINE", SOON).await;
        }
        trial.client.shell(&ids[4], "uptime").await;
        let spare = trial.client.ask("mutation { createUser(input: { name: \"spare\" }) { id } }", json!({})).await;
        let spare = spare["createUser"]["id"].as_str().unwrap().to_owned();
        let operation = ids[1].clone();
        ids.push(spare.clone());
        // Most questions are about a VM.
        let vms: Vec<_> = ids.iter().take(8).step_by(2).cloned().collect();
        ids.retain(|id| vms.contains(id) || *id == spare || *id == operation);
        ids.extend([vms.clone(), vms.clone(), vms].concat());
        let words = ["blank", "default-pool", "default", "none", "vda", "vdb", "web", "eves", "spare", "uptime", "."];
        let known = known(&ids, &words);

        let stop = CancellationToken::new();
        let bystander = tokio::spawn(bystander(trial.daemon.client(&other), stop.clone()));
        let changing = ["--exclude-name-regex", DELETIONS, "--mode", "positive"];
        let answers = fuzz(&trial, &trial.token, known.path(), 8, &changing).await;
        enough("the admin", &answers, 400, 100, 8);
        let answers = fuzz(&trial, &eve, known.path(), 4, &[]).await;
        enough("eve", &answers, 200, 15, 5);
        let answers = fuzz(&trial, &trial.token, known.path(), 8, &["--include-name-regex", DELETIONS]).await;
        enough("the admin, deleting,", &answers, 40, 1, 2);
        stop.cancel();
        assert!(bystander.await.unwrap() > 10);
        trial.client.ask("{ me { id } auditLog { nodes { id } } }", json!({})).await;
        let logged = trial.daemon.logged();
        let wrong = |line: &&str| line.contains("panicked") || line.contains("\"level\":\"ERROR\"");
        assert_eq!(logged.lines().find(wrong), None);
        trial.daemon.stop();
    }
}
