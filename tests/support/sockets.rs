//! Both kinds of sockets as front ends hold them open: npm's graphql-ws with every subscription there is,
//! and npm's socket.io-client; and people who hold them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::{
    guest::{Received, handshake_line, metrics_line},
    node::Node,
    trial::Trial,
};

pub const PASSWORD: &str = "correct horse battery";

/// Every subscription, by a short name.
pub const SUBSCRIPTIONS: [(&str, &str); 4] = [
    ("events", "subscription($vm: UUID!) { vmEvents(vmId: $vm) { type } }"),
    ("metrics", "subscription($vm: UUID!) { vmMetrics(vmId: $vm) { id } }"),
    ("console", "subscription($vm: UUID!) { vmConsole(vmId: $vm) { anew } }"),
    ("progress", "subscription($operation: UUID!) { operationProgress(id: $operation) { id status } }"),
];
/// The ways of Socket.IO's clients.
pub const TRANSPORTS: [(&str, &[&str]); 3] =
    [("ws", &["websocket"]), ("polling", &["polling"]), ("upgraded", &["polling", "websocket"])];

/// A reading every now and then, for as long as somebody reads them; and nothing is ever carried out.
pub async fn talkative(mut stream: UnixStream, _received: Received) -> std::io::Result<()> {
    stream.write_all(handshake_line(1).as_bytes()).await?;
    loop {
        stream.write_all(metrics_line(5.0).as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes a user with a password; his id.
pub async fn person(trial: &Trial, name: &str, role: &str) -> String {
    const USER: &str = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
    let email = format!("{name}@example.org");
    let input = json!({ "name": name, "email": email, "password": PASSWORD, "role": role });
    let made = trial.client.ask(USER, json!({ "input": input })).await;
    made["createUser"]["id"].as_str().unwrap().to_owned()
}

/// Signs him in; what the door gives.
pub async fn signed_in(trial: &Trial, name: &str) -> Value {
    let login = json!({ "email": format!("{name}@example.org"), "password": PASSWORD });
    let url = format!("{}/auth/login", trial.daemon.url);
    reqwest::Client::new().post(url).json(&login).send().await.unwrap().json().await.unwrap()
}

/// What somebody watches.
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    pub vm: &'a str,
    /// One that goes on.
    pub operation: &'a str,
}

/// npm's clients.
pub struct Clients {
    pub graphql: Node,
    pub socketio: Node,
}

impl Clients {
    pub fn start() -> Self {
        Self { graphql: Node::start("graphql-ws.mjs"), socketio: Node::start("socketio.mjs") }
    }

    /// Opens everything for whoever holds this token, and sees it work.
    pub async fn open(&mut self, trial: &Trial, who: &str, token: &str, watched: Watched<'_>) {
        let url = format!("{}/graphql/ws", trial.daemon.url.replacen("http", "ws", 1));
        let payload = json!({ "token": token });
        self.graphql.tell(json!({ "do": "open", "socket": who, "url": url, "payload": payload })).await;
        for (name, transports) in TRANSPORTS {
            let open = json!({
                "do": "open", "socket": tab(who, name), "url": trial.daemon.url,
                "auth": { "token": token }, "transports": transports,
            });
            self.socketio.tell(open).await;
        }
        self.graphql.hears(who, "connected").await;
        for (id, query) in SUBSCRIPTIONS {
            let variables = match id {
                "progress" => json!({ "operation": watched.operation }),
                _ => json!({ "vm": watched.vm }),
            };
            let begin =
                json!({ "do": "subscribe", "socket": who, "id": id, "query": query, "variables": variables });
            self.graphql.tell(begin).await;
        }
        for (id, _) in SUBSCRIPTIONS {
            let first = self.graphql.hears(who, &format!("next:{id}")).await;
            assert!(first.get("errors").is_none(), "{who}: {id}: {first}");
        }
        for (name, transports) in TRANSPORTS {
            let tab = tab(who, name);
            self.socketio.hears(&tab, "connect").await;
            if transports.len() > 1 {
                self.socketio.hears(&tab, "upgrade").await;
            }
            let answer = self.socketio.ask(&tab, "subscribe:vm", json!(watched.vm)).await;
            assert_eq!(answer["ok"], true, "{tab}: {answer}");
            self.socketio.hears(&tab, "metrics").await;
        }
    }

    /// Each subscription ends with its code.
    pub async fn subscriptions_end(&mut self, who: &str, of_vm: &str, of_operation: &str) {
        for (id, _) in SUBSCRIPTIONS {
            let failed = |answer: &Value| answer.get("errors").is_some();
            let answer = self.graphql.hears_such(who, &format!("next:{id}"), failed).await;
            let code = if id == "progress" { of_operation } else { of_vm };
            assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{who}: {id}: {answer}");
            self.graphql.hears(who, &format!("complete:{id}")).await;
        }
    }

    /// Everything that is his is closed, and says why.
    pub async fn end(&mut self, who: &str) {
        self.subscriptions_end(who, "UNAUTHENTICATED", "UNAUTHENTICATED").await;
        assert_eq!(self.graphql.hears(who, "closed").await["code"], 4403, "{who}");
        for (name, _) in TRANSPORTS {
            let tab = tab(who, name);
            let told = self.socketio.hears(&tab, "vm:error").await;
            assert_eq!(told["data"]["code"], "UNAUTHENTICATED", "{tab}: {told}");
            assert_eq!(
                self.socketio.hears(&tab, "disconnect").await["reason"],
                "io server disconnect",
                "{tab}"
            );
        }
    }

    /// Forgets what he heard until now.
    pub fn forget(&mut self, who: &str) {
        self.told(who);
    }

    /// What he heard of the VM and was not taken yet.
    pub fn told(&mut self, who: &str) -> Vec<Value> {
        let mut told = Vec::new();
        for (id, _) in SUBSCRIPTIONS {
            told.extend(self.graphql.heard(who, &format!("next:{id}")));
        }
        for (name, _) in TRANSPORTS {
            for event in ["metrics", "vm:metrics", "vm:status", "vm:online", "vm:offline", "vm:operation"] {
                told.extend(self.socketio.heard(&tab(who, name), event));
            }
        }
        told
    }

    /// The VM talks on: he hears of it now, over everything that he has open.
    pub async fn goes_on(&mut self, who: &str) {
        for _ in 0..2 {
            self.forget(who);
            self.graphql.hears(who, "next:metrics").await;
            for (name, _) in TRANSPORTS {
                self.socketio.hears(&tab(who, name), "metrics").await;
            }
        }
    }
}

fn tab(who: &str, transport: &str) -> String {
    format!("{who}-{transport}")
}
