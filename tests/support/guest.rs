//! Fake guests: a socket as QEMU offers it, with an agent of one's choice behind it.
//!
//! Like QEMU's, the socket serves one client at a time; the next one's connection stands, unheard,
//! until the first has left.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use infinibay::vm::VmId;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
};

/// How long a story waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `seen` gives something; fails, naming `what`, when it does not in time.
pub(crate) async fn eventually<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = seen() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a guest was sent, line by line, over all connections.
pub(crate) type Received = Arc<Mutex<Vec<Value>>>;

type Served = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A guest's socket and whoever speaks on it. Gone, with its socket, when dropped.
pub(crate) struct FakeGuest {
    pub(crate) vm: VmId,
    pub(crate) path: PathBuf,
    pub(crate) received: Received,
    connections: Arc<Mutex<u32>>,
    task: JoinHandle<()>,
}

impl Drop for FakeGuest {
    fn drop(&mut self) {
        self.task.abort();
        // It may have been removed by the story.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl FakeGuest {
    /// Listens in `dir` as `vm`, and lets `behaviour` serve each client.
    pub(crate) fn listen<F>(
        dir: &Path,
        vm: VmId,
        behaviour: impl Fn(UnixStream, Received) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let path = dir.join(vm.socket_name());
        let listener = UnixListener::bind(&path).expect("bind the fake guest's socket");
        let received = Received::default();
        let connections = Arc::new(Mutex::new(0));
        let task = tokio::spawn({
            let (received, connections) = (Arc::clone(&received), Arc::clone(&connections));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    *connections.lock().expect("connections") += 1;
                    let served: Served = Box::pin(behaviour(stream, Arc::clone(&received)));
                    // A client that leaves in the middle is part of many stories.
                    let _ = served.await;
                }
            }
        });
        Self { vm, path, received, connections, task }
    }

    /// How many clients came so far.
    pub(crate) fn connections(&self) -> u32 {
        *self.connections.lock().expect("connections")
    }

    /// The messages of this type that came so far.
    pub(crate) fn received_of(&self, kind: &str) -> Vec<Value> {
        let received = self.received.lock().expect("received");
        received.iter().filter(|message| message["type"] == kind).cloned().collect()
    }
}

pub(crate) fn now() -> String {
    chrono::Utc::now().to_rfc3339()
}

/// A valid reading, as one line.
pub(crate) fn metrics_line(cpu: f64) -> String {
    let system = json!({
        "cpu": {"usage_percent": cpu, "cores_usage": [cpu], "temperature": null},
        "memory": {"total_kb": 1_000_000, "used_kb": 400_000, "available_kb": 600_000},
        "disk": {"usage_stats": [], "io_stats": {}},
        "network": {"interfaces": []},
        "processes": [{"id": 1, "name": "init", "command_line": "mysql -psecret --password=hunter2"}],
    });
    let frame = json!({"type": "metrics", "timestamp": now(), "data": {"system": system}});
    format!("{frame}\n")
}

/// A handshake that announces `concurrent` commands at once, as one line.
pub(crate) fn handshake_line(concurrent: u32) -> String {
    let frame = json!({
        "type": "handshake", "timestamp": now(), "vm_id": "whatever", "version": "1.2.3",
        "platform": "linux", "capabilities": ["metrics", "safe_commands", "unsafe_commands"],
        "max_concurrent_commands": concurrent, "first_boot": {"finished": true, "errors": []},
    });
    format!("{frame}\n")
}

/// A bare answer, as agents in the field give it, as one line.
pub(crate) fn answer_line(id: &Value, stdout: &str) -> String {
    let answer = json!({
        "id": id, "success": true, "exit_code": 0, "stdout": stdout, "stderr": "",
        "execution_time_ms": 1, "command_type": "unsafe", "data": null,
    });
    format!("{answer}\n")
}

/// How long the command wants to take: `sleep MS`.
fn wanted_delay(command: &Value) -> Duration {
    let millis = command["raw_command"].as_str().and_then(|raw| raw.strip_prefix("sleep "));
    Duration::from_millis(millis.and_then(|ms| ms.parse().ok()).unwrap_or(0))
}

/// An agent as ours: greets, sends a reading, reads line by line, answers each command with its
/// own line as output (after `sleep MS`), up to `concurrent` at once. Says `opening` after its
/// greeting.
pub(crate) async fn well_behaved(
    stream: UnixStream,
    received: Received,
    concurrent: u32,
    opening: Vec<u8>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let (lines, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let write = async move {
        while let Some(line) = outgoing.recv().await {
            writer.write_all(&line).await?;
        }
        io::Result::Ok(())
    };
    let read = async move {
        let send = |line: Vec<u8>| lines.send(line).map_err(|_| io::ErrorKind::BrokenPipe);
        send(handshake_line(concurrent).into_bytes())?;
        send(metrics_line(5.0).into_bytes())?;
        send(opening)?;
        let mut incoming = BufReader::new(reader).lines();
        while let Some(line) = incoming.next_line().await? {
            let message: Value = serde_json::from_str(&line)?;
            received.lock().expect("received").push(message.clone());
            if message["type"] == "Metrics" {
                send(metrics_line(6.0).into_bytes())?;
            } else if message["id"].is_string() {
                let lines = lines.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wanted_delay(&message)).await;
                    // The connection may be gone by now.
                    let _ = lines.send(answer_line(&message["id"], &line).into_bytes());
                });
            }
        }
        io::Result::Ok(())
    };
    tokio::select! { done = read => done, done = write => done }
}

/// The agent in the field: no handshake; polls every 500 ms with a fresh buffer and keeps the
/// first line only; runs one command after another, metrics waiting meanwhile; does not answer
/// actions it does not know; sends `opening` after its first reading.
pub(crate) async fn quirky(mut stream: UnixStream, received: Received, opening: Vec<u8>) -> io::Result<()> {
    stream.write_all(metrics_line(1.0).as_bytes()).await?;
    stream.write_all(metrics_line(1.5).as_bytes()).await?;
    stream.write_all(&opening).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut buffer = vec![0; 65_536];
        let read = match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let first = buffer[..read].split(|&b| b == b'\n').next().unwrap_or_default();
        let Ok(message) = serde_json::from_slice::<Value>(first) else { continue };
        received.lock().expect("received").push(message.clone());
        let known = message["command_type"]["action"] != "ServiceList";
        if message["type"] == "Metrics" {
            stream.write_all(metrics_line(2.0).as_bytes()).await?;
        } else if message["id"].is_string() && known {
            tokio::time::sleep(wanted_delay(&message)).await;
            stream.write_all(answer_line(&message["id"], &message.to_string()).as_bytes()).await?;
        }
    }
}

/// Greets and then never reads.
pub(crate) async fn deaf(mut stream: UnixStream, _received: Received) -> io::Result<()> {
    stream.write_all(handshake_line(4).as_bytes()).await?;
    std::future::pending().await
}

/// Greets, and hangs up upon the first command.
pub(crate) async fn hangs_up(mut stream: UnixStream, _received: Received) -> io::Result<()> {
    stream.write_all(handshake_line(4).as_bytes()).await?;
    stream.read_u8().await?;
    Ok(())
}

/// Greets, and answers the first command with what `answer` makes of it, after `delay`.
async fn answers_once(
    stream: UnixStream,
    received: Received,
    delay: Duration,
    answer: impl FnOnce(&Value) -> Value,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(handshake_line(4).as_bytes()).await?;
    let mut incoming = BufReader::new(reader).lines();
    while let Some(line) = incoming.next_line().await? {
        let message: Value = serde_json::from_str(&line)?;
        received.lock().expect("received").push(message.clone());
        if message["id"].is_string() {
            tokio::time::sleep(delay).await;
            writer.write_all(format!("{}\n", answer(&message)).as_bytes()).await?;
            break;
        }
    }
    std::future::pending().await
}

/// An agent whose first command does not listen when its time (1 s) is over: it takes two seconds
/// more until the agent has ended it and says so.
pub(crate) async fn ends_commands(stream: UnixStream, received: Received) -> io::Result<()> {
    answers_once(stream, received, Duration::from_secs(3), |command| {
        json!({
            "type": "response", "id": command["id"], "success": false, "exit_code": null, "stdout": "half",
            "stderr": "", "execution_time_ms": 3000, "command_type": "unsafe",
            "data": {"timed_out": true, "signal": 9},
            "error": {"code": "TIMEOUT", "message": "ended after 1 s: its time was over"},
            "timestamp": now(),
        })
    })
    .await
}

/// Packages of [`lists_packages`]: together more than 256 KiB.
pub(crate) const LONG_LIST: usize = 6000;

/// An agent in a system with many packages.
pub(crate) async fn lists_packages(stream: UnixStream, received: Received) -> io::Result<()> {
    answers_once(stream, received, Duration::ZERO, |command| {
        let packages: Vec<_> = (0..LONG_LIST)
            .map(|n| json!({"name": format!("package-{n}"), "version": "1:2.36-9+deb12u4", "architecture": "amd64"}))
            .collect();
        json!({
            "type": "response", "id": command["id"], "success": true, "exit_code": null, "stdout": "",
            "stderr": "", "execution_time_ms": 1, "command_type": "safe",
            "data": {"packages": packages, "truncated": false}, "error": null, "timestamp": now(),
        })
    })
    .await
}

/// Greets, and writes `flood` for ever, as fast as it is read; commands are answered in between.
pub(crate) async fn flooding(stream: UnixStream, received: Received, flood: Vec<u8>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(handshake_line(1).as_bytes()).await?;
    let (answers, mut due) = mpsc::unbounded_channel::<String>();
    let read = async move {
        let mut incoming = BufReader::new(reader).lines();
        while let Some(line) = incoming.next_line().await? {
            let message: Value = serde_json::from_str(&line)?;
            received.lock().expect("received").push(message.clone());
            answers.send(answer_line(&message["id"], &line)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        io::Result::Ok(())
    };
    let write = async move {
        loop {
            while let Ok(answer) = due.try_recv() {
                writer.write_all(answer.as_bytes()).await?;
            }
            writer.write_all(&flood).await?;
        }
    };
    tokio::select! { done = read => done, done = write => done }
}
