//! Rights that are taken away while everything is open that they were good for: every subscription, and
//! Socket.IO by each of its ways. It ends at once, says why, and nothing is told after.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use support::{
    guest::FakeGuest,
    sockets::{Clients, TRANSPORTS, Watched, person, signed_in, talkative},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(20);
/// What a change of rights may take to hold, and what a busy machine may add. No other look comes in
/// that time.
const AT_ONCE: Duration = Duration::from_secs(3);

/// How it is taken away from somebody of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The VM is shared with him no more.
    Unshared,
    /// He is no longer somebody who sees every VM.
    Demoted,
    Disabled,
    Removed,
    /// His token.
    Revoked,
    SignedOut,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Unshared, Self::Demoted, Self::Disabled, Self::Removed, Self::Revoked, Self::SignedOut];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether the VM alone is gone for him, and his socket stays.
    fn is_of_the_vm(self) -> bool {
        matches!(self, Self::Unshared | Self::Demoted)
    }
}

/// Somebody who is about to lose his rights.
struct Victim {
    way: Way,
    id: String,
    /// What he holds everything open with.
    token: String,
    session: Value,
    token_id: Option<String>,
}

impl Victim {
    async fn come(trial: &Trial, way: Way, vm: &str) -> Self {
        const SHARE: &str = "mutation($vm: UUID!, $user: UUID!) { shareVm(vmId: $vm, userId: $user, share: VIEW) { userId } }";
        const ISSUE: &str =
            "mutation { createApiToken(label: \"x\", scopes: [READ], days: 1) { token info { id } } }";
        let role = if way == Way::Unshared { "MEMBER" } else { "READ_ONLY" };
        let id = person(trial, &way.name(), role).await;
        if way == Way::Unshared {
            trial.client.ask(SHARE, json!({ "vm": vm, "user": id })).await;
        }
        let session = signed_in(trial, &way.name()).await;
        let mut token = session["accessToken"].as_str().unwrap().to_owned();
        let mut token_id = None;
        if way == Way::Revoked {
            let issued = trial.daemon.client(&token).ask(ISSUE, json!({})).await["createApiToken"].take();
            token_id = Some(issued["info"]["id"].as_str().unwrap().to_owned());
            token = issued["token"].as_str().unwrap().to_owned();
        }
        Self { way, id, token, session, token_id }
    }

    async fn loses_it(&self, trial: &Trial, vm: &str) {
        const UNSHARE: &str =
            "mutation($vm: UUID!, $user: UUID!) { unshareVm(vmId: $vm, userId: $user) { userId } }";
        const UPDATE: &str =
            "mutation($id: UUID!, $input: UpdateUserInput!) { updateUser(id: $id, input: $input) { id } }";
        const REMOVE: &str = "mutation($id: UUID!) { deleteUser(id: $id) { id } }";
        const REVOKE: &str = "mutation($id: UUID!) { revokeApiToken(id: $id) { id } }";
        let (admin, id) = (&trial.client, &self.id);
        match self.way {
            Way::Unshared => drop(admin.ask(UNSHARE, json!({ "vm": vm, "user": id })).await),
            Way::Demoted => drop(admin.ask(UPDATE, json!({ "id": id, "input": { "role": "MEMBER" } })).await),
            Way::Disabled => {
                drop(admin.ask(UPDATE, json!({ "id": id, "input": { "disabled": true } })).await)
            }
            Way::Removed => drop(admin.ask(REMOVE, json!({ "id": id })).await),
            Way::Revoked => {
                let his = trial.daemon.client(self.session["accessToken"].as_str().unwrap());
                his.ask(REVOKE, json!({ "id": self.token_id })).await;
            }
            Way::SignedOut => {
                let url = format!("{}/auth/logout", trial.daemon.url);
                let sent =
                    reqwest::Client::new().post(url).bearer_auth(&self.token).json(&json!({})).send().await;
                assert_eq!(sent.unwrap().status(), 200);
            }
        }
    }
}

on_both! {
    async fn what_is_taken_away_is_silent_at_once(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[("INFINIBAY__API__RECHECK_INTERVAL", "1h")]).await;
        let id = VmId::generate();
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, talkative);
        let mut request = trial.request("watched");
        request["id"] = json!(id.to_string());
        let (vm, made) = trial.client.create(request).await;
        trial.client.succeeded(&made, SOON).await;
        // Its agent never greets anew, so it is waited for.
        let operation = trial.client.change("rebootVm", &vm).await;
        let watched = Watched { vm: &vm, operation: &operation };

        let mut clients = Clients::start();
        clients.open(&trial, "witness", &trial.token, watched).await;
        let mut victims = Vec::new();
        for way in Way::ALL {
            let victim = Victim::come(&trial, way, &vm).await;
            clients.open(&trial, &way.name(), &victim.token, watched).await;
            victims.push(victim);
        }
        for victim in &victims {
            let who = victim.way.name();
            victim.loses_it(&trial, &vm).await;
            let since = Instant::now();
            if victim.way.is_of_the_vm() {
                clients.subscriptions_end(&who, "VM_NOT_FOUND", "OPERATION_NOT_FOUND").await;
                for (name, _) in TRANSPORTS {
                    let lost = clients.socketio.hears(&format!("{who}-{name}"), "vm:error").await;
                    assert_eq!((&lost["vmId"], &lost["data"]["code"]), (&json!(vm), &json!("VM_NOT_FOUND")), "{lost}");
                }
            } else {
                clients.end(&who).await;
            }
            assert!(since.elapsed() < AT_ONCE, "{who}: it took {:?}", since.elapsed());
            // What came before that was his; nothing comes after it.
            clients.forget(&who);
        }
        // Everybody else heard on all the time, and the operation went on.
        clients.goes_on("witness").await;
        assert_eq!(trial.client.operation(&operation).await["status"], "RUNNING");
        for victim in &victims {
            let who = victim.way.name();
            assert_eq!(clients.told(&who), Vec::<Value>::new(), "{who} is told on");
        }
        // Who has lost the VM alone may go on with his sockets.
        for (name, _) in TRANSPORTS {
            let tab = format!("demoted-{name}");
            assert_eq!(clients.socketio.ask(&tab, "subscribe:vm", json!(vm)).await["code"], "VM_NOT_FOUND");
        }
    }
}
