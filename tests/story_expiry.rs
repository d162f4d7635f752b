//! Tokens that end by themselves while sockets are open: what their holder has open ends within a second of
//! that, of either kind, whatever else happens or does not; and so where the host's clock is set meanwhile,
//! once it is looked again.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    access::Scope,
    store::TokenInfo,
    vm::{TokenId, UserId, VmId},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use support::{
    clock::Clock,
    database::{Backend, TestDatabase},
    guest::FakeGuest,
    sockets::{Clients, Watched, person, signed_in, talkative},
    trial::Trial,
};

const SOON: Duration = Duration::from_secs(20);
/// A second, and what a busy machine may add. No other look comes in that time.
const AT_ONCE: TimeDelta = TimeDelta::seconds(3);

/// A VM that talks all the time, and an operation on it that goes on.
async fn watched(trial: &Trial) -> (FakeGuest, String, String) {
    let id = VmId::generate();
    let guest = FakeGuest::listen(&trial.home.socket_dir(), id, talkative);
    let mut request = trial.request("watched");
    request["id"] = json!(id.to_string());
    let (vm, made) = trial.client.create(request).await;
    trial.client.succeeded(&made, SOON).await;
    // Its agent never greets anew, so it is waited for.
    let operation = trial.client.change("rebootVm", &vm).await;
    (guest, vm, operation)
}

/// An API token of his that ends at this time, as the daemon would have stored it.
async fn api_token(db: &TestDatabase, user: &str, until: DateTime<Utc>) -> String {
    let token = format!("ibt_{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let info = TokenInfo {
        id: TokenId::generate(),
        user: UserId(user.parse().unwrap()),
        label: "short".to_owned(),
        scopes: Scope::ALL.into(),
        created_at: Utc::now(),
        expires_at: Some(until),
    };
    let store = db.store().await;
    store.add_token(&info, &Sha256::digest(&token).into(), None).await.unwrap();
    store.close().await;
    token
}

on_both! {
    async fn what_is_open_ends_with_its_token(db: TestDatabase) {
        let env = [("INFINIBAY__API__RECHECK_INTERVAL", "1h"), ("INFINIBAY__ACCOUNTS__ACCESS_TIME", "6s")];
        let trial = Trial::start_with(&db, &env).await;
        let (_guest, vm, operation) = watched(&trial).await;
        let watched = Watched { vm: &vm, operation: &operation };
        let late = person(&trial, "late", "READ_ONLY").await;
        let mut clients = Clients::start();
        clients.open(&trial, "witness", &trial.token, watched).await;

        let session = signed_in(&trial, "late").await;
        let access_until: DateTime<Utc> = session["accessExpiresAt"].as_str().unwrap().parse().unwrap();
        let api_until = access_until + TimeDelta::milliseconds(500);
        let api = api_token(&db, &late, api_until).await;
        clients.open(&trial, "session", session["accessToken"].as_str().unwrap(), watched).await;
        clients.open(&trial, "program", &api, watched).await;
        assert!(Utc::now() < access_until, "it took too long to open everything");
        for (who, until) in [("session", access_until), ("program", api_until)] {
            clients.end(who).await;
            let took = Utc::now() - until;
            assert!((TimeDelta::zero()..AT_ONCE).contains(&took), "{who} was sent away {took} after the token's end");
            clients.forget(who);
        }
        clients.goes_on("witness").await;
        for who in ["session", "program"] {
            assert_eq!(clients.told(who), Vec::<serde_json::Value>::new(), "{who} hears on");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_delays_it_until_the_next_look() {
    let db = TestDatabase::new(Backend::Sqlite).await;
    let clock = Clock::new();
    let mut env = clock.env();
    env.push(("INFINIBAY__API__RECHECK_INTERVAL".to_owned(), "1s".to_owned()));
    // The guest's clock is not set, and it is to be heard all the same.
    env.push(("INFINIBAY__AGENTS__MAX_CLOCK_SKEW".to_owned(), "3h".to_owned()));
    let env: Vec<_> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let trial = Trial::start_with(&db, &env).await;
    let (_guest, vm, operation) = watched(&trial).await;
    let watched = Watched { vm: &vm, operation: &operation };
    person(&trial, "late", "READ_ONLY").await;
    let session = signed_in(&trial, "late").await;
    let mut clients = Clients::start();
    clients.open(&trial, "late", session["accessToken"].as_str().unwrap(), watched).await;
    clients.open(&trial, "witness", &trial.token, watched).await;

    // Back: nobody's token ends early.
    clock.set(-3600);
    let since = tokio::time::Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        clients.goes_on("late").await;
    }
    // Forth, over the token's end: the next look sees it.
    clock.set(3600);
    let since = tokio::time::Instant::now();
    clients.end("late").await;
    assert!(since.elapsed() < Duration::from_secs(4), "it took {:?}", since.elapsed());
    clients.goes_on("witness").await;
}
