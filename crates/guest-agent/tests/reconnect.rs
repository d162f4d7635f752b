//! The host end goes and comes back.

#[path = "support/host.rs"]
mod host;

use agent_protocol::GuestMessage;
use host::{Agent, terminal, until};

#[test]
fn an_answer_waits_for_the_host_behind_a_new_greeting() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    host.handshake();
    let done = agent.dir.path().join("done");
    let gate = agent.dir.path().join("gate");
    let (gate_text, done_text) = (gate.display(), done.display());
    host.shell(
        "1",
        &format!("while ! [ -e '{gate_text}' ]; do sleep 0.02; done; echo kept; touch '{done_text}'"),
        25,
    );
    // Only once the agent has read so far: what it did not read is gone with the host.
    host.shell("2", "true", 5);
    host.answer("2");
    drop(host);
    std::fs::write(gate, "").unwrap();
    until("the command has ended", || done.exists());

    let mut host = agent.host();
    assert!(matches!(host.next("the greeting"), GuestMessage::Handshake(_)), "no greeting first");
    assert_eq!(host.answer("1").stdout, "kept\n");
}

#[test]
fn a_message_torn_by_a_hang_up_is_sent_again_whole() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    host.handshake();
    host.shell("1", "head -c 250000 /dev/zero | tr '\\0' x", 20);
    // A socket holds less than this answer, so its end has not left the agent yet.
    host.read_until("the beginning of the answer", b"xxxxxxxx");
    drop(host);
    let answer = agent.host().answer("1");
    assert!(answer.success && answer.stdout.len() == 250_000, "{} bytes", answer.stdout.len());
}

#[test]
fn a_port_that_vanishes_is_waited_for() {
    let mut agent = Agent::without_port(&[]);
    for _ in 0..2 {
        let mut host = terminal(&agent.port());
        host.handshake();
        host.shell("1", "echo here", 5);
        assert_eq!(host.answer("1").stdout, "here\n");
        drop(host);
        std::fs::remove_file(agent.port()).unwrap();
        assert!(agent.is_running());
    }
}
