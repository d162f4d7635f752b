//! The PostgreSQL server itself is stopped for a minute, and then killed, while a guest reports: what
//! is asked meanwhile is refused, readings wait and are stored once each, and the loop goes on by
//! itself.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod support;

use std::time::{Duration, Instant};

use fleet::{Fleet, GuestPlan, Kind, Plan};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use support::{
    daemon::{Client, Daemon},
    database::server::Server,
    host,
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
/// How long a refusal may take while requests wait a second for a connection.
const REFUSED: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(200);
/// It reports beyond both outages.
const READINGS: u64 = 400;

const CREATE: &str = "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }";
const RUN: &str =
    "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, command: { safe: { action: OS_INFO } }) { id } }";

async fn refused(client: &Client, query: &str, variables: Value) {
    let asked = Instant::now();
    let code = client.refused(query, variables).await;
    assert_eq!(code, "STORE_UNAVAILABLE", "{query}");
    assert!(asked.elapsed() < REFUSED, "{query}: refused after {:?}", asked.elapsed());
}

/// Everything that people may ask is refused, soon and with a word for it.
async fn all_is_refused(trial: &Trial, vm: &str) {
    let client = &trial.client;
    for mutation in ["startVm", "stopVm", "suspendVm", "resetVm", "deleteVm"] {
        let query = format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}");
        refused(client, &query, json!({ "id": vm })).await;
    }
    refused(client, CREATE, json!({ "input": trial.request("refused") })).await;
    refused(client, RUN, json!({ "vm": vm })).await;
    refused(client, "{ vms { nodes { id } } }", json!({})).await;
    let (status, health) = health(&trial.daemon).await;
    assert_eq!((status, &health["status"]), (503, &json!("failing")), "{health}");
}

async fn health(daemon: &Daemon) -> (u16, Value) {
    let answer = reqwest::get(format!("{}/healthz", daemon.url)).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The loop does what is asked again, and says what is so.
async fn goes_on(daemon: &Daemon, client: &Client, vm: &str) {
    let deadline = Instant::now() + SOON;
    let suspend = "mutation($id: UUID!) { suspendVm(id: $id) { operation { id } } }";
    let asked = loop {
        let mut answer = client.send(suspend, json!({ "id": vm })).await;
        if answer.get("errors").is_none() {
            break answer["data"].take();
        }
        assert!(Instant::now() < deadline, "nothing is taken: {answer}");
        tokio::time::sleep(INTERVAL).await;
    };
    client.succeeded(asked["suspendVm"]["operation"]["id"].as_str().unwrap(), SOON).await;
    client.phase_is(vm, "PAUSED", SOON).await;
    let resume = client.change("resumeVm", vm).await;
    client.succeeded(&resume, SOON).await;
    client.phase_is(vm, "RUNNING", SOON).await;
    client.agent_is(vm, "ONLINE", SOON).await;
    // An answer is kept for a moment.
    while health(daemon).await.0 != 200 {
        assert!(Instant::now() < deadline, "the controller goes on saying that it cannot do its work");
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn number(server: &Server, sql: &'static str) -> i64 {
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_or_killed_costs_refusals_and_nothing_else() {
    let mut server = Server::start();
    let trial = Trial::start_over(
        &server.url(),
        &[
            ("INFINIBAY__DATABASE__ACQUIRE_TIMEOUT", "1s"),
            ("INFINIBAY__METRICS__FLUSH_INTERVAL", "1s"),
            // What the guest kept until its VM was made comes at once.
            ("INFINIBAY__AGENTS__MAX_FRAMES_PER_SECOND", "500"),
        ],
    )
    .await;
    let client = &trial.client;
    let mut plan = Plan::of(Kind::WellBehaved, 1, INTERVAL, 7);
    for guest in &mut plan.guests {
        *guest = GuestPlan { limit: Some(READINGS), ..guest.clone() };
    }
    let fleet = Fleet::start(&trial.home.socket_dir(), plan).unwrap();
    let vm = fleet.ids().next().unwrap().to_string();
    let mut request = trial.request("reporting");
    request["id"] = json!(vm);
    let (_, create) = client.create(request).await;
    client.succeeded(&create, SOON).await;
    client.agent_is(&vm, "ONLINE", SOON).await;
    let sent = || fleet.reports().iter().map(|report| report.frames_sent).sum::<u64>();
    let commands = || fleet.reports().iter().map(|report| report.commands_received).sum::<u64>();
    let before = (sent(), commands());

    server.stop();
    let stopped = Instant::now();
    while stopped.elapsed() < MINUTE {
        all_is_refused(&trial, &vm).await;
    }
    assert!(
        sent() - before.0 > 200,
        "hardly anything was reported meanwhile: {} readings",
        sent() - before.0
    );
    let spool = host::files_in(&trial.home.state_dir().join("spool"));
    assert!(!spool.is_empty(), "no reading waits on the disk");
    server.run();
    goes_on(&trial.daemon, client, &vm).await;
    assert_eq!(commands(), before.1, "a refused command was sent");

    server.kill();
    all_is_refused(&trial, &vm).await;
    server.run();
    goes_on(&trial.daemon, client, &vm).await;

    let all = i64::try_from(READINGS).unwrap();
    let deadline = Instant::now() + SOON;
    while number(&server, "SELECT count(*) FROM vm_metrics").await < all {
        assert!(Instant::now() < deadline, "not all {READINGS} readings are stored; {} were sent", sent());
        tokio::time::sleep(INTERVAL).await;
    }
    assert_eq!(number(&server, "SELECT count(DISTINCT id) FROM vm_metrics").await, all);
    assert_eq!(number(&server, "SELECT count(*) FROM vm_metrics").await, all);
    let delete = client.change("deleteVm", &vm).await;
    // Its socket is not left over as long as somebody listens.
    fleet.stop().await;
    client.succeeded(&delete, SOON).await;
    trial.daemon.stop();
}
