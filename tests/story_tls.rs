//! TLS: the certificate is shown, renewed while it is in use, and a broken one never takes its place.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    daemon::{Daemon, Home, Setup},
    database::{Backend, TestDatabase},
    raw,
};

/// A certificate for `localhost` that vouches for itself, and its key.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A client that believes this certificate and no other.
fn client(certificate: &str) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap())
        // Each request makes its handshake anew.
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

fn home(dir: &Path, db: &TestDatabase, env: &[(&str, String)]) -> Home {
    Home::new(Setup {
        uri: "test:///default".into(),
        database_url: Some(db.url.clone()),
        images_dir: dir.to_owned(),
        base_dir: dir.join("base"),
        env: env.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    })
}

fn url(daemon: &Daemon, path: &str) -> String {
    format!("https://localhost:{}{path}", raw::address(daemon).port())
}

/// Waits until the daemon shows this certificate.
async fn shown(daemon: &Daemon, certificate: &str) {
    let since = Instant::now();
    while client(certificate).get(url(daemon, "/healthz")).send().await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(10), "it is not shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn tell(daemon: &Daemon, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_while_it_is_in_use() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let put = |(cert, secret): &(String, String)| {
        fs::write(&certificate, cert).unwrap();
        fs::write(&key, secret).unwrap();
    };
    let (first, second, third) = (pair(), pair(), pair());
    put(&first);
    let path = |path: &Path| path.display().to_string();
    let mut env = vec![
        ("INFINIBAY__TLS__CERTIFICATE", path(&certificate)),
        ("INFINIBAY__TLS__KEY", path(&key)),
        ("INFINIBAY__TLS__RELOAD_INTERVAL", "1s".to_owned()),
        ("INFINIBAY__HTTP__HEADER_TIMEOUT", "2s".to_owned()),
    ];
    let quick = home(dir.path(), &db, &env);
    let token = quick.admin();
    let daemon = quick.start();

    let body = json!({ "query": "{ me { name } }" });
    let asked = client(&first.0).post(url(&daemon, "/graphql")).bearer_auth(&token).json(&body).send().await;
    let answer = asked.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert_eq!(answer.json::<Value>().await.unwrap()["data"]["me"]["name"], "admin");
    assert!(
        client(&second.0).get(url(&daemon, "/healthz")).send().await.is_err(),
        "any certificate is believed"
    );

    // Whoever does not speak TLS, or says nothing, is not served and not waited for.
    let answer = raw::get(raw::address(&daemon), "/healthz", "").await;
    assert_eq!(raw::status(&answer), 0, "{answer}");
    let begun = Instant::now();
    let mut silent = tokio::net::TcpStream::connect(raw::address(&daemon)).await.unwrap();
    assert_eq!(raw::rest(&mut silent).await, "");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    // By a look at the files.
    put(&second);
    shown(&daemon, &second.0).await;
    // A half-written or foreign pair leaves the one before in use.
    for broken in [
        (third.0.clone(), second.1.clone()),
        (third.0[..100].to_owned(), third.1.clone()),
        (String::new(), String::new()),
    ] {
        put(&broken);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        shown(&daemon, &second.0).await;
    }
    drop(daemon);

    // By a signal, where nobody would look for an hour.
    put(&second);
    env.retain(|(name, _)| !name.ends_with("INTERVAL"));
    env.push(("INFINIBAY__TLS__RELOAD_INTERVAL", "1h".to_owned()));
    let slow = home(dir.path(), &db, &env);
    let daemon = slow.start();
    shown(&daemon, &second.0).await;
    put(&third);
    tell(&daemon, rustix::process::Signal::HUP);
    shown(&daemon, &third.0).await;
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    fs::write(&certificate, pair().0).unwrap();
    fs::write(&key, pair().1).unwrap();
    let path = |path: &Path| path.display().to_string();
    let both = [("INFINIBAY__TLS__CERTIFICATE", path(&certificate)), ("INFINIBAY__TLS__KEY", path(&key))];
    let (code, words) = home(dir.path(), &db, &both).start_refused();
    assert!(code == Some(1) && words.contains("the certificate"), "{code:?}: {words}");
    let (code, words) = home(dir.path(), &db, &both[..1]).start_refused();
    assert!(
        code != Some(0) && words.contains("tls.key: is needed with tls.certificate"),
        "{code:?}: {words}"
    );
}
