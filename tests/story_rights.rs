//! Who may do what: every role and every part in a VM against every kind of request, over HTTP; that
//! rights which change hold at once; and that what was asked, done and refused is written down.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{daemon::Client, trial::Trial};
use uuid::Uuid;

const USER: &str = "mutation($input: CreateUserInput!) { createUser(input: $input) { id role permissions } }";
const UPDATE: &str =
    "mutation($id: UUID!, $input: UpdateUserInput!) { updateUser(id: $id, input: $input) { id disabled } }";
const DELETE_USER: &str = "mutation($id: UUID!) { deleteUser(id: $id) { id } }";
const TOKEN: &str = "mutation($scopes: [Scope!]!, $days: Int) \
    { createApiToken(label: \"test\", scopes: $scopes, days: $days) { token info { id scopes } } }";
const SHARE: &str = "mutation($vm: UUID!, $user: UUID!, $share: Share!) \
    { shareVm(vmId: $vm, userId: $user, share: $share) { userId share } }";
const UNSHARE: &str =
    "mutation($vm: UUID!, $user: UUID!) { unshareVm(vmId: $vm, userId: $user) { userId share } }";
const PASSWORD: &str = "correct horse battery";

/// Somebody who signs in.
struct Person {
    id: String,
    client: Client,
}

async fn person(trial: &Trial, name: &str, role: &str, permissions: &[&str]) -> Person {
    let input = json!({
        "name": name, "email": format!("{name}@example.org"), "password": PASSWORD, "role": role,
        "permissions": permissions,
    });
    let made = trial.client.ask(USER, json!({ "input": input })).await;
    let body = json!({ "email": format!("{name}@example.org"), "password": PASSWORD });
    let url = format!("{}/auth/login", trial.daemon.url);
    let session: Value =
        reqwest::Client::new().post(url).json(&body).send().await.unwrap().json().await.unwrap();
    Person {
        id: made["createUser"]["id"].as_str().unwrap().to_owned(),
        client: trial.daemon.client(session["accessToken"].as_str().unwrap()),
    }
}

/// The code that it is refused with; "" where it goes well.
async fn told(client: &Client, query: &str, variables: Value) -> String {
    let answer = client.send(query, variables).await;
    answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Waits until it is answered like this; the promise is a second.
async fn soon(client: &Client, query: &str, variables: Value, code: &str) {
    let since = Instant::now();
    loop {
        let now = told(client, query, variables.clone()).await;
        if now == code {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(3), "{query}: {now:?} and not {code:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const SEE: &str = "query($id: UUID!) { commandLog(vmId: $id) { nodes { id } } }";
const USE: &str = "mutation($id: UUID!) { setVmAutostart(id: $id, autostart: true) { operation { id } } }";
const OWN: &str = "query($id: UUID!) { vmShares(vmId: $id) { userId } }";
const SAFE: &str =
    "mutation($id: UUID!) { executeVmCommand(vmId: $id, command: { safe: { action: OS_INFO } }) { status } }";
const UNSAFE: &str = "mutation($id: UUID!) \
    { executeVmCommand(vmId: $id, command: { unsafe: { rawCommand: \"true\" } }) { status } }";

/// What somebody is told of a VM: may he see it, use it, decide about it, command it, command it
/// anything. No agent is there: who may command is told so.
async fn row(client: &Client, vm: &str) -> [String; 5] {
    let ask = async |query| told(client, query, json!({ "id": vm })).await;
    [ask(SEE).await, ask(USE).await, ask(OWN).await, ask(SAFE).await, ask(UNSAFE).await]
}

on_both! {
    async fn each_role_and_part_may_what_it_may(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let owner = person(&trial, "olga", "MEMBER", &["UNSAFE_COMMANDS"]).await;
        let (vm, _) = owner.client.create(trial.request("hers")).await;
        owner.client.phase_is(&vm, "INSTALLING", Duration::from_secs(60)).await;
        let nobody = Uuid::new_v4().to_string();

        let (yes, gone, no, away) = ("", "VM_NOT_FOUND", "FORBIDDEN", "AGENT_NOT_CONNECTED");
        let stranger = [gone; 5];
        for (name, role, permissions, share, expected) in [
            ("ana", "MEMBER", &[][..], None, stranger),
            ("ben", "MEMBER", &["UNSAFE_COMMANDS"][..], None, stranger),
            ("cara", "MEMBER", &["UNSAFE_COMMANDS"][..], Some("VIEW"), [yes, no, no, no, no]),
            ("dan", "MEMBER", &[][..], Some("USE"), [yes, yes, no, away, no]),
            ("eva", "MEMBER", &["UNSAFE_COMMANDS"][..], Some("USE"), [yes, yes, no, away, away]),
            ("finn", "READ_ONLY", &["UNSAFE_COMMANDS"][..], None, [yes, no, no, no, no]),
            ("gina", "READ_ONLY", &["UNSAFE_COMMANDS"][..], Some("USE"), [yes, no, no, no, no]),
            ("hugo", "OPERATOR", &[][..], None, [yes, yes, no, away, no]),
            ("ines", "OPERATOR", &["UNSAFE_COMMANDS"][..], None, [yes, yes, no, away, away]),
            ("jan", "ADMIN", &[][..], None, [yes, yes, yes, away, no]),
            ("kira", "ADMIN", &["UNSAFE_COMMANDS"][..], None, [yes, yes, yes, away, away]),
        ] {
            let one = person(&trial, name, role, permissions).await;
            if let Some(share) = share {
                let shared = json!({ "vm": vm, "user": one.id, "share": share });
                owner.client.ask(SHARE, shared).await;
                soon(&one.client, SEE, json!({ "id": vm }), yes).await;
            }
            assert_eq!(row(&one.client, &vm).await, expected, "{name}");
            // What is not there looks like what is not his.
            assert_eq!(row(&one.client, &nobody).await, stranger, "{name}, of no VM");
            let listed = one.client.ask("{ vms { nodes { id } } }", json!({})).await;
            let lists = listed["vms"]["nodes"].as_array().unwrap().len();
            assert_eq!(lists, usize::from(expected[0].is_empty()), "{name} lists {listed}");
            let made = told(&one.client, "mutation { createVm(input: { name: \"x\", vcpus: 1, memoryMib: 0 }) { vm { id } } }", json!({})).await;
            assert_eq!(made == no, role == "READ_ONLY", "{name} makes a VM: {made}");
            for query in ["{ users { nodes { id } } }", "{ auditLog { nodes { id } } }", "{ unmanagedDomains { nodes { uuid } } }"] {
                let code = told(&one.client, query, json!({})).await;
                assert_eq!(code, if role == "ADMIN" { yes } else { no }, "{name}: {query}");
            }
        }
        assert_eq!(row(&owner.client, &vm).await, [yes, yes, yes, away, away]);
        assert_eq!(row(&owner.client, &nobody).await, stranger);
    }

    async fn rights_that_change_hold_at_once(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("one")).await;
        trial.client.phase_is(&vm, "INSTALLING", Duration::from_secs(60)).await;
        let ana = person(&trial, "ana", "MEMBER", &[]).await;
        let (see, of_her) = (json!({ "id": vm }), json!({ "vm": vm, "user": ana.id, "share": "VIEW" }));
        assert_eq!(told(&ana.client, SEE, see.clone()).await, "VM_NOT_FOUND");
        trial.client.ask(SHARE, of_her.clone()).await;
        soon(&ana.client, SEE, see.clone(), "").await;
        assert_eq!(told(&ana.client, USE, see.clone()).await, "FORBIDDEN");
        let more = json!({ "vm": vm, "user": ana.id, "share": "USE" });
        let parts = trial.client.ask(SHARE, more).await;
        assert_eq!(parts["shareVm"], json!([{ "userId": ana.id, "share": "USE" }]));
        soon(&ana.client, USE, see.clone(), "").await;
        // A part is no right to hand it on.
        assert_eq!(told(&ana.client, SHARE, of_her).await, "FORBIDDEN");
        for _ in 0..2 {
            let left = trial.client.ask(UNSHARE, json!({ "vm": vm, "user": ana.id })).await;
            assert_eq!(left["unshareVm"], json!([]));
        }
        soon(&ana.client, SEE, see.clone(), "VM_NOT_FOUND").await;

        let role = |role: &str| json!({ "id": ana.id, "input": { "role": role } });
        trial.client.ask(UPDATE, role("READ_ONLY")).await;
        soon(&ana.client, SEE, see.clone(), "").await;
        trial.client.ask(UPDATE, role("MEMBER")).await;
        soon(&ana.client, SEE, see.clone(), "VM_NOT_FOUND").await;
        let token = ana.client.ask(TOKEN, json!({ "scopes": ["READ"] })).await;
        let program = trial.daemon.client(token["createApiToken"]["token"].as_str().unwrap());
        assert_eq!(told(&program, "{ me { name } }", json!({})).await, "");
        trial.client.ask(UPDATE, json!({ "id": ana.id, "input": { "disabled": true } })).await;
        soon(&ana.client, "{ me { name } }", json!({}), "UNAUTHENTICATED").await;
        soon(&program, "{ me { name } }", json!({}), "UNAUTHENTICATED").await;
        let login = json!({ "email": "ana@example.org", "password": PASSWORD });
        let url = format!("{}/auth/login", trial.daemon.url);
        let refused = reqwest::Client::new().post(url).json(&login).send().await.unwrap();
        assert_eq!(refused.status(), 403);

        assert_eq!(told(&trial.client, DELETE_USER, json!({ "id": ana.id })).await, "");
        assert_eq!(told(&trial.client, DELETE_USER, json!({ "id": ana.id })).await, "USER_NOT_FOUND");
        let me = trial.client.ask("{ me { id role } }", json!({})).await;
        assert_eq!(me["me"]["role"], "ADMIN");
        let mine = me["me"]["id"].clone();
        assert_eq!(told(&trial.client, DELETE_USER, json!({ "id": mine })).await, "USER_OWNS_VMS");
        for input in [json!({ "role": "MEMBER" }), json!({ "disabled": true })] {
            assert_eq!(told(&trial.client, UPDATE, json!({ "id": mine, "input": input })).await, "LAST_ADMIN");
        }
    }

    async fn a_token_is_good_for_its_scopes(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("one")).await;
        trial.client.phase_is(&vm, "INSTALLING", Duration::from_secs(60)).await;
        let token = async |scopes: Value| {
            let issued = trial.client.ask(TOKEN, json!({ "scopes": scopes, "days": 1 })).await;
            let issued = &issued["createApiToken"];
            assert_eq!(issued["info"]["scopes"], scopes);
            (trial.daemon.client(issued["token"].as_str().unwrap()), issued["info"]["id"].clone())
        };
        let (reader, id) = token(json!(["READ"])).await;
        assert_eq!(row(&reader, &vm).await, ["", "FORBIDDEN", "FORBIDDEN", "FORBIDDEN", "FORBIDDEN"]);
        // A weak token makes itself no strong one, and reads no audit log.
        let issue = json!({ "scopes": ["ADMIN"] });
        assert_eq!(told(&reader, TOKEN, issue.clone()).await, "FORBIDDEN");
        assert_eq!(told(&reader, "{ auditLog { nodes { id } } }", json!({})).await, "FORBIDDEN");
        let (hand, _) = token(json!(["READ", "CONTROL"])).await;
        assert_eq!(row(&hand, &vm).await, ["", "", "", "AGENT_NOT_CONNECTED", "FORBIDDEN"]);
        assert_eq!(told(&hand, TOKEN, issue).await, "FORBIDDEN");
        let (shell, _) = token(json!(["READ", "CONTROL", "UNSAFE_COMMANDS"])).await;
        assert_eq!(row(&shell, &vm).await[4], "AGENT_NOT_CONNECTED");
        let listed = trial.client.ask("{ apiTokens { id label } }", json!({})).await;
        assert_eq!(listed["apiTokens"].as_array().unwrap().len(), 4, "{listed}");
        for (scopes, days, code) in [(json!([]), json!(1), "INVALID_INPUT"), (json!(["READ"]), json!(0), "INVALID_INPUT")] {
            assert_eq!(told(&trial.client, TOKEN, json!({ "scopes": scopes, "days": days })).await, code);
        }
        const REVOKE: &str = "mutation($id: UUID!) { revokeApiToken(id: $id) { label } }";
        trial.client.ask(REVOKE, json!({ "id": id })).await;
        soon(&reader, "{ me { name } }", json!({}), "UNAUTHENTICATED").await;
        assert_eq!(told(&trial.client, REVOKE, json!({ "id": id })).await, "TOKEN_NOT_FOUND");
    }

    async fn a_password_is_changed_by_who_knows_it(db: TestDatabase) {
        const CHANGE: &str = "mutation($current: String!, $new: String!) { changePassword(current: $current, new: $new) { name } }";
        let trial = Trial::start(&db).await;
        let ana = person(&trial, "ana", "MEMBER", &[]).await;
        let change = |current: &str, new: &str| json!({ "current": current, "new": new });
        assert_eq!(told(&ana.client, CHANGE, change("wrong", "another horse")).await, "FORBIDDEN");
        assert_eq!(told(&ana.client, CHANGE, change(PASSWORD, "short")).await, "INVALID_INPUT");
        ana.client.ask(CHANGE, change(PASSWORD, "another horse")).await;
        soon(&ana.client, "{ me { name } }", json!({}), "UNAUTHENTICATED").await;
        let url = format!("{}/auth/login", trial.daemon.url);
        for (password, status) in [(PASSWORD, 403), ("another horse", 200)] {
            let body = json!({ "email": "ana@example.org", "password": password });
            assert_eq!(reqwest::Client::new().post(&url).json(&body).send().await.unwrap().status(), status);
        }
        for input in [
            json!({ "name": "a b" }),
            json!({ "name": "bea", "email": "no address" }),
            json!({ "name": "bea", "password": "short" }),
        ] {
            assert_eq!(told(&trial.client, USER, json!({ "input": input })).await, "INVALID_INPUT", "{input}");
        }
        for input in [json!({ "name": "ana" }), json!({ "name": "bea", "email": "ANA@example.org" })] {
            assert_eq!(told(&trial.client, USER, json!({ "input": input })).await, "USER_EXISTS", "{input}");
        }
    }

    async fn what_was_asked_is_written_down(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("one")).await;
        trial.client.phase_is(&vm, "INSTALLING", Duration::from_secs(60)).await;
        let ana = person(&trial, "ana", "MEMBER", &[]).await;
        const DELETE: &str = "mutation($id: UUID!) { deleteVm(id: $id) { vm { id } } }";
        assert_eq!(told(&ana.client, DELETE, json!({ "id": vm })).await, "VM_NOT_FOUND");
        assert_eq!(told(&ana.client, "{ auditLog { nodes { id } } }", json!({})).await, "FORBIDDEN");
        let url = format!("{}/auth/login", trial.daemon.url);
        let wrong = json!({ "email": "ana@example.org", "password": "wrong password" });
        assert_eq!(reqwest::Client::new().post(&url).json(&wrong).send().await.unwrap().status(), 403);

        const LOG: &str = "query($filter: AuditFilterInput) { auditLog(filter: $filter) \
            { nodes { action userId vmId outcome code address details } pageInfo { hasNextPage } } }";
        let log = async |filter: Value| {
            let mut found = trial.client.ask(LOG, json!({ "filter": filter })).await;
            found["auditLog"]["nodes"].take()
        };
        let about = log(json!({ "vmId": vm })).await;
        assert_eq!(about[0], json!({
            "action": "deleteVm", "userId": ana.id, "vmId": vm, "outcome": "REFUSED", "code": "VM_NOT_FOUND",
            "address": "127.0.0.1", "details": {},
        }));
        assert_eq!(about[1]["action"], "vm.create");
        assert_eq!((&about[1]["outcome"], &about[1]["address"]), (&json!("DONE"), &json!("127.0.0.1")));
        let refused = log(json!({ "outcome": "REFUSED" })).await;
        let actions: Vec<_> = refused.as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["/auth/login", "auditLog", "deleteVm"]);
        assert_eq!(refused[0]["userId"], Value::Null);
        let hers = log(json!({ "userId": ana.id, "action": "session.open" })).await;
        assert_eq!(hers.as_array().unwrap().len(), 1);
        let whole = log(json!(null)).await.to_string();
        assert!(!whole.contains(PASSWORD) && !whole.contains("wrong password"), "a password is in it: {whole}");

        // Nobody changes it afterwards.
        let store = db.store().await;
        let kept = db.number("SELECT count(*) FROM audit_log").await;
        for sql in ["UPDATE audit_log SET action = 'nothing'", "DELETE FROM audit_log"] {
            assert!(db.tried(sql).await.contains("append-only"), "{sql}");
        }
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, kept);
        drop(store);
    }
}
