//! Callers who ask too much, too slowly, or for somebody else: each is refused with a stable code and within
//! a bound, and the others are served on.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    api::Socket,
    database::{Backend, TestDatabase},
    raw,
    trial::Trial,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A query, as the body of a request.
fn query(text: &str) -> String {
    json!({ "query": text }).to_string()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Asks who one is, from this address; the whole answer.
async fn who(from: &str, to: SocketAddr, token: &str) -> String {
    let mut stream = raw::connect_from(from, to).await;
    let request = raw::post("/graphql", &query("{ me { name } }"), &bearer(token));
    stream.write_all(request.as_bytes()).await.unwrap();
    raw::rest(&mut stream).await
}

async fn served(from: &str, to: SocketAddr, token: &str) {
    let answer = who(from, to, token).await;
    assert!(raw::status(&answer) == 200 && answer.contains("\"admin\""), "others are not served: {answer}");
}

/// Sends a byte now and then until nobody takes it; what came back and how long it took.
async fn trickle(to: SocketAddr, begin: &str) -> (String, Duration) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(begin.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let drip = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = read.read_to_end(&mut answer) => {}
        () = drip => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("it was never cut off"),
    }
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_or_too_slow_is_cut_off() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let env = [("INFINIBAY__HTTP__HEADER_TIMEOUT", "2s"), ("INFINIBAY__HTTP__BODY_TIMEOUT", "2s")];
    let trial = Trial::start_with(&db, &env).await;
    let (to, token) = (raw::address(&trial.daemon), bearer(&trial.token));

    // The slow ones, while others are served.
    let body = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\n{token}Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    );
    let sign_in = "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: 5000\r\n\r\n";
    let (head, body, sign_in, ()) = tokio::join!(
        trickle(to, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "),
        trickle(to, &body),
        trickle(to, sign_in),
        async {
            for _ in 0..10 {
                served("127.0.0.1", to, &trial.token).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        },
    );
    assert!(!head.0.starts_with("HTTP/1.1 2") && head.1 < Duration::from_secs(8), "{head:?}");
    for (answer, took) in [body, sign_in] {
        assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (408, "BODY_TIMEOUT"));
        assert!(took < Duration::from_secs(8), "{took:?}");
    }

    // The long ones.
    let begun = Instant::now();
    let huge = query(&format!("{{ me {{ name }} }} # {}", "x".repeat(10 << 20)));
    let answer = raw::exchange(to, raw::post("/graphql", &huge, &token).as_bytes()).await;
    // The rest of what was sent may take the answer with it; it is not read in any case.
    if raw::status(&answer) != 0 {
        assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (413, "PAYLOAD_TOO_LARGE"));
    }
    let long = query(&format!("{{ me {{ name }} }} # {}", "x".repeat(40 << 10)));
    let answer = raw::exchange(to, raw::post("/graphql", &long, &token).as_bytes()).await;
    assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (400, "INVALID_QUERY"));
    let answer = raw::get(to, &format!("/{}", "x".repeat(5000)), "").await;
    assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (414, "URI_TOO_LONG"));
    let answer = raw::get(to, &format!("/vms/{}/screenshot", "1".repeat(5000)), &token).await;
    assert_eq!(raw::status(&answer), 414);
    let answer = raw::get(to, &format!("/{}", "x".repeat(100 << 10)), "").await;
    assert!(matches!(raw::status(&answer), 0 | 414 | 431), "{answer}");
    let answer = raw::get(to, "/healthz", &format!("X-Long: {}\r\n", "x".repeat(20 << 10))).await;
    assert!(matches!(raw::status(&answer), 0 | 431), "{answer}");
    let answer = raw::get(to, "/healthz", &"X-Many: 1\r\n".repeat(500)).await;
    assert!(matches!(raw::status(&answer), 0 | 431), "{answer}");
    let answer = raw::get(to, "/nothing", "").await;
    assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (404, "NOT_FOUND"));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Each is counted by its reason.
    let figures = raw::get(to, "/metrics", &token).await;
    for line in [
        "infinibay_requests_refused_total{reason=\"slow\"} 2",
        "infinibay_requests_refused_total{reason=\"too_long\"} 2",
    ] {
        assert!(figures.contains(line), "{line} is not in {figures}");
    }
    assert!(figures.contains("infinibay_libvirt_call_seconds_bucket"), "libvirt's times are not told");
    served("127.0.0.1", to, &trial.token).await;
}

on_both! {
    async fn a_request_has_a_number_and_nobody_writes_into_heads(db: TestDatabase) {
        let trial = Trial::start_with(&db, &[]).await;
        let (to, token) = (raw::address(&trial.daemon), bearer(&trial.token));
        let id = "0198c0de-0000-7000-8000-00000000abcd";
        let missing = query("mutation { startVm(id: \"00000000-0000-4000-8000-000000000000\") { operation { id } } }");
        let answer = raw::exchange(to, raw::post("/graphql", &missing, &format!("{token}X-Request-Id: {id}\r\n")).as_bytes()).await;
        assert_eq!((raw::header(&answer, "x-request-id"), raw::code(&answer).as_str()), (Some(id), "VM_NOT_FOUND"));
        assert!(answer.contains(&format!("\"requestId\":\"{id}\"")), "{answer}");
        const LOG: &str = "{ auditLog(filter: { action: \"startVm\" }) { nodes { requestId address code } } }";
        let log = trial.client.ask(LOG, json!({})).await;
        let expected = json!([{ "requestId": id, "address": "127.0.0.1", "code": "VM_NOT_FOUND" }]);
        assert_eq!(log["auditLog"]["nodes"], expected);
        assert!(trial.daemon.logged().contains(id), "the log does not know it");
        // A refusal before GraphQL, and one of GraphQL itself, have it too.
        for (body, code) in [("[]".to_owned(), "INVALID_QUERY"), (query("{ nonsense }"), "INVALID_QUERY")] {
            let answer = raw::exchange(to, raw::post("/graphql", &body, &format!("{token}X-Request-Id: {id}\r\n")).as_bytes()).await;
            assert_eq!(raw::code(&answer), code);
            assert!(answer.contains(&format!("\"requestId\":\"{id}\"")), "{answer}");
        }
        // What is done is noted as well.
        let made = query("mutation { createApiToken(label: \"x\", scopes: [READ]) { info { id } } }");
        let answer = raw::exchange(to, raw::post("/graphql", &made, &format!("{token}X-Request-Id: {id}\r\n")).as_bytes()).await;
        assert!(!answer.contains("errors"), "{answer}");
        const DONE: &str = "{ auditLog(filter: { action: \"token.issue\", outcome: DONE }) { nodes { requestId address code } } }";
        let log = trial.client.ask(DONE, json!({})).await;
        let done = json!({ "requestId": id, "address": "127.0.0.1", "code": null });
        assert_eq!(log["auditLog"]["nodes"][0], done, "{log}");

        // Anything else than a number gets one of ours, and is written nowhere.
        for foreign in ["<script>", "x\tSet-Cookie: a=b", "0198c0de-0000-7000-8000-00000000abcd, x", "%0d%0aSet-Cookie: a=b"] {
            let answer = raw::get(to, "/healthz", &format!("X-Request-Id: {foreign}\r\n")).await;
            let given = raw::header(&answer, "x-request-id").unwrap();
            assert!(given.len() == 36 && given != id && !answer.contains("a=b"), "{answer}");
        }
        for broken in [
            "X-Request-Id: a\rSet-Cookie: a=b\r\n",
            "X-Request-Id: a\0b\r\n",
            "X-Request-Id : a\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: +1\r\n",
            "X-Folded: a\r\n Set-Cookie: a=b\r\n",
        ] {
            let answer = raw::get(to, "/healthz", broken).await;
            assert_eq!(raw::status(&answer), 400, "{broken:?}: {answer}");
            assert!(!answer.contains("a=b"), "{broken:?}: {answer}");
        }
        // What every answer tells browsers.
        let answer = raw::get(to, "/healthz", "").await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(raw::header(&answer, name), Some(value), "{answer}");
        }
        assert_eq!(raw::header(&answer, "strict-transport-security"), None, "this is no TLS");
        let page = raw::get(to, "/graphql", "Accept: text/html\r\n").await;
        let policy = raw::header(&page, "content-security-policy").unwrap();
        assert!(policy.contains("script-src https://unpkg.com 'sha256-") && policy.contains("frame-ancestors 'none'"), "{policy}");
    }

    async fn whoever_guesses_behind_a_proxy_is_alone_with_it(db: TestDatabase) {
        let env = [("INFINIBAY__HTTP__TRUSTED_PROXIES", "127.0.0.9, 10.0.0.0/8")];
        let trial = Trial::start_with(&db, &env).await;
        let to = raw::address(&trial.daemon);
        let login = async |from: &str, headers: &str, email: &str| {
            let body = json!({ "email": email, "password": "not the right one" }).to_string();
            let mut stream = raw::connect_from(from, to).await;
            stream.write_all(raw::post("/auth/login", &body, headers).as_bytes()).await.unwrap();
            raw::rest(&mut stream).await
        };
        let victim = "somebody@example.com";
        let flood = "X-Forwarded-For: 203.0.113.66\r\n";
        for attempt in 0..5 {
            let answer = login("127.0.0.9", flood, victim).await;
            assert_eq!(raw::code(&answer), "FORBIDDEN", "attempt {attempt}");
        }
        let answer = login("127.0.0.9", flood, victim).await;
        assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (429, "TOO_MANY_ATTEMPTS"));
        assert!(raw::header(&answer, "retry-after").unwrap().parse::<u64>().unwrap() > 0);
        // An address that he invents in front of his own changes nothing; nor does the other header.
        for invented in ["X-Forwarded-For: 198.51.100.1, 203.0.113.66\r\n", "X-Forwarded-For: 203.0.113.66, 10.9.9.9\r\nForwarded: for=198.51.100.1\r\n"] {
            assert_eq!(raw::code(&login("127.0.0.9", invented, victim).await), "TOO_MANY_ATTEMPTS");
        }
        // Others behind the same proxy are not him.
        assert_eq!(raw::code(&login("127.0.0.9", "X-Forwarded-For: 198.51.100.7\r\n", victim).await), "FORBIDDEN");
        // And who is no proxy cannot choose to be another.
        for attempt in 0..6 {
            let headers = format!("X-Forwarded-For: 192.0.2.{attempt}\r\n");
            let answer = login("127.0.0.8", &headers, victim).await;
            let wanted = if attempt < 5 { "FORBIDDEN" } else { "TOO_MANY_ATTEMPTS" };
            assert_eq!(raw::code(&answer), wanted, "attempt {attempt}");
        }
        const LOG: &str = "{ auditLog(filter: { action: \"/auth/login\" }) { nodes { address requestId } } }";
        let log = trial.client.ask(LOG, json!({})).await;
        let rows = log["auditLog"]["nodes"].as_array().unwrap();
        let from = |address: &str| rows.iter().filter(|row| row["address"] == address).count();
        assert_eq!((from("203.0.113.66"), from("198.51.100.7"), from("127.0.0.8")), (5, 1, 5), "{log}");
        assert!(rows.iter().all(|row| row["requestId"].is_string()), "{log}");
        served("127.0.0.1", to, &trial.token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_requests_of_a_token_and_so_many_connections() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let env = [
        ("INFINIBAY__HTTP__REQUESTS_PER_SECOND", "1"),
        ("INFINIBAY__HTTP__REQUEST_BURST", "20"),
        ("INFINIBAY__HTTP__MAX_CONNECTIONS_PER_ADDRESS", "4"),
        ("INFINIBAY__HTTP__MAX_CONNECTIONS", "8"),
        ("INFINIBAY__API__MAX_WEBSOCKETS", "2"),
    ];
    let trial = Trial::start_with(&db, &env).await;
    let to = raw::address(&trial.daemon);
    let ana = {
        const MAKE: &str = "mutation { createUser(input: { name: \"ana\", email: \"ana@example.com\", password: \"correct horse battery\" }) { id } }";
        let _ = trial.client.send(MAKE, json!({})).await;
        let body = json!({ "email": "ana@example.com", "password": "correct horse battery" }).to_string();
        let answer = raw::exchange(to, raw::post("/auth/login", &body, "").as_bytes()).await;
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        told["accessToken"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    assert!(who("127.0.0.1", to, &ana).await.contains("\"ana\""));
    let mut passed = 0;
    let refused = loop {
        let answer = who("127.0.0.1", to, &trial.token).await;
        if raw::status(&answer) != 200 {
            break answer;
        }
        passed += 1;
        assert!(passed < 60, "there is no limit");
    };
    assert_eq!((raw::status(&refused), raw::code(&refused).as_str()), (429, "RATE_LIMITED"));
    assert_eq!(raw::header(&refused, "retry-after"), Some("1"));
    // Another's token, and the same after its time.
    assert!(who("127.0.0.1", to, &ana).await.contains("\"ana\""), "another's token was refused");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    served("127.0.0.1", to, &trial.token).await;
    // Made-up tokens are the address's, and use up nobody else's.
    let mut codes = Vec::new();
    for number in 0..30 {
        codes.push(raw::code(&who("127.0.0.5", to, &format!("guess-{number}")).await));
    }
    assert_eq!(
        (&codes[0], codes.last().unwrap()),
        (&"UNAUTHENTICATED".to_owned(), &"RATE_LIMITED".to_owned())
    );
    assert!(
        who("127.0.0.5", to, &ana).await.contains("\"ana\""),
        "a good token shares an address with guesses"
    );

    // Connections of one address.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(raw::connect_from("127.0.0.6", to).await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = who("127.0.0.6", to, &ana).await;
    assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (503, "TOO_MANY_CONNECTIONS"));
    assert!(who("127.0.0.7", to, &ana).await.contains("\"ana\""), "others are refused, too");
    // Connections in all: ten. A place may still be taken by a request that was just answered.
    let since = Instant::now();
    let answer = loop {
        for from in ["127.0.0.10", "127.0.0.11"] {
            held.push(raw::connect_from(from, to).await);
        }
        let answer = who("127.0.0.12", to, &ana).await;
        if raw::status(&answer) != 200 {
            break answer;
        }
        assert!(since.elapsed() < Duration::from_secs(5), "there is no limit");
    };
    assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (503, "TOO_MANY_CONNECTIONS"));
    assert!(raw::header(&answer, "retry-after").is_some());
    held.clear();
    let since = Instant::now();
    while !who("127.0.0.12", to, &ana).await.contains("\"ana\"") {
        assert!(since.elapsed() < Duration::from_secs(10), "the places are not free again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Over a WebSocket, each operation is one.
    let mut socket = Socket::introduced(&trial.daemon, &ana).await;
    let mut answered = 0;
    loop {
        let id = answered.to_string();
        socket.begin(&id, "{ me { name } }", json!({})).await;
        let message = socket.message().await;
        if message["type"] == "error" || message["payload"]["errors"].is_array() {
            assert!(message.to_string().contains("RATE_LIMITED"), "{message}");
            break;
        }
        assert_eq!(socket.message().await["type"], "complete");
        answered += 1;
        assert!(answered < 60, "there is no limit to what is asked over a WebSocket");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_are_let_in_by_name() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let trial =
        Trial::start_with(&db, &[("INFINIBAY__HTTP__ALLOWED_ORIGINS", "https://console.example")]).await;
    let to = raw::address(&trial.daemon);
    for (origin, status) in
        [("https://evil.example", Some(403)), ("null", Some(403)), ("https://console.example", None)]
    {
        let opened = Socket::open(&trial.daemon, "/graphql/ws", &[("origin", origin.to_owned())]).await;
        assert_eq!(opened.err().map(|status| status.as_u16()), status, "{origin}");
    }
    assert!(
        Socket::open(&trial.daemon, "/graphql/ws", &[("origin", trial.daemon.url.clone())]).await.is_ok(),
        "our own page"
    );
    assert!(Socket::open(&trial.daemon, "/graphql/ws", &[]).await.is_ok(), "no browser");
    let answer =
        raw::get(to, "/socket.io/?EIO=4&transport=polling", "Origin: https://evil.example\r\n").await;
    assert_eq!((raw::status(&answer), raw::code(&answer).as_str()), (403, "ORIGIN_NOT_ALLOWED"));
    let preflight = async |origin: &str| {
        let request = format!(
            "OPTIONS /graphql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n"
        );
        raw::exchange(to, request.as_bytes()).await
    };
    let answer = preflight("https://console.example").await;
    assert_eq!(
        raw::header(&answer, "access-control-allow-origin"),
        Some("https://console.example"),
        "{answer}"
    );
    assert!(
        raw::header(&answer, "access-control-allow-headers").unwrap().contains("authorization"),
        "{answer}"
    );
    assert_eq!(raw::header(&answer, "access-control-allow-credentials"), None, "{answer}");
    let answer = preflight("https://evil.example").await;
    assert_eq!(raw::header(&answer, "access-control-allow-origin"), None, "{answer}");
}
