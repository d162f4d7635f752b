//! What is refused leaves a row: of each VM that was named in bulk, at every door, and of what nobody heard
//! the end of. And what refusals write is bounded, without anything being forgotten.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use support::{
    api::Socket,
    daemon::Client,
    database::TestDatabase,
    guest::{FakeGuest, Received, eventually, handshake_line},
    node::Node,
    raw,
    trial::Trial,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(20);
const MANY: &str = "mutation($vms: [UUID!]!) { executeVmCommands(vmIds: $vms, parallelism: 64, \
    command: { unsafe: { rawCommand: \"id\" } }) { vmId error { code } } }";

/// The rows of an action, newest first.
async fn rows(trial: &Trial, action: &str) -> Vec<Value> {
    const LOG: &str = "query($action: String!, $after: String) { auditLog(first: 100, after: $after, \
        filter: { action: $action }) { pageInfo { hasNextPage endCursor } \
        nodes { userId vmId outcome code address requestId details } } }";
    let (mut rows, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut page = trial.client.ask(LOG, json!({ "action": action, "after": after })).await;
        let page = &mut page["auditLog"];
        rows.extend(page["nodes"].as_array().unwrap().iter().cloned());
        if page["pageInfo"]["hasNextPage"] == false {
            return rows;
        }
        after = page["pageInfo"]["endCursor"].take();
    }
}

/// Waits for the one row of an action; rows of what was cut off are written behind it.
async fn row(trial: &Trial, action: &str, code: &str) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let found: Vec<_> = rows(trial, action).await.into_iter().filter(|row| row["code"] == code).collect();
        match found.as_slice() {
            [] => assert!(Instant::now() < deadline, "{action} has no row with {code}"),
            [one] => return one.clone(),
            more => panic!("{action} has {} rows with {code}: {more:?}", more.len()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Greets, hears everything and answers nothing.
async fn silent(stream: UnixStream, received: Received) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(handshake_line(4).as_bytes()).await?;
    let mut incoming = BufReader::new(reader).lines();
    while let Some(line) = incoming.next_line().await? {
        received.lock().unwrap().push(serde_json::from_str(&line)?);
    }
    Ok(())
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|_| Uuid::new_v4().to_string()).collect()
}

/// Users, with their ids.
async fn id_of(client: &Client) -> Value {
    client.ask("{ me { id } }", json!({})).await["me"]["id"].take()
}

on_both! {
    async fn each_vm_that_was_tried_in_bulk_has_a_row(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (ana, otto) = trial.home.between(&mut trial.daemon, |home| {
            (home.user("ana", &[]), home.user("otto", &["--role", "operator"]))
        });
        trial.client = trial.daemon.client(&trial.token);
        let (ana, otto) = (trial.daemon.client(&ana), trial.daemon.client(&otto));
        let (vm, _) = trial.client.create(trial.request("one")).await;

        let mut tried = ids(999);
        tried.push(vm.clone());
        let told = ana.ask(MANY, json!({ "vms": tried })).await;
        assert!(told["executeVmCommands"].as_array().unwrap().iter().all(|it| it["error"]["code"] == "VM_NOT_FOUND"));
        let written = rows(&trial, "executeVmCommands").await;
        let of: BTreeSet<_> = written.iter().map(|row| row["vmId"].as_str().unwrap().to_owned()).collect();
        assert_eq!((written.len(), of), (1000, tried.into_iter().collect()));
        let (who, request) = (id_of(&ana).await, &written[0]["requestId"]);
        for row in &written {
            assert_eq!((&row["userId"], &row["requestId"], &row["code"]), (&who, request, &json!("VM_NOT_FOUND")));
            assert_eq!((&row["outcome"], &row["address"]), (&json!("REFUSED"), &json!("127.0.0.1")));
        }
        // Who may see it, and not run lines in it.
        otto.ask(MANY, json!({ "vms": [vm] })).await;
        let forbidden = row(&trial, "executeVmCommands", "FORBIDDEN").await;
        assert_eq!((&forbidden["vmId"], &forbidden["userId"]), (&json!(vm), &id_of(&otto).await));
        // Who was refused knows ids; that does not make them an earlier VM's.
        let unborn = Uuid::now_v7().to_string();
        const START: &str = "mutation($id: UUID!) { startVm(id: $id) { operation { id } } }";
        assert_eq!(ana.refused(START, json!({ "id": unborn })).await, "VM_NOT_FOUND");
        let mut request = trial.request("two");
        request["id"] = json!(unborn);
        assert_eq!(trial.client.create(request).await.0, unborn);
        trial.daemon.stop();
    }

    async fn nobody_fills_the_disk_with_what_he_is_refused(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let token = trial.home.between(&mut trial.daemon, |home| home.user("ana", &[]));
        let ana = trial.daemon.client(&token);
        for _ in 0..3 {
            ana.ask(MANY, json!({ "vms": ids(1000) })).await;
        }
        // A stranger, with what is no address: counted like any other attempt.
        let url = format!("{}/auth/login", trial.daemon.url);
        let http = reqwest::Client::new();
        let mut refused = Vec::new();
        for _ in 0..50 {
            let sent = http.post(&url).json(&json!({ "email": "nobody", "password": "wrong" })).send();
            refused.push(sent.await.unwrap().status().as_u16());
        }
        assert!(refused[..30].iter().all(|status| *status == 403), "{refused:?}");
        assert!(refused[30..].iter().all(|status| *status == 429), "{refused:?}");
        let figures = raw::get(raw::address(&trial.daemon), "/metrics", &format!("Authorization: Bearer {}\r\n", trial.token)).await;
        for line in [
            "infinibay_audit_left_out_total{reason=\"attempts\"} 20",
            "infinibay_refusals_total{code=\"FORBIDDEN\"} 30",
            "infinibay_refusals_total{code=\"TOO_MANY_ATTEMPTS\"} 20",
        ] {
            assert!(figures.contains(line), "{line} is not in {figures}");
        }
        trial.daemon.stop();
        let of_hers = db.number("SELECT count(*) FROM audit_log WHERE action = 'executeVmCommands'").await;
        assert!((2000..2050).contains(&of_hers), "{of_hers}");
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = '/auth/login'").await, 30);
        // What got no row is told before the end, of her and of the stranger.
        let told = "SELECT CAST(sum(CAST(CAST(details AS JSON) ->> 'count' AS INTEGER)) AS BIGINT) FROM audit_log \
            WHERE action = 'audit.leftOut'";
        let of_sqlite = "SELECT sum(details ->> 'count') FROM audit_log WHERE action = 'audit.leftOut'";
        let told = match db.backend() {
            support::database::Backend::Sqlite => db.number(of_sqlite).await,
            support::database::Backend::Postgres => db.number(told).await,
        };
        assert_eq!(of_hers + told, 3000 + 20);
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'audit.leftOut'").await, 2);
    }

    async fn every_door_writes_down_what_it_forbids(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let (ana, blind) = trial.home.between(&mut trial.daemon, |home| {
            let ana = home.user("ana", &[]);
            // Whoever may change things and see none.
            let blind = home.run(&["user", "token", "ana", "--scope", "control"]).trim().to_owned();
            (ana, blind)
        });
        trial.client = trial.daemon.client(&trial.token);
        let hers = trial.daemon.client(&ana);
        let who = id_of(&hers).await;
        let (vm, _) = hers.create(trial.request("hers")).await;

        let to = raw::address(&trial.daemon);
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        assert_eq!(raw::status(&raw::get(to, "/metrics", &bearer(&ana)).await), 403);
        assert_eq!(row(&trial, "/metrics", "FORBIDDEN").await["userId"], who);
        assert_eq!(raw::status(&raw::get(to, &format!("/vms/{vm}/screenshot"), &bearer(&blind)).await), 403);
        let seen = row(&trial, "/screenshot", "FORBIDDEN").await;
        assert_eq!((&seen["userId"], &seen["vmId"], &seen["address"]), (&who, &json!(vm), &json!("127.0.0.1")));

        // A subscription is refused before anything of it is resolved; what it is called there is nobody's business.
        let mut socket = Socket::introduced(&trial.daemon, &blind).await;
        socket.begin("1", "subscription($vm: UUID!) { renamed: vmEvents(vmId: $vm) { __typename } }", json!({ "vm": vm })).await;
        assert_eq!(socket.refused("1").await, "FORBIDDEN");
        let stream = row(&trial, "vmEvents", "FORBIDDEN").await;
        assert_eq!((&stream["userId"], &stream["vmId"]), (&who, &json!(vm)));
        let mut node = Node::start("socketio.mjs");
        node.tell(json!({ "do": "open", "socket": "a", "url": trial.daemon.url, "auth": { "token": blind },
            "transports": ["websocket"] })).await;
        node.hears("a", "connect").await;
        let answer = node.ask("a", "subscribe:vm", json!(vm)).await;
        assert_eq!(answer["code"], "FORBIDDEN", "{answer}");
        let heard = row(&trial, "subscribe:vm", "FORBIDDEN").await;
        assert_eq!((&heard["userId"], &heard["vmId"], &heard["address"]), (&who, &json!(vm), &json!("127.0.0.1")));

        // An id is a VM's where it is one, wherever it stands.
        let other = Uuid::new_v4().to_string();
        for (action, query) in [
            ("user", "query($id: UUID!) { user(id: $id) { id } }"),
            ("deleteUser", "mutation($id: UUID!) { deleteUser(id: $id) { id } }"),
            ("updateUser", "mutation($id: UUID!) { updateUser(id: $id, input: { disabled: true }) { id } }"),
            ("revokeApiToken", "mutation($id: UUID!) { revokeApiToken(id: $id) { id } }"),
        ] {
            hers.refused(query, json!({ "id": other })).await;
            let written = rows(&trial, action).await;
            assert_eq!((written.len(), &written[0]["vmId"]), (1, &json!(null)), "{action}: {written:?}");
        }
        let strict = format!("mutation($id: UUID! = \"{other}\") {{ resetVm(id: $id) {{ operation {{ id }} }} }}");
        assert_eq!(hers.refused(&strict, json!({})).await, "VM_NOT_FOUND");
        assert_eq!(row(&trial, "resetVm", "VM_NOT_FOUND").await["vmId"], other);

        hers.ask("mutation($id: UUID!) { resync(id: $id) { id } }", json!({ "id": vm })).await;
        let done = &rows(&trial, "vm.resync").await;
        assert_eq!((done.len(), &done[0]["userId"], &done[0]["vmId"], &done[0]["outcome"]),
            (1, &who, &json!(vm), &json!("DONE")));
        trial.daemon.stop();
    }

    async fn what_nobody_heard_the_end_of_is_told_as_that(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__API__REQUEST_TIMEOUT", "1s")]).await;
        let id = VmId::generate();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), id, silent);
        let mut request = trial.request("silent");
        request["id"] = json!(id.to_string());
        let (vm, _) = trial.client.create(request).await;
        trial.client.agent_is(&vm, "ONLINE", SOON).await;

        // He hangs up while the guest works.
        let to = raw::address(&trial.daemon);
        let gone = Uuid::now_v7().to_string();
        let run = json!({ "query": format!("mutation {{ executeVmCommand(vmId: \"{vm}\", timeoutSeconds: 60, \
            command: {{ safe: {{ action: OS_INFO }} }}) {{ status }} }}") }).to_string();
        let head = format!("Authorization: Bearer {}\r\nX-Request-Id: {gone}\r\n", trial.token);
        let mut connection = raw::connect_from("127.0.0.1", to).await;
        connection.write_all(raw::post("/graphql", &run, &head).as_bytes()).await.unwrap();
        eventually("the guest hears it", || (!guest.received_of("SafeCommand").is_empty()).then_some(())).await;
        drop(connection);
        let told = row(&trial, "executeVmCommand", "CLIENT_GONE").await;
        assert_eq!((&told["vmId"], &told["requestId"], &told["outcome"]), (&json!(vm), &json!(gone), &json!("FAILED")));
        let done = &rows(&trial, "vm.command").await[0];
        assert_eq!((&done["requestId"], &done["outcome"]), (&json!(gone), &json!("DONE")), "what was done by then");

        // The database keeps him waiting for longer than he may.
        let held = Held::writes(&db).await;
        const USER: &str = "mutation { createUser(input: { name: \"late\" }) { id } }";
        assert_eq!(trial.client.refused(USER, json!({})).await, "REQUEST_TIMEOUT");
        held.let_go().await;
        assert_eq!(row(&trial, "createUser", "REQUEST_TIMEOUT").await["outcome"], "FAILED");

        // And the controller goes while he waits.
        let client = trial.client.clone();
        let run = "mutation($vm: UUID!) { executeVmCommand(vmId: $vm, timeoutSeconds: 60, command: { safe: { action: OS_INFO } }) { status } }";
        let heard = guest.received_of("SafeCommand").len();
        let waiting = tokio::spawn({ let vm = vm.clone(); async move { client.send(run, json!({ "vm": vm })).await } });
        eventually("the guest hears it", || (guest.received_of("SafeCommand").len() > heard).then_some(())).await;
        let daemon = trial.daemon;
        tokio::task::spawn_blocking(move || daemon.stop()).await.unwrap();
        waiting.await.unwrap();
        let cut = db.number("SELECT count(*) FROM audit_log WHERE action = 'executeVmCommand' AND outcome = 'failed'").await;
        assert_eq!(cut, 2);
    }
}

/// Somebody who keeps others from writing.
enum Held {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Held {
    async fn writes(db: &TestDatabase) -> Self {
        match db.directory() {
            Some(dir) => {
                let url = format!("sqlite:{}", dir.join("test.db").display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
                Self::Sqlite(connection)
            }
            None => {
                let mut connection = PgConnection::connect(&db.url).await.unwrap();
                let lock = "BEGIN; LOCK TABLE users, audit_log IN EXCLUSIVE MODE";
                sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
                Self::Postgres(connection)
            }
        }
    }

    async fn let_go(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}
