//! Who may what: every root field of schema.graphql, asked by everybody there is, over HTTP and WebSocket.
//! And what their answers are made of, field by field. A field that nobody put into the tables fails here by its name, and somebody else's VM is answered like
//! one that is not there, word for word.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod story_matrix {
    pub mod classes;
    pub mod nested;
    pub mod rows;
    pub mod schema;
}
#[macro_use]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use infinibay::vm::{HostId, VmId};
use serde_json::{Value, json};
use story_matrix::{
    classes::{Absent, Class, Outcome, Rights, SCOPES, Standing},
    nested::{DISC, QUESTIONS, Question, TYPES},
    rows::{Root, Row, Things, rows},
    schema::{Field, fields, objects, reached, text},
};
use support::{
    api::{Said, Socket},
    daemon::{Daemon, Home, unnumbered},
    database::TestDatabase,
    guest::{FakeGuest, Received, answer_line, handshake_line, metrics_line, now, well_behaved},
    sample,
    trial::Trial,
    webhook::{SECRET, quiet_address},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery";

/// Somebody who asks; without rights, nobody who is known.
struct Caller {
    name: &'static str,
    token: Option<String>,
    rights: Option<Rights>,
}

impl Caller {
    fn outcome(&self, class: Class) -> Outcome {
        self.rights.as_ref().map_or(Outcome::Unauthenticated, |rights| class.outcome(rights))
    }

    /// The same of what nobody has.
    fn outcome_of_nothing(&self, class: Class) -> Outcome {
        let rights = self.rights.clone().map(|rights| Rights { standing: Standing::Nobody, ..rights });
        rights.map_or(Outcome::Unauthenticated, |rights| class.outcome(&rights))
    }

    fn sees(&self) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.standing >= Standing::Sees)
    }
}

/// Users by name, role, permission for shell lines, part in the VMs, and what all of it makes of them.
const PEOPLE: [(&str, &str, bool, Option<&str>, Standing); 11] = [
    ("stranger", "member", false, None, Standing::Nobody),
    ("shell", "member", true, None, Standing::Nobody),
    ("viewer", "member", true, Some("VIEW"), Standing::Sees),
    ("user", "member", false, Some("USE"), Standing::Uses),
    ("user-shell", "member", true, Some("USE"), Standing::Uses),
    ("reader", "read_only", true, None, Standing::Sees),
    ("operator", "operator", false, None, Standing::Uses),
    ("operator-shell", "operator", true, None, Standing::Uses),
    ("owner", "member", false, None, Standing::Owns),
    ("chief", "admin", false, None, Standing::Owns),
    ("chief-shell", "admin", true, None, Standing::Owns),
];
/// Who has tokens that are good for all but one thing, and how those are called.
const WEAK: [(&str, [&str; 5]); 3] = [
    (
        "stranger",
        [
            "stranger without read",
            "stranger without control",
            "stranger without unsafe_commands",
            "stranger without telemetry",
            "stranger without admin",
        ],
    ),
    (
        "user-shell",
        [
            "user-shell without read",
            "user-shell without control",
            "user-shell without unsafe_commands",
            "user-shell without telemetry",
            "user-shell without admin",
        ],
    ),
    (
        "chief-shell",
        [
            "chief-shell without read",
            "chief-shell without control",
            "chief-shell without unsafe_commands",
            "chief-shell without telemetry",
            "chief-shell without admin",
        ],
    ),
];

fn token(home: &Home, name: &str, scopes: &[&str]) -> String {
    let mut args = vec!["user", "token", name];
    args.extend(scopes.iter().flat_map(|scope| ["--scope", scope]));
    home.run(&args).trim().to_owned()
}

/// Makes everybody, while nobody serves.
fn people(home: &Home) -> Vec<Caller> {
    let mut callers = Vec::new();
    let mut rights = BTreeMap::new();
    for (name, role, shell, _, standing) in PEOPLE {
        let mut args = vec!["user", "add", name, "--role", role];
        if shell {
            args.extend(["--permission", "unsafe_commands"]);
        }
        home.run(&args);
        let its = Rights {
            standing,
            changes: role != "read_only",
            admin: role == "admin",
            shell,
            scopes: SCOPES.into(),
        };
        rights.insert(name, its.clone());
        callers.push(Caller { name, token: Some(token(home, name, &[])), rights: Some(its) });
    }
    for (name, called) in WEAK {
        for (missing, called) in SCOPES.into_iter().zip(called) {
            let scopes: Vec<_> = SCOPES.into_iter().filter(|scope| *scope != missing).collect();
            let weak = Rights { scopes: scopes.iter().copied().collect(), ..rights[name].clone() };
            callers.push(Caller {
                name: called,
                token: Some(token(home, name, &scopes)),
                rights: Some(weak),
            });
        }
    }
    home.run(&["user", "add", "revoked", "--admin"]);
    let revoked = token(home, "revoked", &[]);
    home.run(&["user", "revoke", "revoked"]);
    callers.push(Caller { name: "nobody", token: None, rights: None });
    callers.push(Caller { name: "anybody", token: Some("0".repeat(64)), rights: None });
    callers.push(Caller { name: "revoked", token: Some(revoked), rights: None });
    callers
}

/// Greets, and tells a reading every now and then; answers commands as they are.
async fn talks(stream: UnixStream, received: Received) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(handshake_line(16).as_bytes()).await?;
    let error = json!({ "type": "error", "timestamp": now(), "error": "disk full", "details": {} });
    writer.write_all(format!("{error}\n").as_bytes()).await?;
    let mut incoming = BufReader::new(reader).lines();
    let mut readings = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            _ = readings.tick() => writer.write_all(metrics_line(5.0).as_bytes()).await?,
            line = incoming.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let message: Value = serde_json::from_str(&line)?;
                received.lock().unwrap().push(message.clone());
                if message["id"].is_string() {
                    writer.write_all(answer_line(&message["id"], "").as_bytes()).await?;
                }
            }
        }
    }
}

struct Stage {
    trial: Trial,
    http: reqwest::Client,
    callers: Vec<Caller>,
    things: Things,
    _guests: [FakeGuest; 2],
}

impl Stage {
    async fn set(db: &TestDatabase) -> Self {
        const SHARE: &str = "mutation($vm: UUID!, $user: UUID!, $share: Share!) \
            { shareVm(vmId: $vm, userId: $user, share: $share) { userId } }";
        const RUN: &str = "mutation($vm: UUID!, $id: UUID!, $command: CommandInput!) \
            { executeVmCommand(vmId: $vm, commandId: $id, command: $command) { status } }";
        // Nobody takes alerts there.
        let webhook = format!("http://{}/", quiet_address().await);
        let env = [
            ("INFINIBAY__ACCOUNTS__ACCESS_TIME", "1s"),
            ("INFINIBAY__ALERTS__WEBHOOK_URL", webhook.as_str()),
            ("INFINIBAY__ALERTS__WEBHOOK_SECRET", SECRET),
        ];
        let mut trial = Trial::start_with(db, &env).await;
        let mut callers = trial.home.between(&mut trial.daemon, people);
        trial.client = trial.daemon.client(&trial.token);
        let admin = trial.client.clone();
        callers.push(Caller { name: "expired", token: Some(expired(&trial).await), rights: None });

        let named = |name: &str| callers.iter().find(|it| it.name == name).unwrap().token.clone().unwrap();
        let owner = trial.daemon.client(&named("owner"));
        let (live, doomed) = (VmId::generate(), VmId::generate());
        let sockets = trial.home.socket_dir();
        let guests = [
            FakeGuest::listen(&sockets, live, talks),
            FakeGuest::listen(&sockets, doomed, |s, r| well_behaved(s, r, 4, Vec::new())),
        ];
        for (id, name) in [(live, "matrix-live"), (doomed, "matrix-doomed")] {
            let mut request = trial.request(name);
            request["id"] = json!(id.to_string());
            owner.create(request).await;
        }
        let (live, doomed) = (live.to_string(), doomed.to_string());
        let users = admin.ask("{ users { nodes { id name } } }", json!({})).await;
        for (name, _, _, share, _) in PEOPLE {
            let Some(share) = share else { continue };
            let user = users["users"]["nodes"].as_array().unwrap().iter().find(|it| it["name"] == name);
            for vm in [&live, &doomed] {
                let part = json!({ "vm": vm, "user": user.unwrap()["id"], "share": share });
                owner.ask(SHARE, part).await;
            }
        }
        let operation = owner.change("deleteVm", &doomed).await;
        owner.phase_is(&doomed, "DELETING", SOON).await;
        owner.agent_is(&live, "ONLINE", SOON).await;
        let (safe, line) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        for (id, command) in [
            (&safe, json!({ "safe": { "action": "OS_INFO" } })),
            (&line, json!({ "unsafe": { "rawCommand": "true" } })),
        ] {
            admin.ask(RUN, json!({ "vm": live, "id": id, "command": command })).await;
        }
        let host = admin.ask("{ host { id } }", json!({})).await["host"]["id"].take();
        let store = db.store().await;
        sample::medium(&store, HostId(host.as_str().unwrap().parse().unwrap()), DISC).await;
        store.close().await;
        let things = Things { live, safe, line, doomed, operation };
        Self { trial, http: reqwest::Client::new(), callers, things, _guests: guests }
    }

    /// One request; its answer.
    async fn ask(&self, caller: &Caller, query: &str, variables: &Value) -> Value {
        let request = self.http.post(format!("{}/graphql", self.trial.daemon.url));
        let request = match &caller.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let sent = request.json(&json!({ "query": query, "variables": variables })).send();
        sent.await.unwrap().json().await.unwrap()
    }
}

/// An access token that was good once.
async fn expired(trial: &Trial) -> String {
    const USER: &str = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
    let email = "late@example.org";
    let input = json!({ "name": "late", "email": email, "password": PASSWORD, "role": "ADMIN" });
    trial.client.ask(USER, json!({ "input": input })).await;
    let url = format!("{}/auth/login", trial.daemon.url);
    let login = json!({ "email": email, "password": PASSWORD });
    let session: Value =
        reqwest::Client::new().post(url).json(&login).send().await.unwrap().json().await.unwrap();
    let token = session["accessToken"].as_str().unwrap().to_owned();
    let client = trial.daemon.client(&token);
    let deadline = Instant::now() + SOON;
    while client.send("{ me { id } }", json!({})).await.get("errors").is_none() {
        assert!(Instant::now() < deadline, "the access token never expires");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    token
}

/// The error of an answer: of the request, or of the first VM that it was asked of.
fn refusal<'a>(field: &str, answer: &'a Value) -> Option<(&'a str, &'a str)> {
    let error = &answer["errors"][0];
    if error.is_object() {
        return Some((error["extensions"]["code"].as_str()?, error["message"].as_str()?));
    }
    let error = &answer["data"][field][0]["error"];
    Some((error["code"].as_str()?, error["message"].as_str()?))
}

/// Whether an answer says what it should, as far as rights go.
fn fits(row: &Row, outcome: Outcome, answer: &Value) -> bool {
    /// What nobody is told who is let through.
    const RIGHTS: [&str; 7] = [
        "FORBIDDEN",
        "UNAUTHENTICATED",
        "VM_NOT_FOUND",
        "OPERATION_NOT_FOUND",
        "INVALID_QUERY",
        "INTERNAL",
        "STORE_UNAVAILABLE",
    ];
    let told = refusal(row.field, answer);
    let code = told.map(|(code, _)| code);
    match outcome {
        Outcome::May => match told {
            // Where that is how nothing is told, something has to be there.
            None => row.class != Class::Sees(Absent::Null) || !answer["data"][row.field].is_null(),
            Some((code, message)) => {
                !RIGHTS.contains(&code) || row.besides.is_some_and(|besides| message.contains(besides))
            }
        },
        Outcome::Forbidden => {
            let besides = row.besides.is_some_and(|besides| told.is_some_and(|(_, it)| it.contains(besides)));
            code == Some("FORBIDDEN") && !besides
        }
        Outcome::Absent(Absent::Code(wanted)) => code == Some(wanted),
        Outcome::Absent(Absent::Null) => told.is_none() && answer["data"][row.field].is_null(),
        Outcome::Unauthenticated => code == Some("UNAUTHENTICATED") && answer["data"].is_null(),
    }
}

/// What is wrong about how a row is answered to somebody.
async fn asked(stage: &Stage, row: &Row, field: &Field, caller: &Caller) -> Vec<String> {
    let query = text(row.root, row.field, field, row.selection, &row.variables);
    let answer = stage.ask(caller, &query, &row.variables).await;
    let mut wrong = Vec::new();
    let mut judge = |what: &str, outcome: Outcome, answer: &Value| {
        if !fits(row, outcome, answer) {
            wrong.push(format!("{} of {what} by {}: not {outcome:?}: {answer:.300}", row.field, caller.name));
        }
    };
    judge("what is there", caller.outcome(row.class), &answer);
    if !caller.sees() && answer.to_string().contains("matrix-") {
        wrong.push(format!("{} tells {} of a VM: {answer:.300}", row.field, caller.name));
    }
    let nothing = Uuid::new_v4().to_string();
    let Some(variables) = row.of_nothing(&nothing) else { return wrong };
    let of_nothing = stage.ask(caller, &query, &variables).await;
    if !fits(row, caller.outcome_of_nothing(row.class), &of_nothing) {
        wrong.push(format!("{} of nothing by {}: {of_nothing:.300}", row.field, caller.name));
    }
    if !caller.sees() {
        let plain = |answer: &Value, id: &str| unnumbered(answer.clone()).to_string().replace(id, "ID");
        let (there, not) = (plain(&answer, row.subject().unwrap()), plain(&of_nothing, &nothing));
        if there != not {
            wrong.push(format!("{}: {} tells a VM from none: {there} {not}", row.field, caller.name));
        }
    }
    wrong
}

/// The first word on each of these subscriptions, as the answer of a request; readings and events come
/// all the time.
async fn first_words(daemon: &Daemon, caller: &Caller, asked: &[(String, Value)]) -> Vec<Value> {
    let mut socket = Socket::introduced(daemon, caller.token.as_ref().unwrap()).await;
    for (n, (query, variables)) in asked.iter().enumerate() {
        socket.begin(&n.to_string(), query, variables.clone()).await;
    }
    let mut words: BTreeMap<usize, Value> = BTreeMap::new();
    while words.len() < asked.len() {
        let message = socket.message().await;
        let answer = match message["type"].as_str().unwrap() {
            "next" => message["payload"].clone(),
            "error" => json!({ "errors": message["payload"] }),
            _ => continue,
        };
        words.entry(message["id"].as_str().unwrap().parse().unwrap()).or_insert(answer);
    }
    words.into_values().collect()
}

/// What is wrong about how the subscriptions are answered to somebody.
async fn listened(stage: &Stage, rows: &[&Row], fields: &Fields, caller: &Caller) -> Vec<String> {
    let daemon = &stage.trial.daemon;
    if caller.rights.is_none() {
        let mut socket = Socket::open(daemon, "/graphql/ws", &[]).await.expect("a WebSocket");
        let payload = match &caller.token {
            Some(token) => json!({ "authorization": format!("Bearer {token}") }),
            None => json!({}),
        };
        return match socket.introduce(payload).await {
            Said::Closed(4403) => Vec::new(),
            other => vec![format!("{} is told {other:?} on a WebSocket", caller.name)],
        };
    }
    let nothing = Uuid::new_v4().to_string();
    let (mut asked, mut expected) = (Vec::new(), Vec::new());
    for row in rows {
        let query = text(row.root, row.field, &fields[&key(row)], row.selection, &row.variables);
        asked.push((query.clone(), row.variables.clone()));
        expected.push((*row, "what is there", row.subject().unwrap(), caller.outcome(row.class)));
        asked.push((query, row.of_nothing(&nothing).unwrap()));
        expected.push((*row, "nothing", nothing.as_str(), caller.outcome_of_nothing(row.class)));
    }
    let words = first_words(daemon, caller, &asked).await;
    let mut wrong = Vec::new();
    let mut plain = Vec::new();
    for ((row, what, id, outcome), answer) in expected.into_iter().zip(&words) {
        if !fits(row, outcome, answer) {
            let (field, name) = (row.field, caller.name);
            wrong.push(format!("{field} of {what} by {name}: not {outcome:?}: {answer:.300}"));
        }
        plain.push(unnumbered(answer.clone()).to_string().replace(id, "ID"));
    }
    if !caller.sees() {
        let told = plain.chunks(2).filter(|pair| pair[0] != pair[1]);
        wrong.extend(told.map(|pair| format!("{} tells a VM from none: {pair:?}", caller.name)));
    }
    wrong
}

/// What is wrong about the fields for admins in an answer to somebody.
async fn told_nested(stage: &Stage, question: &Question, caller: &Caller) -> Vec<String> {
    let answer = stage.ask(caller, question.query, &json!({})).await;
    let may = caller.outcome(question.class) == Outcome::May;
    let rights = caller.rights.as_ref();
    let admin = rights.is_some_and(|rights| rights.admin && rights.scopes.contains("admin"));
    let object = answer["data"].pointer(question.object);
    // What is there of the VM, those see who see the VM.
    let of_the_vm = question.object.starts_with("/alerts");
    let Some(object) = object.filter(|object| !object.is_null()) else {
        let nothing = !may || of_the_vm && !caller.sees();
        return if nothing {
            Vec::new()
        } else {
            vec![format!("{} is told nothing: {answer:.300}", caller.name)]
        };
    };
    if !may || of_the_vm && !caller.sees() {
        return vec![format!("{} is told of {}: {answer:.300}", caller.name, question.object)];
    }
    let wrong =
        question.restricted.iter().filter(|(_, _, at)| object.pointer(at).unwrap().is_null() == admin);
    wrong.map(|(ty, field, _)| format!("{ty}.{field} by {}: {answer:.300}", caller.name)).collect()
}

/// Until there is everything that the questions ask about.
async fn everything_is_there(stage: &Stage) {
    let deadline = Instant::now() + SOON;
    for question in &QUESTIONS {
        loop {
            let answer = stage.trial.client.ask(question.query, json!({})).await;
            let there = |at: &str| {
                let value = answer.pointer(question.object).and_then(|object| object.pointer(at));
                value.is_some_and(|value| !value.is_null())
            };
            if question.restricted.iter().all(|(_, _, at)| there(at)) {
                break;
            }
            assert!(Instant::now() < deadline, "{}: {answer}", question.query);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

type Fields = BTreeMap<(Root, String), Field>;

fn key(row: &Row) -> (Root, String) {
    (row.root, row.field.to_owned())
}

/// Arguments that name a VM, whatever they are called.
const OF_A_VM: [&str; 2] = ["vmId", "vmIds"];

#[test]
fn every_field_of_the_schema_is_classified() {
    let nobody = || Uuid::new_v4().to_string();
    let things =
        Things { live: nobody(), safe: nobody(), line: nobody(), doomed: nobody(), operation: nobody() };
    let (fields, rows) = (fields(), rows(&things));
    let classified: BTreeSet<_> = rows.iter().map(key).collect();
    let missing: Vec<_> = fields.keys().filter(|field| !classified.contains(*field)).collect();
    assert!(missing.is_empty(), "no row in tests/story_matrix/rows.rs for: {missing:?}");
    for row in &rows {
        let field =
            fields.get(&key(row)).unwrap_or_else(|| panic!("there is no {:?}.{}", row.root, row.field));
        for name in row.variables.as_object().unwrap().keys() {
            assert!(field.arguments.contains_key(name), "{} has no argument {name}", row.field);
        }
        let of = OF_A_VM.into_iter().find(|name| field.arguments.contains_key(*name));
        assert!(of.is_none() || row.of == of, "{} does not say that it is about a VM", row.field);
        let class_is_of_one = !matches!(
            row.class,
            Class::AnyAccount
                | Class::Reads
                | Class::OwnAccount
                | Class::Admins
                | Class::AdminsWithAll
                | Class::Makes
        );
        assert_eq!(row.of.is_some(), class_is_of_one, "{}: {:?}", row.field, row.class);
    }
}

#[test]
fn every_field_of_every_object_is_classified() {
    let objects = objects();
    let known: BTreeMap<_, _> = TYPES.iter().map(|told| (told.name, told)).collect();
    assert_eq!(known.len(), TYPES.len(), "a type is in tests/story_matrix/nested.rs twice");
    for (name, fields) in &objects {
        let told = known
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in tests/story_matrix/nested.rs"));
        let classified: BTreeSet<_> = told.fields().collect();
        assert_eq!(classified.len(), told.fields().count(), "a field of {name} is there twice");
        let there: BTreeSet<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(
            classified, there,
            "the fields of {name} in tests/story_matrix/nested.rs, and those it has"
        );
    }
    let gone: Vec<_> = known.keys().filter(|name| !objects.contains_key(**name)).collect();
    assert!(gone.is_empty(), "there is no {gone:?}");
    // Whatever is for admins is asked for by everybody.
    for told in &TYPES {
        for field in told.for_admins() {
            let asked = QUESTIONS.iter().flat_map(|question| question.restricted);
            let asks = asked.into_iter().any(|(ty, name, _)| (*ty, *name) == (told.name, field));
            assert!(asks, "nobody asks for {}.{field}", told.name);
        }
    }
}

#[test]
fn no_way_leads_to_what_is_not_for_those_who_may_go_it() {
    let nobody = || Uuid::new_v4().to_string();
    let things =
        Things { live: nobody(), safe: nobody(), line: nobody(), doomed: nobody(), operation: nobody() };
    let mut found = BTreeSet::new();
    for row in rows(&things) {
        for name in reached(row.root, row.field) {
            let told = TYPES.iter().find(|told| told.name == name).unwrap();
            let (field, whose, class) = (row.field, told.whose, row.class);
            assert!(whose.is_for(class), "{field}, {class:?}, leads to {name}, {whose:?}");
            found.insert(name);
        }
    }
    assert_eq!(found.len(), TYPES.len(), "no way leads to some types");
}

on_both! {
    async fn everybody_may_what_he_may_and_nothing_else(db: TestDatabase) {
        let stage = Stage::set(&db).await;
        let (fields, rows) = (fields(), rows(&stage.things));
        let mut wrong = Vec::new();
        let of_http = rows.iter().filter(|row| row.root != Root::Subscription);
        for row in of_http {
            let field = &fields[&key(row)];
            let answers = stage.callers.iter().map(|caller| asked(&stage, row, field, caller));
            wrong.extend(join_all(answers).await.into_iter().flatten());
        }
        let subscriptions: Vec<_> = rows.iter().filter(|row| row.root == Root::Subscription).collect();
        let answers = stage.callers.iter().map(|caller| listened(&stage, &subscriptions, &fields, caller));
        wrong.extend(join_all(answers).await.into_iter().flatten());
        everything_is_there(&stage).await;
        for question in &QUESTIONS {
            let answers = stage.callers.iter().map(|caller| told_nested(&stage, question, caller));
            wrong.extend(join_all(answers).await.into_iter().flatten());
        }
        assert!(wrong.is_empty(), "{} are answered wrongly:\n{}", wrong.len(), wrong.join("\n"));
        // Nothing came of all that.
        let users = db.number("SELECT count(*) FROM users").await;
        assert_eq!(users, i64::try_from(PEOPLE.len()).unwrap() + 3, "somebody was made or removed");
        assert_eq!(db.number("SELECT count(*) FROM vms").await, 2);
        assert_eq!(db.number("SELECT count(*) FROM media").await, 1);
        stage.trial.daemon.stop();
    }
}
