//! Clients of Socket.IO that ask for a VM that talks a lot, and then read nothing: over a WebSocket, over one
//! that polled first, and by polling. Each is cut off within its bounds, what waited for it took little, and
//! whoever reads hears on.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use infinibay::vm::VmId;
use serde_json::json;
use support::{
    daemon::Daemon,
    guest::{FakeGuest, handshake_line, metrics_line},
    node::Node,
    raw::address,
    scrape::Scrape,
    sockets::talkative,
    trial::Trial,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

const SOON: Duration = Duration::from_secs(20);
/// Ten seconds for what is on its way, and what a busy machine may add; as many packets as may wait are
/// there sooner.
const CUT_OFF: Duration = Duration::from_secs(13);
/// Of a reading, bytes; hundreds of them come in a second.
const READING: usize = 20_000;
/// What all of that may take in memory beside what the daemon took before: 128 packets each, and their ways.
const GROWTH: u64 = 48 << 20;

/// Readings as fast as they may come.
async fn loud(mut stream: tokio::net::UnixStream) -> std::io::Result<()> {
    stream.write_all(handshake_line(1).as_bytes()).await?;
    let line = metrics_line(5.0).replace("init", &"x".repeat(READING));
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        tick.tick().await;
        stream.write_all(line.as_bytes()).await?;
    }
}

/// A connection with next to no room for what was not read yet.
async fn narrow(daemon: &Daemon) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address(daemon)).await.unwrap()
}

/// A WebSocket, of a connection of this id where it has one.
async fn websocket(daemon: &Daemon, sid: Option<&str>) -> WebSocketStream<TcpStream> {
    let more = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket{more}", address(daemon));
    tokio_tungstenite::client_async(url, narrow(daemon).await).await.unwrap().0
}

async fn says(stream: &mut WebSocketStream<TcpStream>, text: impl Into<String>) {
    stream.send(Message::text(text.into())).await.unwrap();
}

/// The first message that begins like this.
async fn hears(stream: &mut WebSocketStream<TcpStream>, beginning: &str) -> String {
    let heard = async {
        loop {
            match stream.next().await.unwrap().unwrap() {
                Message::Text(text) if text.starts_with(beginning) => return text.to_string(),
                _ => {}
            }
        }
    };
    tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("nobody said {beginning}"))
}

/// One that polls, as far as it does.
struct Polls {
    http: reqwest::Client,
    url: String,
}

impl Polls {
    async fn open(daemon: &Daemon) -> (Self, String) {
        let http = reqwest::Client::new();
        let url = format!("{}/socket.io/?EIO=4&transport=polling", daemon.url);
        let opened = http.get(&url).send().await.unwrap().text().await.unwrap();
        let sid = opened.split('"').nth(3).unwrap().to_owned();
        (Self { http, url: format!("{url}&sid={sid}") }, sid)
    }

    async fn says(&self, text: String) {
        let said = self.http.post(&self.url).body(text).send().await.unwrap();
        assert_eq!(said.status(), 200);
    }

    /// Polls until somebody says this.
    async fn hears(&self, beginning: &str) {
        let since = Instant::now();
        loop {
            let text = self.http.get(&self.url).send().await.unwrap().text().await.unwrap();
            if text.split('\u{1e}').any(|packet| packet.starts_with(beginning)) {
                return;
            }
            assert!(since.elapsed() < SOON, "nobody said {beginning}");
        }
    }
}

async fn scrape(trial: &Trial) -> Scrape {
    let asked = reqwest::Client::new().get(format!("{}/metrics", trial.daemon.url)).bearer_auth(&trial.token);
    Scrape::read(&asked.send().await.unwrap().text().await.unwrap())
}

fn sockets(page: &Scrape) -> usize {
    count(page.value("infinibay_socketio_sockets", &[]).unwrap_or_default())
}

/// Of a few things.
fn count(told: f64) -> usize {
    (0..100).find(|&n: &u32| f64::from(n) >= told).unwrap() as usize
}

fn cut_off(page: &Scrape) -> usize {
    let reasons = ["waiting", "unread"];
    let of = |reason| page.value("infinibay_socketio_cut_total", &[("reason", reason)]).unwrap_or_default();
    count(reasons.into_iter().map(of).sum())
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

on_both! {
    async fn whoever_does_not_read_is_cut_off_and_the_others_hear_on(db: TestDatabase) {
        let env = [("INFINIBAY__AGENTS__MAX_FRAMES_PER_SECOND", "1000")];
        let trial = Trial::start_with(&db, &env).await;
        let id = VmId::generate();
        let _guest = FakeGuest::listen(&trial.home.socket_dir(), id, |stream, _| loud(stream));
        let quiet = VmId::generate();
        let _quiet = FakeGuest::listen(&trial.home.socket_dir(), quiet, talkative);
        let mut made = Vec::new();
        for (id, name) in [(id, "loud"), (quiet, "quiet")] {
            let mut request = trial.request(name);
            request["id"] = json!(id.to_string());
            let (vm, operation) = trial.client.create(request).await;
            trial.client.succeeded(&operation, SOON).await;
            made.push(vm);
        }
        let (vm, quiet) = (&made[0], &made[1]);
        let mut node = Node::start("socketio.mjs");
        let open = json!({
            "do": "open", "socket": "witness", "url": trial.daemon.url,
            "auth": { "token": trial.token }, "transports": ["websocket"],
        });
        node.tell(open).await;
        node.hears("witness", "connect").await;
        assert_eq!(node.ask("witness", "subscribe:vm", json!(quiet)).await["ok"], true);
        // As many as the bus holds: from here on it takes no more.
        let since = Instant::now();
        while scrape(&trial).await.value("infinibay_readings_total", &[]).unwrap_or_default() < 1100.0 {
            assert!(since.elapsed() < SOON, "the guest is not loud enough");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let before = resident(trial.daemon.pid());

        let introduction = format!("40{}", json!({ "token": trial.token }));
        let subscription = format!("421{}", json!(["subscribe:vm", vm]));
        let mut direct = websocket(&trial.daemon, None).await;
        hears(&mut direct, "0").await;
        let (upgraded, sid) = Polls::open(&trial.daemon).await;
        upgraded.says(introduction.clone()).await;
        upgraded.hears("40").await;
        let mut over = websocket(&trial.daemon, Some(&sid)).await;
        says(&mut over, "2probe").await;
        hears(&mut over, "3probe").await;
        says(&mut over, "5").await;
        says(&mut direct, introduction.clone()).await;
        hears(&mut direct, "40").await;
        let (polls, _) = Polls::open(&trial.daemon).await;
        polls.says(introduction).await;
        polls.hears("40").await;
        assert_eq!(sockets(&scrape(&trial).await), 4);
        says(&mut over, subscription.clone()).await;
        hears(&mut over, "431").await;
        says(&mut direct, subscription.clone()).await;
        hears(&mut direct, "431").await;
        polls.says(subscription).await;
        polls.hears("431").await;

        // From now on none of them reads.
        let since = Instant::now();
        loop {
            let page = scrape(&trial).await;
            let growth = resident(trial.daemon.pid()).saturating_sub(before);
            assert!(growth < GROWTH, "the daemon grew by {} MiB", growth >> 20);
            if sockets(&page) == 1 {
                assert_eq!(cut_off(&page), 3);
                break;
            }
            assert!(since.elapsed() < CUT_OFF, "{} sockets are left", sockets(&page));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("cut off after {:?}", since.elapsed());
        // Their connections are gone as well: what was on its way, and the end.
        for stream in [&mut direct, &mut over] {
            let rest = async { while let Some(Ok(_)) = stream.next().await {} };
            tokio::time::timeout(SOON, rest).await.expect("a connection was left open");
        }
        assert_eq!(polls.http.get(&polls.url).send().await.unwrap().status(), 400);
        // And whoever reads heard all the time, and does so now.
        node.heard("witness", "metrics");
        for _ in 0..3 {
            node.hears("witness", "metrics").await;
        }
        assert!(node.heard("witness", "vm:error").is_empty(), "who reads is told of a loss");
    }
}
