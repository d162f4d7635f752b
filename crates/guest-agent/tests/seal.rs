//! The seal, with the real program: who has the key is obeyed and answered in envelopes, and nobody else.

#![allow(clippy::unwrap_used, reason = "a failed step fails the story")]

#[path = "support/host.rs"]
mod host;

use std::{fs, os::unix::fs::PermissionsExt as _};

use agent_protocol::{Answer, GuestMessage, Handshake, SealKey, seal, verify};
use host::{Agent, Host, code};
use serde_json::{Value, json};
use uuid::Uuid;

const KEY: [u8; 32] = [7; 32];
/// Of a host whose clock stands at 2001.
const TS: i64 = 1_000_000_000_000;

/// The machine that the key is for: this one.
fn machine() -> Uuid {
    let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").ok();
    uuid.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| Uuid::from_u128(7))
}

/// Settings of an agent with that key, and where the key lies.
fn keyed(mode: &'static str) -> (tempfile::TempDir, Vec<(&'static str, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    fs::write(&path, SealKey::new(KEY).file(machine())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = vec![
        ("INFINIBAY_SEAL_KEY", path.display().to_string()),
        ("INFINIBAY_SEAL", mode.to_owned()),
        ("INFINIBAY_VM_ID", machine().to_string()),
    ];
    (dir, settings)
}

fn start(settings: &[(&str, String)]) -> Agent {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Agent::on_socket(&settings)
}

fn sealed(ts: i64, message: &Value) -> Vec<u8> {
    seal(&SealKey::new(KEY), ts, Uuid::new_v4(), &message.to_string()).unwrap()
}

/// The next message, which must be in an envelope of the key.
fn opened(host: &mut Host, what: &str) -> GuestMessage {
    match host.next(what) {
        GuestMessage::Signed(envelope) => {
            verify(&SealKey::new(KEY), &envelope).unwrap();
            GuestMessage::decode(envelope.payload.as_bytes()).unwrap()
        }
        other => panic!("{what} came bare: {other:?}"),
    }
}

fn answer(host: &mut Host, id: &str) -> Answer {
    loop {
        if let GuestMessage::Answer(answer) = opened(host, "the answer") {
            assert_eq!(answer.id, id);
            return answer;
        }
    }
}

/// Shows the agent the key; what came bare until it had seen it is passed over.
fn open(host: &mut Host, greeting: &Handshake) {
    let asked = greeting.seal.as_ref().and_then(|offer| offer.challenge.clone()).expect("a question");
    host.send_bytes(&sealed(TS, &json!({ "type": "Seal", "challenge": "ours", "answers": asked })));
    let hello = host.find("the sealed greeting", |message| match message {
        GuestMessage::Signed(envelope) => {
            verify(&SealKey::new(KEY), &envelope).unwrap();
            Some(GuestMessage::decode(envelope.payload.as_bytes()).unwrap())
        }
        _ => None,
    });
    let GuestMessage::Handshake(hello) = hello else { panic!("{hello:?}") };
    assert_eq!(hello.seal.and_then(|offer| offer.answers).as_deref(), Some("ours"));
}

fn echo(id: &str) -> Value {
    json!({ "type": "UnsafeCommand", "id": id, "raw_command": format!("echo '\"{id}\"'"), "timeout": 20 })
}

#[test]
fn who_has_the_key_is_obeyed_and_nobody_else() {
    let (_dir, settings) = keyed("accept");
    let agent = start(&settings);
    let mut host = agent.host();
    let greeting = host.handshake();
    assert!(greeting.capabilities.iter().any(|word| word == "sealed"), "{greeting:?}");
    open(&mut host, &greeting);

    let command = sealed(TS + 1, &echo("one"));
    host.send_bytes(&command);
    assert_eq!(answer(&mut host, "one").stdout, "\"one\"\n");
    // A replayed command is not answered, and one that was changed is not either; a bare one is told why.
    host.send_bytes(&command);
    host.send_bytes(
        &String::from_utf8(sealed(TS + 2, &echo("two"))).unwrap().replace("two", "too").into_bytes(),
    );
    host.send(&echo("bare"));
    assert_eq!(code(&answer(&mut host, "bare")), "UNSEALED");
    host.send_bytes(&sealed(TS + 3, &echo("three")));
    assert_eq!(answer(&mut host, "three").stdout, "\"three\"\n");

    // The host's clock is set by a day: the agent asks anew, and what it was told is told why not.
    host.send_bytes(&sealed(TS + 86_400_000, &echo("skewed")));
    let again = host.handshake();
    assert!(again.seal.as_ref().unwrap().challenge.is_some(), "{again:?}");
    open(&mut host, &again);
    assert_eq!(code(&answer(&mut host, "skewed")), "STALE");
    host.send_bytes(&sealed(TS + 4, &echo("four")));
    assert!(answer(&mut host, "four").success);
}

#[test]
fn where_the_seal_is_required_a_bare_command_is_never_carried_out() {
    let (dir, settings) = keyed("require");
    let agent = start(&settings);
    let mut host = agent.host();
    host.handshake();
    let proof = dir.path().join("it-ran");
    host.shell("bare", &format!("touch {}", proof.display()), 20);
    assert_eq!(code(&host.answer("bare")), "UNSEALED");
    assert!(!proof.exists());
    // Whoever asks for a greeting is asked in turn.
    host.send(&json!({ "type": "Metrics" }));
    let greeting = host.handshake();
    open(&mut host, &greeting);
    host.send_bytes(&sealed(TS + 1, &echo("one")));
    assert!(answer(&mut host, "one").success);
}

#[test]
fn a_copied_disks_key_is_not_used() {
    let (dir, settings) = keyed("require");
    fs::write(dir.path().join("seal.key"), SealKey::new(KEY).file(Uuid::new_v4())).unwrap();
    let agent = start(&settings);
    let mut host = agent.host();
    assert_eq!(host.handshake().seal, None);
    host.shell("bare", "echo here", 20);
    assert_eq!(host.answer("bare").stdout, "here\n");
}

#[test]
fn a_long_answer_fits_into_its_envelope() {
    let (_dir, settings) = keyed("accept");
    let agent = start(&settings);
    let mut host = agent.host();
    let greeting = host.handshake();
    open(&mut host, &greeting);
    let many = json!({
        "type": "UnsafeCommand", "id": "long", "timeout": 20,
        "raw_command": "head -c 3000000 /dev/zero | tr '\\0' '\"'",
    });
    host.send_bytes(&sealed(TS + 1, &many));
    // The frame limit is the decoder's: a line beyond it would not come at all.
    let answer = answer(&mut host, "long");
    assert!(answer.success && answer.stdout.len() > 100_000, "{} bytes", answer.stdout.len());
}
