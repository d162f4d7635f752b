//! Whatever comes from the host or from a command, the agent stays small and in step.

#[path = "support/host.rs"]
mod host;

use agent_protocol::MAX_FRAME_BYTES;
use host::{Agent, code};
use serde_json::json;

/// KiB; a debug build is larger than what is shipped, whose size has a story of its own in the
/// workspace (`tests/agent_size.rs`).
const MAX_RESIDENT_KB: u64 = 24 << 10;

#[test]
fn rubbish_is_survived_and_the_next_command_answered() {
    let mut agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    let mut rubbish = vec![b'x'; MAX_FRAME_BYTES + 100];
    rubbish.extend(b"\n\n{\"type\":\n[[[[\n\"\"\n42\n");
    rubbish.extend(128..=255);
    rubbish.push(b'\n');
    rubbish.extend(vec![b'['; 200_000]);
    rubbish.push(b'\n');
    for _ in 0..2 {
        host.send_bytes(&rubbish);
    }
    host.shell("1", "echo alive", 5);
    assert_eq!(host.answer("1").stdout, "alive\n");
    assert!(agent.is_running());
    assert!(agent.resident_kb() < MAX_RESIDENT_KB, "{} KiB", agent.resident_kb());
}

#[test]
fn output_is_bounded_and_says_so() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    // Each of these bytes takes six in JSON, so even what is kept would exceed a
    // frame, and a longer frame fails the reader.
    host.shell("1", "head -c 3000000 /dev/zero | tr '\\0' '\\001'; echo end >&2", 25);
    let answer = host.answer("1");
    assert!(answer.success && answer.stderr == "end\n", "{:.200}", answer.stderr);
    assert!(answer.stdout.ends_with("[output truncated: 3000000 bytes in all]"));
    let data = answer.data.unwrap();
    assert_eq!((&data["stdout_bytes"], &data["stdout_truncated"]), (&json!(3_000_000), &json!(true)));
    assert_eq!(data["stderr_truncated"], false);
}

#[test]
fn a_host_that_does_not_read_is_not_served_for_ever() {
    let agent = Agent::on_socket(&[("INFINIBAY_MAX_COMMANDS", "2")]);
    let mut host = agent.host();
    host.handshake();
    // Far more refusals than the agent keeps: it must stop reading before it is full.
    let line =
        json!({"type": "UnsafeCommand", "id": "x".repeat(200), "raw_command": "  "}).to_string() + "\n";
    let mut rest = line.as_bytes();
    let (mut sent, mut stalled) = (0, 0);
    while stalled < 20 {
        match host.try_send(rest) {
            Ok(count) => {
                rest = &rest[count..];
                stalled = 0;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                stalled += 1;
                host::breathe();
            }
            Err(e) => panic!("{e}"),
        }
        if rest.is_empty() {
            rest = line.as_bytes();
            sent += 1;
        }
        assert!(sent < 200_000, "the agent reads on and on");
    }
    assert!(agent.resident_kb() < MAX_RESIDENT_KB, "{} KiB", agent.resident_kb());
    assert!(sent > 64);
    for _ in 0..sent {
        let answer = host.answer(&"x".repeat(200));
        assert!(["BAD_PARAMETERS", "TOO_MANY_COMMANDS"].contains(&code(&answer)), "{answer:?}");
    }
}
