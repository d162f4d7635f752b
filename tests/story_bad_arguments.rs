//! Every mutation with each of its arguments missing, null, of another kind, negative, huge, hostile,
//! naming what is not there or what is somebody else's: refused with a stable code, and nothing of it is
//! left but a row of the audit log, as of what is done. The arguments are read from schema.graphql: one that
//! nobody thought of here fails by its name.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod story_bad_arguments {
    pub mod cases;
    pub mod rows;
    pub mod schema;
}
#[macro_use]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use story_bad_arguments::{
    cases::{Means, cases, fits, with},
    rows::{Ends, Request, Things, requests},
    schema::{Mutation, mutations},
};
use support::{
    daemon::{Client, unnumbered},
    database::TestDatabase,
    discs::{disc, windows},
    guest::{FakeGuest, well_behaved},
    origin::{ALLOWED, Manner, Origin},
    trial::{Blank, Trial, image},
};

const SOON: Duration = Duration::from_secs(60);
/// The domain that libvirt's test driver begins with.
const DOMAIN: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// The codes that docs/API.md promises.
fn promised() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/API.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, errors) = text.split_once("\n## Errors\n").expect("docs/API.md has a chapter on errors");
    let cells = errors.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells
        .flat_map(|cell| cell.split('`'))
        .filter(|word| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_argument_of_every_mutation_has_its_row() {
    let nobody = || uuid::Uuid::new_v4().to_string();
    let things = Things {
        on: nobody(),
        command: nobody(),
        off: nobody(),
        mac: String::new(),
        domain: nobody(),
        me: nobody(),
        user: nobody(),
        token: nobody(),
        file: String::new(),
        url: String::new(),
    };
    let (mutations, requests) = (mutations(), requests(&things));
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for (name, mutation) in &mutations {
        let rows = || requests.iter().filter(|it| it.mutation == name).flat_map(|it| &it.rows);
        if rows().next().is_none() {
            missing.push(format!("mutation {name}"));
        }
        for argument in &mutation.arguments {
            match rows().find(|row| row.path == argument.path) {
                None => missing.push(format!("{name}({})", argument.path)),
                Some(row) if fits(row.means, argument.kind) => {}
                Some(_) => wrong.push(format!("{name}({}) is a {:?}", argument.path, argument.kind)),
            }
        }
    }
    for request in &requests {
        for row in &request.rows {
            let known = mutations
                .get(request.mutation)
                .is_some_and(|mutation| mutation.arguments.iter().any(|argument| argument.path == row.path));
            if !known {
                wrong.push(format!("there is no {}({})", request.mutation, row.path));
            }
        }
    }
    assert!(missing.is_empty(), "no row in tests/story_bad_arguments/rows.rs for: {missing:#?}");
    assert!(wrong.is_empty(), "rows about something else: {wrong:#?}");
}

/// The text of a request that gives what is in the variables, and nothing else.
fn query(name: &str, mutation: &Mutation, variables: &Value) -> String {
    let given = variables.as_object().unwrap().keys();
    let (mut heads, mut arguments) = (Vec::new(), Vec::new());
    for argument in given {
        heads.push(format!("${argument}: {}", mutation.types[argument]));
        arguments.push(format!("{argument}: ${argument}"));
    }
    let list = |list: Vec<String>| match list.is_empty() {
        true => String::new(),
        false => format!("({})", list.join(", ")),
    };
    format!("mutation{} {{ {name}{} {{ {} }} }}", list(heads), list(arguments), mutation.selection)
}

/// The error of an answer: of the request, or of the first VM that it was asked of.
fn refusal<'a>(name: &str, answer: &'a Value) -> Option<(&'a str, &'a str, Option<&'a str>)> {
    let error = &answer["errors"][0];
    if error.is_object() {
        let told = &error["extensions"];
        return Some((told["code"].as_str()?, error["message"].as_str()?, told["field"].as_str()));
    }
    let error = &answer["data"][name][0]["error"];
    Some((error["code"].as_str()?, error["message"].as_str()?, None))
}

/// A request without its long texts.
fn shown(variables: &Value) -> String {
    variables.to_string().chars().take(300).collect()
}

/// What is wrong about a refusal, if something is.
fn judged(
    (name, variables): (&str, &Value),
    answer: &Value,
    (code, field): (&str, Option<&str>),
    promised: &BTreeSet<String>,
) -> Option<String> {
    let wrong = |what: String| Some(format!("{name} {}: {what}: {answer:.400}", shown(variables)));
    let Some((told, message, of)) = refusal(name, answer) else {
        return wrong(format!("not refused with {code}"));
    };
    if told != code {
        return wrong(format!("{told} and not {code}"));
    }
    if !promised.contains(told) {
        return wrong(format!("docs/API.md does not list {told}"));
    }
    if field.is_some_and(|field| of != Some(field)) {
        return wrong(format!("{of:?} is blamed and not {field:?}"));
    }
    if message.is_empty() || message.chars().any(|c| c.is_control() && c != '\n') {
        return wrong("no message for people".to_owned());
    }
    let length = answer.to_string().len();
    if length > 2_000 {
        return wrong(format!("an answer of {length} bytes"));
    }
    None
}

struct Stage {
    trial: Trial,
    eve: Client,
    things: Things,
    /// A VM of the stranger's own.
    hers: String,
    guest: FakeGuest,
    inbox: tempfile::TempDir,
    _origin: Origin,
}

/// Waits until a change that was asked for has ended well.
async fn done(client: &Client, mutation: &str, variables: Value) {
    let mutations = mutations();
    let text = query(mutation, &mutations[mutation], &variables);
    client.done(&text, variables).await;
}

async fn becomes(client: &Client, name: &str, state: &str) {
    let deadline = Instant::now() + SOON;
    let look = "query($name: String!) { medium(name: $name) { state error { message } } }";
    loop {
        let now = client.ask(look, json!({ "name": name })).await["medium"].take();
        if now["state"] == state {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not {state}: {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the image was read for the first time: before that, nothing else is said of requests.
async fn read(client: &Client, trial: &Trial) {
    const CREATE: &str = "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } } }";
    let mut request = trial.request("never");
    request["image"] = json!("cloudy");
    request["unattended"] = json!({ "user": "root" });
    let deadline = Instant::now() + SOON;
    while client.refused(CREATE, json!({ "input": request })).await == "IMAGE_BEING_CHECKED" {
        assert!(Instant::now() < deadline, "the image is still being read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Stage {
    async fn set(db: &TestDatabase) -> Self {
        const IMPORT: &str = "mutation($input: ImportMediumInput!) { importMedium(input: $input) { name } }";
        let inbox = tempfile::tempdir().unwrap();
        let mut trial = Trial::start_with(
            db,
            &[
                ("INFINIBAY__API__MAX_BODY_BYTES", "8388608"),
                ("INFINIBAY__MEDIA__IMPORT_DIRS", inbox.path().to_str().unwrap()),
                ("INFINIBAY__MEDIA__ALLOW_ADDRESSES", ALLOWED),
                ("INFINIBAY__MEDIA__RESERVE_BYTES", "0"),
                // One after the other as fast as they are answered, for longer than anybody would.
                ("INFINIBAY__HTTP__REQUEST_BURST", "100000"),
            ],
        )
        .await;
        image(
            &trial.library.path().join("cloudy"),
            &Blank { provisioning: "cloud-init", ..Blank::default() },
        );
        let eve = trial.home.between(&mut trial.daemon, |home| {
            home.run(&["user", "add", "dora"]);
            home.user("eve", &[])
        });
        let eve = trial.daemon.client(&eve);
        trial.client = trial.daemon.client(&trial.token);
        let client = trial.client.clone();

        let kernel: [(&str, &[u8]); 2] =
            [("install.amd/vmlinuz", b"kernel"), ("install.amd/initrd.gz", b"initrd")];
        let loader: [(&str, &[u8]); 2] =
            [("sources/boot.wim", b"MSWIM"), ("sources/install.wim", &windows("19045"))];
        for (name, bytes) in [
            ("disc", disc("Debian_13_amd64", &kernel)),
            ("spare", disc("SPARE", &kernel)),
            ("win10", disc("CCCOMA_X64FRE", &loader)),
        ] {
            let path = inbox.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let input = json!({ "name": name, "kind": "INSTALLATION", "path": path });
            client.ask(IMPORT, json!({ "input": input })).await;
            becomes(&client, name, "READY").await;
        }
        let file = inbox.path().join("file");
        std::fs::write(&file, "no image").unwrap();
        let origin = Origin::new().await;
        let waiting =
            json!({ "name": "waiting", "kind": "INSTALLATION", "url": origin.on("/waiting", Manner::Drips) });
        client.ask(IMPORT, json!({ "input": waiting })).await;
        becomes(&client, "waiting", "DOWNLOADING").await;

        let on = VmId::generate();
        let guest = FakeGuest::listen(&trial.home.socket_dir(), on, |s, r| well_behaved(s, r, 4, Vec::new()));
        let mut request = trial.request("on");
        request["id"] = json!(on.to_string());
        let (on, _) = client.create(request).await;
        client.agent_is(&on, "ONLINE", SOON).await;
        let command = uuid::Uuid::now_v7().to_string();
        let run = "mutation($vm: UUID!, $id: UUID!) {
            executeVmCommand(vmId: $vm, commandId: $id, command: { safe: { action: OS_INFO } }) { success } }";
        client.ask(run, json!({ "vm": on, "id": command })).await;

        // Only what was ready once can be copied.
        let off = VmId::generate();
        let heard =
            FakeGuest::listen(&trial.home.socket_dir(), off, |s, r| well_behaved(s, r, 4, Vec::new()));
        let mut request = trial.request("off");
        request["id"] = json!(off.to_string());
        let (off, create) = client.create(request).await;
        client.succeeded(&create, SOON).await;
        drop(heard);
        done(&client, "stopVm", json!({ "id": off, "force": true })).await;
        client.phase_is(&off, "STOPPED", SOON).await;
        done(&client, "attachVmDisk", json!({ "id": off, "bytes": "2097152" })).await;
        done(&client, "insertVmMedium", json!({ "id": off, "medium": "disc" })).await;
        done(&client, "attachVmInterface", json!({ "id": off, "network": "default" })).await;
        done(&client, "createVmSnapshot", json!({ "id": off, "name": "there" })).await;
        let look =
            "query($id: UUID!) { me { id } vm(id: $id) { macAddresses media { target } disks { target } } }";
        let made = client.ask(look, json!({ "id": off })).await;
        let (media, disk) = (&made["vm"]["media"], &made["vm"]["disks"][1]["target"]);
        assert_eq!((media, disk), (&json!([{ "target": "sda" }]), &json!("vdb")), "the table names them so");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let users = client.ask("{ users { nodes { id name } } }", json!({})).await;
        let dora = users["users"]["nodes"].as_array().unwrap().iter().find(|user| user["name"] == "dora");
        let user = text(&dora.unwrap()["id"]);
        let issue = "mutation { createApiToken(label: \"unused\", scopes: [READ]) { info { id } } }";
        let token = text(&client.ask(issue, json!({})).await["createApiToken"]["info"]["id"]);
        let things = Things {
            on,
            command,
            off,
            mac: text(&made["vm"]["macAddresses"][0]),
            domain: DOMAIN.to_owned(),
            me: text(&made["me"]["id"]),
            user,
            token,
            file: file.to_str().unwrap().to_owned(),
            url: origin.on("/endless", Manner::Drips),
        };

        let (hers, _) = eve.create(trial.request("hers")).await;
        eve.phase_is(&hers, "INSTALLING", SOON).await;
        read(&client, &trial).await;
        Self { trial, eve, things, hers, guest, inbox, _origin: origin }
    }

    /// Everything that a request could leave something in.
    async fn world(&self, db: &TestDatabase) -> Value {
        const SEEN: &str = "query($off: UUID!) {
            vms(first: 10) { nodes { id name phase power autostart ownerId vcpus memoryMib diskBytes
                policy { onPowerOff onCrash } disks { target bytes pool } media { target volume }
                interfaces { mac network bridge } } }
            unmanagedDomains(first: 10) { nodes { uuid name state memoryMib vcpus hasAgentChannel } }
            media(first: 10) { nodes { name state } } images(first: 10) { nodes { name } }
            vmSnapshots(vmId: $off) { name description state current } }";
        let mut world = self.trial.client.ask(SEEN, json!({ "off": self.things.off })).await;
        for (table, count) in [
            ("vms", "SELECT count(*) FROM vms"),
            ("operations", "SELECT count(*) FROM operations"),
            ("resources", "SELECT count(*) FROM resources"),
            ("media rows", "SELECT count(*) FROM media"),
            ("commands", "SELECT count(*) FROM command_log"),
            ("audit", "SELECT count(*) FROM audit_log WHERE outcome = 'done'"),
            ("users", "SELECT count(*) FROM users"),
            ("tokens", "SELECT count(*) FROM tokens"),
            ("shares", "SELECT count(*) FROM vm_shares"),
        ] {
            world[table] = json!(db.number(count).await);
        }
        world["sent"] =
            json!(["SafeCommand", "UnsafeCommand"].map(|kind| self.guest.received_of(kind).len()));
        let home = &self.trial.home;
        let mut files = BTreeMap::new();
        for dir in
            [home.state_dir(), home.socket_dir(), self.trial.library.path().into(), self.inbox.path().into()]
        {
            below(&dir, &mut files);
        }
        world["files"] = json!(files.keys().collect::<Vec<_>>());
        world
    }
}

fn below(dir: &Path, files: &mut BTreeMap<PathBuf, ()>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            below(&entry.path(), files);
        }
        files.insert(entry.path(), ());
    }
}

/// Sends the request as a stranger: of somebody's VM, of one that is not there, and of one of his own
/// that has none of what he names. What is wrong about the answers.
async fn as_a_stranger(
    stage: &Stage,
    request: &Request,
    mutation: &Mutation,
    promised: &BTreeSet<String>,
) -> Vec<String> {
    let name = request.mutation;
    let mut wrong = Vec::new();
    let ask =
        async |variables: &Value| stage.eve.send(&query(name, mutation, variables), variables.clone()).await;
    let vm = request.rows.iter().find(|row| matches!(row.means, Means::Vm));
    let listed = |path: &str, id: &str| match mutation.arguments.iter().any(|it| it.path == path && it.list) {
        true => json!([id]),
        false => json!(id),
    };
    let nobody = uuid::Uuid::new_v4().to_string();
    if let Some(vm) = vm {
        let mut answers = Vec::new();
        for id in [&stage.things.on, &nobody] {
            let variables = with(&request.variables, vm.path, listed(vm.path, id));
            let answer = ask(&variables).await;
            wrong.extend(judged((name, &variables), &answer, ("VM_NOT_FOUND", None), promised));
            answers.push(unnumbered(answer).to_string().replace(id.as_str(), "ID"));
        }
        if answers[0] != answers[1] {
            wrong.push(format!("{name}: a stranger can tell a VM from none: {answers:?}"));
        }
    }
    if request.for_admins {
        let variables = &request.variables;
        wrong.extend(judged((name, variables), &ask(variables).await, ("FORBIDDEN", None), promised));
    }
    for row in &request.rows {
        if request.for_admins && !matches!(row.means, Means::Group | Means::Choice) {
            let absent = match row.means {
                Means::Other(_) => json!(nobody),
                _ => json!("no-such"),
            };
            let variables = with(&request.variables, row.path, absent);
            wrong.extend(judged((name, &variables), &ask(&variables).await, ("FORBIDDEN", None), promised));
        }
        for (value, code) in &row.strangers {
            let mut variables = with(&request.variables, row.path, value.clone());
            // The VM's row stands with the mutation's first request.
            for path in ["id", "vmId"] {
                if variables.get(path).is_some() {
                    variables[path] = json!(stage.hers);
                }
            }
            wrong.extend(judged((name, &variables), &ask(&variables).await, (code, None), promised));
        }
    }
    wrong
}

/// What the audit log says of the request with this number.
async fn written(client: &Client, number: &str) -> Vec<Value> {
    const LOG: &str = "{ auditLog(first: 20) { nodes { action userId vmId outcome address requestId } } }";
    let mut log = client.ask(LOG, json!({})).await;
    let rows = log["auditLog"]["nodes"].as_array_mut().unwrap();
    rows.drain(..).filter(|row| row["requestId"] == number).collect()
}

/// What is done without a row: of a command that has ended there is nothing left to cancel.
const NOTHING_DONE: &str = "cancelVmCommand";

/// Sends a request that nothing is wrong about, once what was asked before has been carried out. Whatever
/// becomes of it is in the audit log.
async fn as_it_should_be(stage: &Stage, request: &Request, mutation: &Mutation) {
    let (name, client) = (request.mutation, &stage.trial.client);
    let text = query(name, mutation, &request.variables);
    let deadline = Instant::now() + SOON;
    let (http, url) = (reqwest::Client::new(), format!("{}/graphql", stage.trial.daemon.url));
    let body = json!({ "query": text, "variables": request.variables });
    let (number, answer) = loop {
        let number = uuid::Uuid::new_v4().to_string();
        let sent =
            http.post(&url).bearer_auth(&stage.trial.token).header("x-request-id", &number).json(&body);
        let answer: Value = sent.send().await.unwrap().json().await.unwrap();
        let code = refusal(name, &answer).map(|(code, ..)| code);
        if !matches!(code, Some("WRONG_STATE" | "VM_BUSY")) || Instant::now() > deadline {
            break (number, answer);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let rows = written(client, &number).await;
    let outcome = if request.ends == Ends::Accepted { "DONE" } else { "REFUSED" };
    if name != NOTHING_DONE {
        let (me, here) = (&stage.things.me, "127.0.0.1");
        let said = |row: &Value| row["outcome"] == outcome && row["userId"] == **me && row["address"] == here;
        assert!(!rows.is_empty() && rows.iter().all(said), "{name} is in the audit log as {rows:?}");
        let vm = request.rows.iter().find(|row| matches!(row.means, Means::Vm));
        let vm = vm.map(|row| &request.variables[row.path]).map(|vm| vm.get(0).unwrap_or(vm));
        let of_it = vm.is_none_or(|vm| rows.iter().any(|row| row["vmId"] == *vm));
        assert!(of_it, "{name} of {vm:?} is in the audit log as {rows:?}");
    }
    let code = refusal(name, &answer).map(|(code, ..)| code);
    match request.ends {
        Ends::Accepted => assert_eq!(code, None, "{name} {} is a good request: {answer}", request.variables),
        Ends::Refused(wanted) => assert_eq!(code, Some(wanted), "{name} {}: {answer}", request.variables),
    }
}

/// Asked of a VM that is being deleted, these make sense.
const LAST: [&str; 5] = ["deleteVm", "resync", "cancelVmCommand", "shareVm", "unshareVm"];

on_both! {
    async fn a_vm_that_is_being_deleted_takes_nothing_else(db: TestDatabase) {
        let stage = Stage::set(&db).await;
        let (client, mutations, promised) = (&stage.trial.client, mutations(), promised());
        let off = &stage.things.off;
        // As long as somebody listens on its socket, its deletion cannot end.
        let id = VmId(off.parse().unwrap());
        let listens = FakeGuest::listen(&stage.trial.home.socket_dir(), id, |s, r| well_behaved(s, r, 4, Vec::new()));
        let delete = client.change("deleteVm", off).await;
        client.phase_is(off, "DELETING", SOON).await;
        let operations = db.number("SELECT count(*) FROM operations").await;
        let (mut wrong, mut asked) = (Vec::new(), BTreeSet::new());
        for request in requests(&stage.things) {
            let (name, mutation) = (request.mutation, &mutations[request.mutation]);
            let Some(vm) = request.rows.iter().find(|row| matches!(row.means, Means::Vm)) else { continue };
            if LAST.contains(&name) {
                continue;
            }
            let listed = mutation.arguments.iter().any(|argument| argument.path == vm.path && argument.list);
            let of = if listed { json!([off]) } else { json!(off) };
            let variables = with(&request.variables, vm.path, of);
            let answer = client.send(&query(name, mutation, &variables), variables.clone()).await;
            wrong.extend(judged((name, &variables), &answer, ("VM_DELETING", None), &promised));
            asked.insert(name);
        }
        assert!(wrong.is_empty(), "{} are answered wrongly:\n{}", wrong.len(), wrong.join("\n"));
        assert!(asked.len() > 20, "{asked:?}");
        assert_eq!(db.number("SELECT count(*) FROM operations").await, operations);
        // To ask for its end once more is to ask for the same.
        assert_eq!(client.change("deleteVm", off).await, delete);
        client.ask("mutation($id: UUID!) { resync(id: $id) { phase } }", json!({ "id": off })).await;
        drop(listens);
        client.succeeded(&delete, SOON).await;
        stage.trial.daemon.stop();
    }

    async fn what_is_wrong_about_an_argument_is_told_and_changes_nothing(db: TestDatabase) {
        let stage = Stage::set(&db).await;
        let (client, mutations, promised) = (&stage.trial.client, mutations(), promised());
        let nobody = uuid::Uuid::new_v4().to_string();
        let requests = requests(&stage.things);
        let before = stage.world(&db).await;
        let (mut wrong, mut count) = (Vec::new(), 0);
        for request in &requests {
            let (name, mutation) = (request.mutation, &mutations[request.mutation]);
            for row in &request.rows {
                let argument = mutation.arguments.iter().find(|argument| argument.path == row.path).unwrap();
                for case in cases(argument, row, &request.variables, &nobody) {
                    let answer = client.send(&query(name, mutation, &case.variables), case.variables.clone()).await;
                    let expected = (case.code, case.field.as_deref());
                    wrong.extend(judged((name, &case.variables), &answer, expected, &promised));
                    count += 1;
                }
            }
            wrong.extend(as_a_stranger(&stage, request, mutation, &promised).await);
        }
        println!("{count} requests were refused");
        assert!(wrong.is_empty(), "{} are answered wrongly:\n{}", wrong.len(), wrong.join("\n"));
        for name in mutations.keys() {
            const LOG: &str = "query($action: String!) { auditLog(first: 1, filter: { action: $action, outcome: REFUSED }) { nodes { id } } }";
            let found = client.ask(LOG, json!({ "action": name })).await;
            assert_eq!(found["auditLog"]["nodes"].as_array().unwrap().len(), 1, "no refusal of {name} is in the audit log");
        }
        let after = stage.world(&db).await;
        for (what, then) in before.as_object().unwrap() {
            assert_eq!(&after[what], then, "{what} changed");
        }
        // What was spoilt each time is a request that is accepted.
        for request in &requests {
            as_it_should_be(&stage, request, &mutations[request.mutation]).await;
        }
        stage.trial.daemon.stop();
    }
}
