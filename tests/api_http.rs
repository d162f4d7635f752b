//! The HTTP door: who is let in, what is too much, and what anybody may see.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use serde_json::{Value, json};
use support::trial::Trial;

/// What GraphiQL asks when it is opened.
const INTROSPECTION: &str = "query { __schema { queryType { name } types { ...FullType } } }
    fragment FullType on __Type { kind name fields(includeDeprecated: true) { name args { name type { ...TypeRef } }
      type { ...TypeRef } } inputFields { name type { ...TypeRef } } possibleTypes { ...TypeRef } }
    fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
      ofType { kind name ofType { kind name ofType { kind name } } } } } } } }";

struct Door {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Door {
    fn of(trial: &Trial) -> Self {
        Self { http: reqwest::Client::new(), url: trial.daemon.url.clone(), token: trial.token.clone() }
    }

    /// A POST with this body and these headers; status and body.
    async fn post(&self, body: impl Into<String>, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.http.post(format!("{}/graphql", self.url)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    async fn post_known(&self, body: impl Into<String>, kind: &str) -> (u16, Value) {
        self.post(body, &[("authorization", &format!("Bearer {}", self.token)), ("content-type", kind)]).await
    }

    async fn get(&self, path: &str, accept: &str) -> (u16, String) {
        let answer =
            self.http.get(format!("{}{path}", self.url)).header("accept", accept).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("no code: {answer}"))
}

on_both! {
    async fn strangers_get_nothing(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let door = Door::of(&trial);
        let unknown = format!("Bearer ibt_{}", "0".repeat(64));
        let basic = format!("Basic {}", trial.token);
        for authorization in ["", "Bearer", "Bearer ", "Bearer nonsense", &unknown, &basic, &trial.token] {
            for query in [r#"{"query":"{ me { name } }"}"#, r#"{"query":"{ __typename }"}"#, "no JSON"] {
                let headers = [("authorization", authorization), ("content-type", "application/json")];
                let (status, answer) = door.post(query, &headers).await;
                assert_eq!((status, code(&answer)), (401, "UNAUTHENTICATED"), "{authorization:.12}: {query}");
            }
        }
        let introspection = json!({ "query": INTROSPECTION }).to_string();
        let (status, _) = door.post(introspection, &[("content-type", "application/json")]).await;
        assert_eq!(status, 401, "introspection without a token");
    }

    async fn what_anybody_may_see(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let door = Door::of(&trial);
        let (status, health) = door.get("/healthz", "*/*").await;
        assert_eq!(status, 200, "{health}");
        let health: Value = serde_json::from_str(&health).unwrap();
        assert_eq!(health, json!({ "status": "ok", "database": "ok", "hypervisor": "ok" }));
        let (status, page) = door.get("/graphql", "text/html,*/*").await;
        assert_eq!(status, 200);
        assert!(page.contains("GraphiQL") && !page.contains(&trial.token));
        let (status, _) = door.get("/graphql?query={me{name}}", "application/json").await;
        assert_eq!(status, 405, "a query was taken from a URL");
        assert_eq!(door.get("/infiniservice/linux/script", "*/*").await.0, 200);
        assert_eq!(door.get("/infiniservice/freebsd/script", "*/*").await.0, 404);
        assert_eq!(door.get("/", "*/*").await.0, 404);
    }

    async fn requests_are_bounded(db: TestDatabase) {
        let env = [("INFINIBAY__API__MAX_BODY_BYTES", "8192"), ("INFINIBAY__API__MAX_QUERY_COMPLEXITY", "300")];
        let trial = Trial::start_with(&db, &env).await;
        let door = Door::of(&trial);
        let json_type = "application/json; charset=utf-8";
        let ask = async |query: &str| door.post_known(json!({ "query": query }).to_string(), json_type).await;

        let (status, me) = ask("{ me { name admin permissions } }").await;
        let expected = json!({ "name": "admin", "admin": true, "permissions": ["unsafe_commands"] });
        assert_eq!((status, &me["data"]["me"]), (200, &expected), "{me}");

        let (status, answer) = door.post_known("x".repeat(10_000), json_type).await;
        assert_eq!((status, code(&answer)), (413, "PAYLOAD_TOO_LARGE"));
        for body in ["", "nonsense", "[]", "null", r#"[{"query":"{ me { name } }"}]"#, r#"{"query":7}"#] {
            let (status, answer) = door.post_known(body, json_type).await;
            assert_eq!((status, code(&answer)), (400, "INVALID_QUERY"), "{body}");
        }
        // A form that a foreign page could send by itself.
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let (status, answer) = door.post_known(r#"{"query":"{ me { name } }"}"#, kind).await;
            assert_eq!((status, code(&answer)), (400, "INVALID_QUERY"), "{kind}");
        }

        let deep = format!("{{ __schema {{ types {}name{} }} }}", "{ ofType ".repeat(40), " }".repeat(40));
        let wide: String = (0..400).map(|n| format!("a{n}: me {{ name }} ")).collect();
        let pages = "{ vms(first: 100) { nodes { id name phase } } }";
        let readings: String = (0..4)
            .map(|n| format!("m{n}: getVmMetrics(vmId: \"{}\") {{ cpuUsage }} ", uuid::Uuid::nil()))
            .collect();
        let hosts = "{ a: host { hostname } b: host { hostname } c: host { hostname } }";
        let addresses: String = (0..30).map(|n| format!("a{n}: ipAddresses ")).collect();
        let addresses = format!("{{ vm(id: \"{}\") {{ {addresses} }} }}", uuid::Uuid::nil());
        let circle = "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }";
        // Two hundred bytes a level, and a million times the fields of the last.
        let doubling: String = (0..20).map(|n| format!("fragment F{n} on Query {{ ...F{0} ...F{0} }} ", n + 1)).collect();
        let doubling = format!("{{ ...F0 }} {doubling} fragment F20 on Query {{ me {{ name }} }}");
        let begun = std::time::Instant::now();
        assert_eq!(code(&ask(&doubling).await.1), "INVALID_QUERY");
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "it took {:?}", begun.elapsed());
        for query in [&deep, &format!("{{ {wide} }}"), pages, &format!("{{ {readings} }}"), hosts, &addresses, circle, "{ nonsense }", ""] {
            assert_eq!(code(&ask(query).await.1), "INVALID_QUERY", "{query:.60}");
        }
        for first in ["0", "-1", "201"] {
            let (_, answer) = ask(&format!("{{ vms(first: {first}) {{ pageInfo {{ hasNextPage }} }} }}")).await;
            let refused = code(&answer);
            assert!(["INVALID_INPUT", "INVALID_QUERY"].contains(&refused), "{first}: {answer}");
        }
        assert_eq!(code(&ask("{ vms(after: \"x\") { nodes { id } } }").await.1), "INVALID_INPUT");
        assert_eq!(code(&ask("{ vm(id: \"x\") { id } }").await.1), "INVALID_QUERY");
    }

    async fn the_page_for_people_can_read_the_schema(db: TestDatabase) {
        // With the limits as they come.
        let trial = Trial::start(&db).await;
        let schema = trial.client.ask(INTROSPECTION, json!({})).await;
        assert!(schema["__schema"]["types"].as_array().unwrap().len() > 20);
    }
}
