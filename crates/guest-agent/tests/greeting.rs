//! What a host hears without asking: a greeting, readings, signs of life.

#[path = "support/host.rs"]
mod host;

use agent_protocol::{GuestMessage, Metrics};
use host::{Agent, Host};
use serde_json::{Value, json};

const QUICK: [(&str, &str); 2] =
    [("INFINIBAY_METRICS_INTERVAL", "1"), ("INFINIBAY_KEEP_ALIVE_INTERVAL", "1")];

fn metrics(host: &mut Host) -> Metrics {
    host.find("a reading", |m| if let GuestMessage::Metrics(m) = m { Some(m) } else { None })
}

fn listens_to(host: &mut Host) {
    let GuestMessage::Handshake(hello) = host.next("the greeting") else { panic!("no greeting first") };
    assert_eq!(hello.vm_id.as_deref(), Some("story"));
    assert_eq!((hello.platform.as_deref(), hello.max_concurrent_commands), (Some("linux"), Some(4)));
    for capability in ["metrics", "safe_commands", "unsafe_commands", "concurrent_commands", "first_boot"] {
        assert!(hello.capabilities.iter().any(|c| c == capability), "{capability}: {hello:?}");
    }
    assert!(hello.first_boot.expect("a report").finished);
    let actions = hello.actions.expect("its actions");
    assert!(actions.iter().any(|a| a == "RunAllHealthChecks"), "{actions:?}");
    assert!(!actions.iter().any(|a| a == "CheckWindowsUpdates"), "{actions:?}");

    let system: Value = serde_json::from_str(&metrics(host).system.text).expect("JSON");
    for part in ["cpu", "memory", "disk", "network", "system", "processes", "ports"] {
        assert!(!system[part].is_null(), "{part} is missing");
    }
    let memory = |field: &str| system["memory"][field].as_u64().expect("an integer");
    assert!(memory("used_kb") <= memory("total_kb"));
    let load = system["cpu"]["usage_percent"].as_f64().expect("a number");
    assert!((0.0..=100.0).contains(&load));
    assert!(system["processes"].as_array().is_some_and(|p| (1..=20).contains(&p.len())));
    assert!(system["network"]["interfaces"].as_array().is_some_and(|i| i.iter().all(Value::is_object)));

    let mut sequence = || {
        host.find("a sign of life", |m| match m {
            GuestMessage::KeepAlive(k) => Some(k.sequence_number),
            _ => None,
        })
    };
    let first = sequence();
    assert_eq!(sequence(), first + 1);
}

#[test]
fn over_a_character_device() {
    let (_agent, mut host) = Agent::on_terminal(&QUICK);
    listens_to(&mut host);
}

#[test]
fn over_a_socket() {
    let agent = Agent::on_socket(&QUICK);
    listens_to(&mut agent.host());
}

#[test]
fn a_reading_comes_when_it_is_asked_for() {
    let agent = Agent::on_socket(&[("INFINIBAY_METRICS_INTERVAL", "3600")]);
    let mut host = agent.host();
    let first = metrics(&mut host).timestamp;
    host.send(
        &json!({"type": "keep_alive_response", "sequence_number": 0, "timestamp": "2026-01-01T00:00:00Z"}),
    );
    host.send(&json!({"type": "Metrics"}));
    assert!(metrics(&mut host).timestamp > first);
}
