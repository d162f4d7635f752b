//! How much a command costs beside what it must: a round trip through GraphQL over HTTP and a real
//! daemon, against a round trip on a guest's bare socket plus one row committed.
//!
//! The three are taken in turn, so that whatever the machine does meanwhile befalls them alike.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::{
    figures::{Figures, say},
    fleet::FleetProcess,
    limits, quantile,
    stage::{Stage, ids},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::Instant,
};

const ROUNDS: usize = 2_000;
const WARM_UP: usize = 200;
const BOUND_MS: f64 = 1.0;

#[tokio::main]
async fn main() {
    let stage = Stage::set(&[]).await;
    let [vm, bare] = ids(2, 11)[..] else { unreachable!() };
    let guests = [(vm, "well-behaved"), (bare, "well-behaved")];
    let fleet = FleetProcess::start(&stage.home.socket_dir(), &guests, &["--interval-ms", "3600000"]);
    stage.create(&[vm]).await;
    stage.online(1).await;

    let stream = UnixStream::connect(stage.home.socket(&bare.to_string())).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let greeting = lines.next_line().await.unwrap().unwrap();
    assert!(greeting.contains("handshake"));
    let mut database = stage.cluster.connect("infinibay").await;
    sqlx::query(
        "CREATE TABLE bench_row (id BIGSERIAL PRIMARY KEY, at TIMESTAMPTZ NOT NULL, words TEXT NOT NULL)",
    )
    .execute(&mut database)
    .await
    .unwrap();

    let (mut whole, mut socket, mut commit) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let through_api = stage.command(vm).await;

        let begun = Instant::now();
        let line = format!(
            "{{\"type\":\"SafeCommand\",\"id\":\"{round}\",\"command_type\":{{\"action\":\"OsInfo\"}},\"params\":null,\"timeout\":30}}\n"
        );
        writer.write_all(line.as_bytes()).await.unwrap();
        while !lines.next_line().await.unwrap().unwrap().contains("\"success\"") {}
        let on_socket = begun.elapsed();

        let begun = Instant::now();
        sqlx::query("INSERT INTO bench_row (at, words) VALUES (now(), $1)")
            .bind("a row as small as a command's")
            .execute(&mut database)
            .await
            .unwrap();
        let one_row = begun.elapsed();
        if round >= WARM_UP {
            whole.push(through_api);
            socket.push(on_socket);
            commit.push(one_row);
        }
    }
    let median = |times: &mut Vec<Duration>| quantile(times, 0.5);
    let (whole_ms, socket_ms, commit_ms) = (median(&mut whole), median(&mut socket), median(&mut commit));
    say(format!("p99 through the API: {:.2} ms", quantile(&mut whole, 0.99)));
    let mut figures = Figures::of("command");
    figures.at_most(
        "command_overhead",
        whole_ms - socket_ms - commit_ms,
        "ms",
        BOUND_MS,
        format!("medians of {ROUNDS}: API {whole_ms:.3} ms, bare socket {socket_ms:.3} ms, one-row commit {commit_ms:.3} ms; {}", limits()),
    );
    fleet.end();
    figures.tell();
}
