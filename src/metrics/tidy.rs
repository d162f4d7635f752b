//! What is done to a frame before it leaves this room: secrets in command lines are hidden, and
//! what subscribers get is bounded.

use std::borrow::Cow;

use agent_protocol::tree_bytes;
use serde_json::{Map, Value};

use crate::vm::{FrameText, Redactor};

/// Fields that hold command lines, wherever they stand.
const COMMAND_LINES: [&str; 3] = ["command_line", "cmdline", "command"];

/// What subscribers of a large frame get of it, each part only if it is small. The stored reading
/// keeps everything.
const PARTS: [&str; 5] = ["cpu", "memory", "disk", "network", "system"];

/// A frame of more text, or one that takes more memory, is large: events wait in memory for the
/// slowest subscriber.
const MAX_TOLD_BYTES: usize = 32 << 10;
const MAX_TOLD_TREE: usize = 192 << 10;

/// What one part of a large frame may take in memory.
const MAX_PART_TREE: usize = MAX_TOLD_TREE / PARTS.len();

/// Hides secrets in every command line. Depth is bounded by the JSON reader.
pub(super) fn hide_secrets(redactor: &Redactor, value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide_secrets(redactor, item)),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(line) if COMMAND_LINES.contains(&key.as_str()) => {
                        if let Cow::Owned(hidden) = redactor.hide(line) {
                            *line = hidden;
                        }
                    }
                    other => hide_secrets(redactor, other),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The frame as subscribers get it.
pub(super) fn told(frame: &FrameText) -> FrameText {
    let text = frame.as_str();
    if text.len() <= MAX_TOLD_BYTES && tree_bytes(text.as_bytes()) <= MAX_TOLD_TREE {
        return frame.clone();
    }
    let system = frame.tree();
    let small = |part: &&Value| tree_bytes(part.to_string().as_bytes()) <= MAX_PART_TREE;
    let parts =
        PARTS.iter().filter_map(|&name| Some((name.to_owned(), system.get(name).filter(small)?.clone())));
    FrameText::from(&Value::Object(parts.collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn command_lines_are_hidden_wherever_they_stand() {
        let mut system = json!({
            "processes": [
                {"name": "x", "command_line": "x --password hunter2"},
                {"name": "y", "command_line": null},
                "odd",
            ],
            "ports": [{"owner": {"command_line": "y --token=hunter2"}}],
            "note": "x --password kept",
        });
        hide_secrets(&Redactor::default(), &mut system);
        assert_eq!(system["processes"][0]["command_line"], json!("x --password ***"));
        assert_eq!(system["ports"][0]["owner"]["command_line"], json!("y --token=***"));
        assert_eq!(system["note"], json!("x --password kept"));
    }

    #[test]
    fn of_a_large_frame_the_small_known_parts_are_told() {
        let cpu = json!({"usage_percent": 1});
        let small = json!({"cpu": cpu, "processes": [{"name": "init"}], "else": 1});
        assert_eq!(told(&FrameText::from(&small)).tree(), small);
        let tiny_objects = vec![json!({"a": 0}); 2000];
        for large in [
            json!({"cpu": cpu, "processes": ["x".repeat(MAX_TOLD_BYTES)]}),
            json!({"cpu": cpu, "anything": "x".repeat(MAX_TOLD_BYTES)}),
            json!({"cpu": cpu, "disk": "x".repeat(2 * MAX_TOLD_BYTES)}),
            json!({"cpu": cpu, "anything": tiny_objects}),
            json!({"cpu": cpu, "network": tiny_objects}),
        ] {
            assert_eq!(told(&FrameText::from(&large)).tree(), json!({"cpu": cpu}));
        }
    }
}
