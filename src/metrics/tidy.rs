//! What is done to a frame before it leaves this room: secrets in command lines are hidden, and
//! what subscribers get is bounded.

use std::io;

use serde_json::Value;

use crate::vm::redact_command_line;

/// Fields that hold command lines, wherever they stand.
const COMMAND_LINES: [&str; 3] = ["command_line", "cmdline", "command"];

/// Lists that subscribers of a large frame do without. The stored reading keeps them.
const LISTS: [&str; 3] = ["processes", "ports", "windows_services"];

/// A frame larger than this goes to subscribers without its lists: events wait in memory for the
/// slowest of them.
const MAX_TOLD_BYTES: usize = 32 << 10;

/// Hides secrets in every command line. Depth is bounded by the JSON reader.
pub(super) fn hide_secrets(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(line) if COMMAND_LINES.contains(&key.as_str()) => {
                        *line = redact_command_line(line);
                    }
                    other => hide_secrets(other),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The value's length as JSON, without writing it anywhere.
pub(super) fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and a value that cannot be written counts as far as it came.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// The frame as subscribers get it.
pub(super) fn told(system: &Value, bytes: usize) -> Value {
    let mut told = system.clone();
    if bytes > MAX_TOLD_BYTES
        && let Some(map) = told.as_object_mut()
    {
        for list in LISTS {
            map.remove(list);
        }
    }
    told
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
        hide_secrets(&mut system);
        assert_eq!(system["processes"][0]["command_line"], json!("x --password ***"));
        assert_eq!(system["ports"][0]["owner"]["command_line"], json!("y --token=***"));
        assert_eq!(system["note"], json!("x --password kept"));
    }

    #[test]
    fn a_large_frame_is_told_without_its_lists() {
        let system = json!({"cpu": {"usage_percent": 1}, "processes": ["x".repeat(MAX_TOLD_BYTES)]});
        let bytes = json_bytes(&system);
        assert_eq!(bytes, system.to_string().len());
        assert_eq!(told(&system, bytes), json!({"cpu": {"usage_percent": 1}}));
        assert_eq!(told(&system, MAX_TOLD_BYTES), system);
    }
}
