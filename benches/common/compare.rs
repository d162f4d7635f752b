//! Whether what is stored is what was sent.

use chrono::DateTime;
use infinibay::{store::Store, vm::Redactor};
use serde_json::Value;

use super::frames::GuestLines;

/// Guests whose stored frames are compared with what they sent.
pub(crate) const COMPARED: usize = 5;

/// What is stored is what was sent, secrets hidden and nothing else changed. What is expected is made
/// apart from what reads and rewrites frames on their way.
pub(crate) async fn compare(store: &Store, lines: &[GuestLines], all: bool) {
    let redactor = Redactor::default();
    let mut secrets = 0;
    for guest in lines.iter().step_by(lines.len().div_ceil(COMPARED)) {
        let rows = store.metrics(guest.vm, DateTime::UNIX_EPOCH, 10_000).await.unwrap();
        let stored: Vec<Value> = rows.iter().map(|row| row.frame.tree()).collect();
        let expected: Vec<Value> = guest.lines.iter().map(|line| expected(line, &redactor)).collect();
        for frame in &stored {
            assert!(expected.contains(frame), "a stored frame that was never sent: {frame}");
        }
        assert!(!all || expected.iter().all(|frame| stored.contains(frame)), "a frame is missing");
        let text: String = rows.iter().map(|row| row.frame.as_str()).collect();
        for secret in guest.lines.iter().filter_map(|line| secret(line)) {
            assert!(!text.contains(secret), "{secret} is stored");
            secrets += 1;
        }
    }
    assert!(secrets > 0, "nothing that was compared had a secret");
}

/// `data.system` of a line, its command lines without their secrets.
fn expected(line: &[u8], redactor: &Redactor) -> Value {
    let mut frame: Value = serde_json::from_slice(line).unwrap();
    let mut system = frame["data"]["system"].take();
    for process in system["processes"].as_array_mut().expect("processes") {
        if let Value::String(command) = &mut process["command_line"] {
            *command = redactor.hide(command).into_owned();
        }
    }
    system
}

/// The password that the fleet's databases are started with.
fn secret(line: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(line).ok()?.split_once(" --password=")?;
    rest.split_once('"').map(|(secret, _)| secret)
}
