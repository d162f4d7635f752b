//! Secrets in JSON: in the command lines that guests report, and in an action's parameters.

use std::borrow::Cow;

use serde_json::Value;

use super::Redactor;

/// Fields that hold command lines, wherever they stand.
const COMMAND_LINES: [&str; 3] = ["command_line", "cmdline", "command"];

/// The field that says which action it is. A rule that is too wide must not take it away: by it
/// the log's entry is understood.
const ACTION: &str = "action";

impl Redactor {
    /// Hides secrets in every command line of a guest's answer. Depth is bounded by the JSON
    /// reader.
    pub fn hide_command_lines(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_command_lines(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(line) if COMMAND_LINES.contains(&key.as_str()) => self.replace(line),
                        other => self.hide_command_lines(other),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Hides secrets in a flat object of parameters: each text, and each text of a list.
    pub fn hide_parameters(&self, action: &mut Value) {
        let Value::Object(map) = action else { return };
        for (_, value) in map.iter_mut().filter(|(key, _)| *key != ACTION) {
            match value {
                Value::String(text) => self.replace(text),
                Value::Array(items) => {
                    items.iter_mut().for_each(|item| {
                        if let Value::String(text) = item {
                            self.replace(text);
                        }
                    });
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
            }
        }
    }

    fn replace(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.hide(text) {
            *text = hidden;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn command_lines_are_hidden_wherever_they_stand() {
        let mut data = json!({
            "processes": [{"name": "x", "command_line": "x --password hunter2"}, {"command_line": 5}, "odd"],
            "deep": [[{"cmdline": "y --token=hunter2"}]],
            "note": "x --password kept",
        });
        Redactor::default().hide_command_lines(&mut data);
        assert_eq!(
            data,
            json!({
                "processes": [{"name": "x", "command_line": "x --password ***"}, {"command_line": 5}, "odd"],
                "deep": [[{"cmdline": "y --token=***"}]],
                "note": "x --password kept",
            })
        );
    }

    #[test]
    fn parameters_are_hidden_and_the_action_is_not() {
        let redactor = Redactor::new(&[], &[], &["[A-Z][a-z]+Cleanup", "hunter[0-9]"]).unwrap();
        let mut kept = json!({"action": "DiskCleanup", "drive": "C:", "targets": ["hunter2", "temp"]});
        redactor.hide_parameters(&mut kept);
        assert_eq!(kept, json!({"action": "DiskCleanup", "drive": "C:", "targets": ["***", "temp"]}));
        redactor.hide_parameters(&mut json!("hunter2"));
    }
}
