//! What is done to a frame before it leaves this room: secrets in command lines are hidden, and
//! what subscribers get is bounded.

use std::borrow::Cow;

use agent_protocol::{rewrite_values, tree_fits};
use serde_json::{Map, Value};

use crate::vm::{FrameText, Redactor};

/// Fields that hold command lines, wherever they stand.
const COMMAND_LINES: [&str; 3] = ["command_line", "cmdline", "command"];

/// Fields of an error's details that hold words for people, which repeat the error's own.
const WORDS: [&str; 2] = ["message", "error"];

/// What subscribers of a large frame get of it, each part only if it is small. The stored reading
/// keeps everything.
const PARTS: [&str; 5] = ["cpu", "memory", "disk", "network", "system"];

/// A frame of more text, or one that takes more memory, is large: events wait in memory for the
/// slowest subscriber.
const MAX_TOLD_BYTES: usize = 32 << 10;
const MAX_TOLD_TREE: usize = 192 << 10;

/// What one part of a large frame may take in memory.
const MAX_PART_TREE: usize = MAX_TOLD_TREE / PARTS.len();

/// Hides secrets in every command line of a text that a reader of JSON has passed. Most frames
/// have none, and stay as they are.
pub(super) fn hide_secrets_in_text<'a>(redactor: &Redactor, text: &'a str) -> Cow<'a, str> {
    rewrite_values(text, &COMMAND_LINES, |line| redactor.hide(line))
}

/// Hides secrets in a guest's error: in its words, in those of its details, and in every command
/// line there. What failed is often quoted with its arguments.
pub(super) fn hide_secrets_of_error(redactor: &Redactor, error: &mut String, details: &mut Value) {
    if let Cow::Owned(hidden) = redactor.hide(error) {
        *error = hidden;
    }
    hide_secrets(redactor, &[COMMAND_LINES.as_slice(), &WORDS].concat(), details);
}

/// Hides secrets in every field of these names. Depth is bounded by the JSON reader.
fn hide_secrets(redactor: &Redactor, names: &[&str], value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide_secrets(redactor, names, item)),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(line) if names.contains(&key.as_str()) => {
                        if let Cow::Owned(hidden) = redactor.hide(line) {
                            *line = hidden;
                        }
                    }
                    other => hide_secrets(redactor, names, other),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The frame as subscribers get it.
pub(super) fn told(frame: &FrameText) -> FrameText {
    let text = frame.as_str();
    if text.len() <= MAX_TOLD_BYTES && tree_fits(text.as_bytes(), MAX_TOLD_TREE) {
        return frame.clone();
    }
    let system = frame.tree();
    let small = |part: &&Value| tree_fits(part.to_string().as_bytes(), MAX_PART_TREE);
    let parts =
        PARTS.iter().filter_map(|&name| Some((name.to_owned(), system.get(name).filter(small)?.clone())));
    FrameText::from(&Value::Object(parts.collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
        hide_secrets(&Redactor::default(), &COMMAND_LINES, &mut system);
        assert_eq!(system["processes"][0]["command_line"], json!("x --password ***"));
        assert_eq!(system["ports"][0]["owner"]["command_line"], json!("y --token=***"));
        assert_eq!(system["note"], json!("x --password kept"));
    }

    #[test]
    fn an_error_keeps_its_words_but_not_its_secrets() {
        let redactor = Redactor::new(&["pin"], &[], &[]).expect("good rules");
        let mut error = "mount -o user=me,password=hunter2 //h /m failed: PIN=1234".to_owned();
        let mut details = json!({
            "message": "curl --user me:hunter2 http://h: exit 7",
            "component": "net",
            "inner": [{"error": "TOKEN=hunter2 x", "command_line": "x --secret hunter2"}],
        });
        hide_secrets_of_error(&redactor, &mut error, &mut details);
        assert_eq!(error, "mount -o user=me,password=*** //h /m failed: PIN=***");
        assert_eq!(
            details,
            json!({
                "message": "curl --user *** http://h: exit 7",
                "component": "net",
                "inner": [{"error": "TOKEN=*** x", "command_line": "x --secret ***"}],
            })
        );
    }

    /// Trees with command lines at any place.
    fn tree() -> impl Strategy<Value = Value> {
        let line = prop_oneof![
            "[a-z -]{0,12}",
            Just("x --password \"hunter 2\"\n".to_owned()),
            Just("TOKEN=é\u{1}\\ y".to_owned()),
            Just("curl -u a:b http://é:c@d/".to_owned()),
        ];
        let name =
            prop_oneof![prop::sample::select(COMMAND_LINES.to_vec()).prop_map(str::to_owned), "[a-c\"]{0,3}"];
        line.prop_map(Value::from).prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_text_is_tidied_as_its_tree_is(mut tree in tree()) {
            let (redactor, text) = (Redactor::default(), tree.to_string());
            let hidden = hide_secrets_in_text(&redactor, &text);
            hide_secrets(&redactor, &COMMAND_LINES, &mut tree);
            prop_assert_eq!(serde_json::from_str::<Value>(&hidden).expect("JSON"), tree);
            let unchanged = matches!(hidden, Cow::Borrowed(_));
            prop_assert_eq!(unchanged, hidden == text);
            let again = hide_secrets_in_text(&redactor, &hidden);
            prop_assert_eq!(&again, &hidden);
        }
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
