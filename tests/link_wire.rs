//! Every message of the channel, both ways, over a real socket: what a guest says reaches those it
//! is for, and what is said to it is what agents read.

mod support;

use std::io;

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    agents::{GuestFrame, Inbox, Links},
    config::AgentsConfig,
    vm::{
        CommandId, CommandOutcome, FirstBoot, GuestCommand, LinkCounters, OpenLink, SafeAction,
        UnsafeCommand, VmId,
    },
};
use serde_json::{Value, json};
use support::guest::{DEADLINE, FakeGuest, Received, eventually, now};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

/// Says `lines`, and answers each command as `answer` says.
async fn says(
    stream: UnixStream,
    received: Received,
    lines: String,
    answer: fn(&Value) -> Value,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    writer.write_all(lines.as_bytes()).await?;
    let mut incoming = BufReader::new(reader).lines();
    while let Some(line) = incoming.next_line().await? {
        let message: Value = serde_json::from_str(&line)?;
        received.lock().expect("received").push(message.clone());
        if message["id"].is_string() {
            writer.write_all(format!("{}\n", answer(&message)).as_bytes()).await?;
        }
    }
    Ok(())
}

/// A link to a guest that says something.
struct Channel {
    guest: FakeGuest,
    links: Links,
    inbox: Inbox,
    _dir: TempDir,
}

impl Channel {
    async fn to(lines: &[Value], answer: fn(&Value) -> Value) -> Self {
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Self::to_one_saying(lines, answer).await
    }

    /// The agent was heard when this is there.
    async fn to_one_saying(lines: String, answer: fn(&Value) -> Value) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let guest =
            FakeGuest::listen(dir.path(), VmId::generate(), move |s, r| says(s, r, lines.clone(), answer));
        let (links, inbox) = Links::new(AgentsConfig::default());
        links.open(guest.vm, guest.path.clone());
        let channel = Self { guest, links, inbox, _dir: dir };
        eventually("the agent is heard", || channel.open()?.last_message_at).await;
        channel
    }

    fn open(&self) -> Option<OpenLink> {
        self.links.observe(self.guest.vm).open().cloned()
    }

    /// The link, once so many frames are counted; nothing else may be.
    async fn after(&self, frames: u64) -> OpenLink {
        let open =
            eventually("the frames", || self.open().filter(|open| open.counters.frames == frames)).await;
        let LinkCounters { bytes, .. } = open.counters;
        assert_eq!(open.counters, LinkCounters { frames, bytes, ..LinkCounters::default() });
        open
    }

    async fn frame(&mut self) -> GuestFrame {
        let frame = tokio::time::timeout(DEADLINE, self.inbox.frames.recv()).await.expect("a frame in time");
        frame.expect("the links live")
    }

    async fn reading(&mut self) -> (DateTime<Utc>, Value) {
        let GuestFrame::Metrics { vm, timestamp, system, .. } = self.frame().await else {
            panic!("no reading")
        };
        assert_eq!(vm, self.guest.vm);
        (timestamp, serde_json::from_str(&system.text).expect("JSON"))
    }

    async fn run(&self, command: &GuestCommand) -> (CommandId, CommandOutcome) {
        let id = CommandId::generate();
        let outcome = self.links.execute(self.guest.vm, id, command, DEADLINE).await;
        (id, outcome.expect("it was sent"))
    }
}

fn no_answer(_: &Value) -> Value {
    Value::Null
}

fn ping() -> Value {
    json!({"type": "ping", "timestamp": now(), "sequence": 1})
}

fn metrics(timestamp: &str, system: &Value) -> Value {
    json!({"type": "metrics", "timestamp": timestamp, "data": {"system": system}})
}

fn shell(line: &str) -> GuestCommand {
    GuestCommand::Unsafe(UnsafeCommand {
        raw_command: line.to_owned(),
        shell: None,
        working_dir: None,
        env_vars: [].into(),
    })
}

#[tokio::test]
async fn metrics_with_nine_digits_and_fields_nobody_knows() {
    let system = json!({"cpu": {"usage_percent": 1.5, "new": [1]}, "memory": {"used_kb": 7}, "later": {}});
    let mut channel =
        Channel::to(&[metrics("2026-01-02T03:04:05.123456789+00:00", &system)], no_answer).await;
    let (timestamp, reading) = channel.reading().await;
    assert_eq!(timestamp.to_rfc3339(), "2026-01-02T03:04:05.123456789+00:00");
    assert_eq!(reading, system);
    let skew = channel.after(1).await.skew.expect("measured");
    assert!((Utc::now() + skew - timestamp).abs() < TimeDelta::seconds(60), "{skew}");
}

#[tokio::test]
async fn metrics_batch() {
    let messages: Vec<Value> =
        (0..3).map(|n| metrics(&format!("2026-01-01T00:00:0{n}Z"), &json!({"cpu": n}))).collect();
    let mut channel = Channel::to(&[json!({"type": "metrics_batch", "messages": messages})], no_answer).await;
    for n in 0..3 {
        let (timestamp, reading) = channel.reading().await;
        assert_eq!((timestamp.timestamp() % 60, reading), (n, json!({"cpu": n})));
    }
    channel.after(1).await;
}

#[tokio::test]
async fn a_bare_answer() {
    let channel = Channel::to(&[ping()], |command| {
        json!({
            "id": command["id"], "success": false, "exit_code": 3, "stdout": "out", "stderr": "err",
            "execution_time_ms": 12, "command_type": "unsafe", "data": null,
        })
    })
    .await;
    let (_, outcome) = channel.run(&shell("false")).await;
    let expected = CommandOutcome::Answered {
        success: false,
        exit_code: Some(3),
        stdout: "out".to_owned(),
        stderr: "err".to_owned(),
        data: None,
        execution_ms: Some(12),
    };
    assert_eq!(outcome, expected);
    channel.after(2).await;
}

#[tokio::test]
async fn a_response_with_an_error() {
    let channel = Channel::to(&[ping()], |command| {
        json!({
            "type": "response", "timestamp": now(), "id": command["id"], "success": false, "exit_code": null,
            "stdout": "", "stderr": "", "execution_time_ms": 1, "command_type": "safe", "data": {"n": 1},
            "error": {"code": "NOT_FOUND", "message": "no such service", "details": {"service": "x"}},
        })
    })
    .await;
    let (_, outcome) = channel.run(&GuestCommand::Safe(SafeAction::ServiceList)).await;
    let CommandOutcome::Answered { success: false, exit_code: None, stderr, data, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((stderr.as_str(), data), ("NOT_FOUND: no such service", Some(json!({"n": 1}))));
    assert!(channel.after(2).await.skew.is_some(), "it carries the guest's clock");
}

#[tokio::test]
async fn an_error() {
    let error = json!({
        "type": "error", "timestamp": "2026-01-01T00:00:00Z", "error": "disk full",
        "details": {"component": "collector", "error_code": "E7", "message": "no space"},
    });
    let mut channel = Channel::to(std::slice::from_ref(&error), no_answer).await;
    let GuestFrame::Error { vm, timestamp, error: words, details, .. } = channel.frame().await else {
        panic!("no error")
    };
    assert_eq!((vm, words.as_str(), &details), (channel.guest.vm, "disk full", &error["details"]));
    assert_eq!(timestamp.map(|at| at.timestamp()), Some(1_767_225_600));
    channel.after(1).await;
}

#[tokio::test]
async fn an_error_report() {
    let report = json!({
        "type": "error_report", "error_type": "pipe broken", "severity": "Recoverable",
        "windows_error_code": 109, "retry_attempt": 2, "max_retries": 5,
        "recovery_suggestion": "restart", "timestamp": "2026-01-01T00:00:00Z", "vm_id": "whatever",
    });
    let mut channel = Channel::to(&[report], no_answer).await;
    let GuestFrame::Error { error, details, timestamp, .. } = channel.frame().await else {
        panic!("no error")
    };
    assert_eq!((error.as_str(), &details["severity"]), ("pipe broken", &json!("Recoverable")));
    assert_eq!((&details["windows_error_code"], &details["retry_attempt"]), (&json!(109), &json!(2)));
    assert!(timestamp.is_some());
    channel.after(1).await;
}

#[tokio::test]
async fn a_handshake() {
    let handshake = json!({
        "type": "handshake", "timestamp": now(), "vm_id": "another VM's", "version": "0.1.1",
        "platform": "windows", "capabilities": ["metrics", "safe_commands", "streaming"],
        "max_concurrent_commands": 3, "first_boot": {"finished": true, "errors": ["vim: not found"]},
    });
    let channel = Channel::to(&[handshake], no_answer).await;
    let open = channel.after(1).await;
    assert_eq!((open.version.as_deref(), open.platform.as_deref()), (Some("0.1.1"), Some("windows")));
    assert_eq!(open.capabilities, ["metrics", "safe_commands", "streaming"]);
    assert_eq!(open.first_boot, FirstBoot::Finished { errors: vec!["vim: not found".to_owned()] });
    assert_eq!(channel.links.concurrency(channel.guest.vm), 3);
    assert_eq!(channel.links.observe_all().len(), 1, "the socket names the VM, not the message");
}

#[tokio::test]
async fn a_connection_status_in_each_of_its_states() {
    for state in [
        "connected",
        "connected_pending_ips",
        "disconnected",
        "retrying",
        "monitoring",
        "circuit_breaker_open",
        "degraded",
        "keep_alive_timeout",
    ] {
        let status = json!({
            "type": "connection_status", "timestamp": now(), "vm_id": "x", "state": state, "details": {"n": 1},
        });
        let channel = Channel::to(&[status], no_answer).await;
        let open = channel.after(1).await;
        assert_eq!(open.reported_state.as_deref(), Some(state));
        assert!(open.skew.is_some());
    }
}

#[tokio::test]
async fn a_keep_alive_and_its_answer() {
    let sent = Utc::now().timestamp();
    let keep_alive = json!({"type": "keep_alive", "sequence_number": 4_294_967_295_u32, "timestamp": sent});
    let channel = Channel::to(&[keep_alive], no_answer).await;
    let answer =
        eventually("it is answered", || channel.guest.received_of("keep_alive_response").pop()).await;
    let fields: Vec<&String> = answer.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["sequence_number", "timestamp", "type"]);
    assert_eq!(answer["sequence_number"], json!(4_294_967_295_u32));
    let at = answer["timestamp"].as_str().expect("text");
    let at = DateTime::parse_from_rfc3339(at).expect("RFC 3339").timestamp();
    assert!((at - sent).abs() < 60, "our clock: {at}");
    let skew = channel.after(1).await.skew.expect("whole seconds are a clock, too");
    assert!(skew.abs() < TimeDelta::seconds(60), "{skew}");
}

#[tokio::test]
async fn a_ping() {
    let channel = Channel::to(&[ping()], |command| json!({"id": command["id"], "success": true})).await;
    let open = channel.after(1).await;
    assert!(open.last_message_at.is_some());
    channel.run(&shell("true")).await;
    let received = channel.guest.received.lock().expect("received").clone();
    assert_eq!((received.len(), &received[0]["type"]), (1, &json!("UnsafeCommand")), "it wants no answer");
}

#[tokio::test]
async fn a_fragment_with_the_whole_message_behind_it() {
    let whole = r#"{"type":"metrics","timestamp":"2026-01-01T00:00:00Z","data":{"system":{"cpu":42}}}"#;
    let lines = format!("{{\"type\":\"metrics\",\"timestamp\":\"20{whole}\n{}\n", ping());
    let mut channel = Channel::to_one_saying(lines, no_answer).await;
    assert_eq!(channel.reading().await.1, json!({"cpu": 42}));
    let counters = eventually("both count", || {
        channel.open().map(|open| open.counters).filter(|counters| counters.frames == 2)
    })
    .await;
    assert_eq!(
        counters,
        LinkCounters { malformed: 1, frames: 2, bytes: counters.bytes, ..LinkCounters::default() }
    );
}

#[tokio::test]
async fn a_safe_command_has_its_parameters_beside_its_action() {
    let channel = Channel::to(&[ping()], |command| json!({"id": command["id"], "success": true})).await;
    let action = SafeAction::ProcessTop { limit: Some(5), sort_by: None };
    let (id, outcome) = channel.run(&GuestCommand::Safe(action)).await;
    assert!(matches!(outcome, CommandOutcome::Answered { success: true, .. }), "{outcome:?}");
    let sent = channel.guest.received_of("SafeCommand");
    let expected = json!({
        "type": "SafeCommand", "id": id.to_string(), "command_type": {"action": "ProcessTop", "limit": 5},
        "params": null, "timeout": DEADLINE.as_secs(),
    });
    assert_eq!(sent, [expected]);
}

#[tokio::test]
async fn an_unsafe_command_has_its_timeout_in_seconds() {
    let channel = Channel::to(&[ping()], |command| json!({"id": command["id"], "success": true})).await;
    let (plain, _) = channel.run(&shell("uptime")).await;
    let full = GuestCommand::Unsafe(UnsafeCommand {
        raw_command: "echo \"ä\"\nls".to_owned(),
        shell: Some("/bin/bash".to_owned()),
        working_dir: Some("/srv".to_owned()),
        env_vars: [("A".to_owned(), "b".to_owned())].into(),
    });
    let (rich, _) = channel.run(&full).await;
    let seconds = DEADLINE.as_secs();
    assert_eq!(
        channel.guest.received_of("UnsafeCommand"),
        [
            json!({"type": "UnsafeCommand", "id": plain.to_string(), "raw_command": "uptime", "timeout": seconds}),
            json!({
                "type": "UnsafeCommand", "id": rich.to_string(), "raw_command": "echo \"ä\"\nls",
                "shell": "/bin/bash", "timeout": seconds, "working_dir": "/srv", "env_vars": {"A": "b"},
            }),
        ]
    );
}

#[tokio::test]
async fn a_request_for_a_reading() {
    let channel = Channel::to(&[ping()], no_answer).await;
    channel.links.request_metrics(channel.guest.vm);
    let request = eventually("it is asked", || channel.guest.received_of("Metrics").pop()).await;
    assert_eq!(request, json!({"type": "Metrics"}));
}
