//! Queries that ask for too much, in every way there is: each is refused with its code, over HTTP and
//! WebSocket, before any of it is carried out, while somebody else is served on.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{api::Socket, daemon::Client, database::TestDatabase, trial::Trial};

/// How long anybody may wait meanwhile; the machine of a test may be busy.
const PATIENCE: Duration = Duration::from_secs(3);

/// A door that takes any body.
struct Door {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Door {
    fn of(trial: &Trial) -> Self {
        let url = format!("{}/graphql", trial.daemon.url);
        Self { http: reqwest::Client::new(), url, token: trial.token.clone() }
    }

    /// Status and code of the answer.
    async fn refused(&self, body: String) -> (u16, String) {
        let request = self.http.post(&self.url).bearer_auth(&self.token);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["data"].is_null(), "some of it was carried out: {answer:.300}");
        assert!(answer.to_string().len() < 8_000, "{} bytes of refusal", answer.to_string().len());
        let code = answer["errors"][0]["extensions"]["code"].as_str();
        (status, code.unwrap_or_else(|| panic!("no code: {answer:.300}")).to_owned())
    }
}

fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(|n| one(n) + " ").collect()
}

/// What is too much, by name.
fn excesses() -> Vec<(&'static str, String)> {
    let nobody = uuid::Uuid::nil();
    let chain = many(200, |n| format!("fragment F{n} on Query {{ ...F{} }}", n + 1));
    let doubling = many(30, |n| format!("fragment F{n} on Query {{ ...F{0} ...F{0} }}", n + 1));
    vec![
        ("10,000 aliases", format!("{{ {} }}", many(10_000, |n| format!("a{n}: me {{ id }}")))),
        ("200 short aliases", format!("{{ me {{ {} }} }}", many(200, |n| format!("a{n}: id")))),
        ("101 aliases by fragments", {
            let spread = many(11, |n| format!("x{n}: me {{ ...U }}"));
            let fields = many(9, |n| format!("a{n}: id"));
            format!("{{ {spread} }} fragment U on User {{ {fields} }}")
        }),
        ("51 root fields", format!("{{ {} }}", many(51, |n| format!("a{n}: me {{ id }}")))),
        ("51 mutations", {
            let one = |n| format!("a{n}: startVm(id: \"{nobody}\") {{ operation {{ id }} }}");
            format!("mutation {{ {} }}", many(51, one))
        }),
        (
            "depth 100",
            format!("{{ __schema {{ types {}name{} }} }}", "{ ofType ".repeat(100), " }".repeat(100)),
        ),
        ("depth 100 by nothing", format!("{{ {} me {{ id }} {} }}", "... {".repeat(100), "}".repeat(100))),
        ("a list in lists", format!("{{ vm(id: {}1{}) {{ id }} }}", "[".repeat(3_000), "]".repeat(3_000))),
        (
            "too complex",
            "{ vms(first: 200) { nodes { id name phase conditions { type status } latestMetrics { id } } } }"
                .to_owned(),
        ),
        ("directives", format!("{{ me {{ id {} }} }}", "@include(if: true) ".repeat(500))),
        ("unknown directives", format!("{{ me {{ id {} }} }}", "@nonsense ".repeat(1_000))),
        ("a circle", "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }".to_owned()),
        ("a circle of one", "{ ...A } fragment A on Query { me { id } ...A }".to_owned()),
        ("a chain that ends nowhere", format!("{{ ...F0 }} {chain}")),
        ("doubling", format!("{{ ...F0 }} {doubling} fragment F30 on Query {{ me {{ id }} }}")),
        ("500 operations", many(500, |n| format!("query Q{n} {{ me {{ id }} }}"))),
        ("500 variables", {
            let variables = many(500, |n| format!("$v{n}: UUID!"));
            format!("query({variables}) {{ me {{ id }} }}")
        }),
        ("32 KiB of blanks", format!("{{ me {{ id }} }}{}", " ".repeat(32 << 10))),
    ]
}

/// Somebody else, who asks all the while; the longest that he waited, and how often he was served.
async fn bystander(client: Client, stop: tokio_util::sync::CancellationToken) -> (Duration, u32) {
    let (mut longest, mut served) = (Duration::ZERO, 0);
    while !stop.is_cancelled() {
        let begun = Instant::now();
        client.ask("{ me { id } vms { nodes { id } } }", json!({})).await;
        longest = longest.max(begun.elapsed());
        served += 1;
    }
    (longest, served)
}

on_both! {
    async fn too_much_is_refused_and_others_are_served(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        trial.client = trial.daemon.client(&trial.token);
        let stop = tokio_util::sync::CancellationToken::new();
        let other = tokio::spawn(bystander(trial.daemon.client(&eve), stop.clone()));
        let door = Door::of(&trial);
        for (what, query) in excesses() {
            let begun = Instant::now();
            let (_, code) = door.refused(json!({ "query": query }).to_string()).await;
            assert_eq!(code, "INVALID_QUERY", "{what}");
            assert!(begun.elapsed() < PATIENCE, "{what} took {:?}", begun.elapsed());
            let mut socket = Socket::introduced(&trial.daemon, &trial.token).await;
            socket.begin("1", &query, json!({})).await;
            assert_eq!(socket.refused("1").await, "INVALID_QUERY", "{what} on a WebSocket");
        }
        let long = json!({ "query": format!("{{ me {{ id }} }}{}", " ".repeat(10 << 20)) }).to_string();
        assert_eq!(door.refused(long).await, (413, "PAYLOAD_TOO_LARGE".to_owned()), "10 MiB of query");
        let batch: Vec<_> = (0..1_000).map(|_| json!({ "query": "{ me { id } }" })).collect();
        for batch in [json!(batch), json!([{ "query": "{ me { id } }" }]), json!([])] {
            let refused = door.refused(batch.to_string()).await;
            assert_eq!(refused, (400, "INVALID_QUERY".to_owned()), "a batch");
        }
        stop.cancel();
        let (longest, served) = other.await.unwrap();
        assert!(longest < PATIENCE && served > 0, "served {served} times, once after {longest:?}");

        // Just below each limit there is nothing to refuse.
        let aliases = format!("{{ me {{ {} }} }}", many(100, |n| format!("a{n}: id")));
        let roots = format!("{{ {} }}", many(50, |n| format!("a{n}: me {{ id }}")));
        let blanks = "{ me { id } }";
        let blanks = format!("{blanks}{}", " ".repeat((32 << 10) - blanks.len()));
        for query in [aliases, roots, blanks] {
            trial.client.ask(&query, json!({})).await;
        }
        trial.daemon.stop();
    }

    async fn the_schema_is_told_unless_the_operator_says_no(db: TestDatabase) {
        let asks = [
            "{ __schema { queryType { name } } }",
            "{ __type(name: \"Vm\") { name } }",
            "{ me { id } ...A } fragment A on Query { s: __schema { types { name } } }",
        ];
        let open = Trial::start(&db).await;
        for query in asks {
            open.client.ask(query, json!({})).await;
        }
        let near = open.client.send("{ me { nam } }", json!({})).await;
        assert!(near.to_string().contains("\\\"name\\\""), "no suggestion: {near}");
        open.daemon.stop();

        let other = TestDatabase::new(db.backend()).await;
        let shut = Trial::start_with(&other, &[("INFINIBAY__API__INTROSPECTION", "false")]).await;
        for query in asks {
            assert_eq!(shut.client.refused(query, json!({})).await, "INVALID_QUERY", "{query}");
            let mut socket = Socket::introduced(&shut.daemon, &shut.token).await;
            socket.begin("1", query, json!({})).await;
            assert_eq!(socket.refused("1").await, "INVALID_QUERY", "{query} on a WebSocket");
        }
        let near = shut.client.send("{ me { nam } }", json!({})).await;
        assert_eq!(near["errors"][0]["extensions"]["code"], "INVALID_QUERY");
        assert!(!near.to_string().contains("\\\"name\\\""), "a name is told: {near}");
        let typed = shut.client.ask("{ __typename me { __typename id } }", json!({})).await;
        assert_eq!(typed["me"]["__typename"], "User");
        shut.daemon.stop();
    }
}
