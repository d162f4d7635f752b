//! Commands: several at once, each answered, within bounds.

#[path = "support/host.rs"]
mod host;

use agent_protocol::CommandType;
use host::{Agent, code};
use serde_json::json;

#[test]
fn two_commands_run_at_the_same_time() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    // Each waits for the other's trace: one after the other they would never end.
    let dir = agent.dir.path().display();
    let line = |mine: &str, other: &str| {
        format!("cd '{dir}' && touch {mine} && while ! [ -e {other} ]; do sleep 0.05; done; echo {mine}")
    };
    let both = [("1", line("a", "b")), ("2", line("b", "a"))].map(|(id, line)| {
        json!({"type": "UnsafeCommand", "id": id, "raw_command": line, "timeout": 20}).to_string() + "\n"
    });
    // In one write: no second command may be lost behind the first.
    host.send_bytes(both.concat().as_bytes());
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(host.find("two answers", |m| match m {
            agent_protocol::GuestMessage::Answer(a) => Some((a.id, a.success, a.stdout)),
            _ => None,
        }));
    }
    seen.sort();
    assert_eq!(seen, [("1".into(), true, "a\n".into()), ("2".into(), true, "b\n".into())]);
}

#[test]
fn one_too_many_is_told_so_at_once() {
    let agent = Agent::on_socket(&[("INFINIBAY_MAX_COMMANDS", "1")]);
    let mut host = agent.host();
    let gate = agent.dir.path().join("gate");
    host.shell("1", &format!("while ! [ -e '{}' ]; do sleep 0.05; done", gate.display()), 25);
    host.shell("2", "true", 5);
    let refused = host.answer("2");
    assert_eq!(code(&refused), "TOO_MANY_COMMANDS");
    assert!(refused.error.unwrap().message.unwrap().contains("too many commands"));
    std::fs::write(gate, "").unwrap();
    assert!(host.answer("1").success);
    // The place is free a moment after the answer.
    host::until("there is room again", || {
        host.shell("3", "true", 5);
        host.answer("3").success
    });
}

#[test]
fn every_command_is_answered() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    let safe = |id: &str, action: serde_json::Value| json!({"type": "SafeCommand", "id": id, "command_type": action, "params": null, "timeout": 20});
    let table = [
        ("u1", safe("u1", json!({"action": "Fly"})), "UNSUPPORTED_ACTION"),
        ("u3", safe("u3", json!({"action": "CheckWindowsUpdates"})), "UNSUPPORTED_ACTION"),
        ("u4", safe("u4", json!({"action": "DiskCleanup", "drive": "/"})), "UNSUPPORTED_ACTION"),
        ("h1", safe("h1", json!({"action": "RunHealthCheck", "check_name": "luck"})), "NO_SUCH_CHECK"),
        ("u2", json!({"type": "Dance", "id": "u2"}), "UNKNOWN_COMMAND"),
        ("b1", safe("b1", json!({"action": "ServiceControl"})), "BAD_COMMAND"),
        ("b2", json!({"type": "UnsafeCommand", "id": "b2"}), "BAD_COMMAND"),
        ("7", json!({"type": "UnsafeCommand", "id": 7, "raw_command": "true"}), "BAD_COMMAND"),
        ("p1", safe("p1", json!({"action": "PackageInstall", "package": "-y"})), "BAD_PARAMETERS"),
        ("p2", safe("p2", json!({"action": "ProcessKill", "pid": 1})), "BAD_PARAMETERS"),
        ("p3", safe("p3", json!({"action": "ProcessKill", "pid": agent.pid(), "force": true})), "REFUSED"),
        (
            "p4",
            json!({"type": "UnsafeCommand", "id": "p4", "raw_command": "x", "shell": "perl"}),
            "BAD_PARAMETERS",
        ),
    ];
    for (id, message, expected) in table {
        host.send(&message);
        assert_eq!(code(&host.answer(id)), expected, "{message}");
    }
    host.send(&safe("ok", json!({"action": "OsInfo"})));
    let answer = host.answer("ok");
    assert!(answer.success && answer.command_type == Some(CommandType::Safe), "{answer:?}");
    assert_eq!(answer.data.unwrap()["architecture"], std::env::consts::ARCH);
    host.send(&safe("disk", json!({"action": "CheckDiskSpace", "warning_threshold": 1.0})));
    assert!(host.answer("disk").data.unwrap()["disks"].is_array());
    host.send(&safe("health", json!({"action": "RunAllHealthChecks"})));
    let checks = host.answer("health").data.unwrap()["checks"].take();
    assert_eq!(checks.as_array().map(Vec::len), Some(4), "{checks}");
    host.send(&safe("top", json!({"action": "ProcessTop", "limit": 2})));
    assert_eq!(host.answer("top").data.unwrap()["processes"].as_array().unwrap().len(), 2);
}

#[test]
fn failure_keeps_output_and_status() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    host.send(&json!({
        "type": "UnsafeCommand", "id": "1", "raw_command": "pwd; echo $X; echo bad >&2; exit 3",
        "shell": "sh", "timeout": 10, "working_dir": "/proc", "env_vars": {"X": "it's"},
    }));
    let answer = host.answer("1");
    assert_eq!((code(&answer), answer.exit_code), ("COMMAND_FAILED", Some(3)));
    assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("/proc\nit's\n", "bad\n"));
    assert!(answer.execution_time_ms.is_some() && answer.command_type == Some(CommandType::Unsafe));
}
