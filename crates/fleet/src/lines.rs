//! What the host says, as an agent reads it.

use std::time::Duration;

use serde_json::{Value, json};

/// Bytes of an unfinished line that are kept; the host's lines are far shorter.
const LONGEST: usize = 4 << 20;

/// Cuts what is read into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// The messages that are whole now.
    pub(crate) fn take(&mut self, read: &[u8]) -> Vec<Value> {
        self.unfinished.extend_from_slice(read);
        let Some(end) = self.unfinished.iter().rposition(|&b| b == b'\n') else {
            if self.unfinished.len() > LONGEST {
                self.unfinished.clear();
            }
            return Vec::new();
        };
        let rest = self.unfinished.split_off(end + 1);
        let whole = std::mem::replace(&mut self.unfinished, rest);
        whole.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// What a message wants of the agent.
pub(crate) enum Wish {
    Command(Value),
    Reading,
    Nothing,
}

impl Wish {
    pub(crate) fn of(message: Value) -> Self {
        match message["type"].as_str() {
            Some("SafeCommand" | "UnsafeCommand") if message["id"].is_string() => Self::Command(message),
            Some("Metrics") => Self::Reading,
            _ => Self::Nothing,
        }
    }
}

/// How long the command wants to take: `sleep MS` does that, everything else takes no time.
pub(crate) fn wanted_delay(command: &Value) -> Duration {
    let millis = command["raw_command"].as_str().and_then(|raw| raw.strip_prefix("sleep "));
    Duration::from_millis(millis.and_then(|ms| ms.parse().ok()).unwrap_or(0))
}

/// The answer's fields without `type` and `timestamp`: what the agent in the field sends. The
/// standard output is the shell line or the action's name.
pub(crate) fn bare_answer(command: &Value) -> Value {
    let safe = command["type"] == "SafeCommand";
    let said = if safe { &command["command_type"]["action"] } else { &command["raw_command"] };
    json!({
        "id": command["id"], "success": true, "exit_code": 0, "stdout": said, "stderr": "",
        "execution_time_ms": 1, "command_type": if safe { "safe" } else { "unsafe" }, "data": null,
    })
}

/// A line of it.
pub(crate) fn line(message: &Value) -> Vec<u8> {
    format!("{message}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_messages() {
        let stream = b"{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";
        for at in 0..stream.len() {
            let mut lines = Lines::default();
            let mut seen = lines.take(&stream[..at]);
            seen.extend(lines.take(&stream[at..]));
            assert_eq!(seen, [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
        }
    }
}
