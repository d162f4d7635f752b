//! Values rewritten in a text are those that are rewritten in its tree; twice is once.

#![no_main]

use std::borrow::Cow;

use agent_protocol::rewrite_values;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NAMES: [&str; 3] = ["command_line", "cmdline", "command"];

/// Stands for the hiding of secrets: changes some strings, and gives what has to be escaped.
fn hide(text: &str) -> Cow<'_, str> {
    if text.contains('s') { Cow::Owned(text.replace('s', "\"*\\\u{1}é")) } else { Cow::Borrowed(text) }
}

fn hide_in_tree(tree: &mut Value) {
    match tree {
        Value::Array(items) => items.iter_mut().for_each(hide_in_tree),
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if NAMES.contains(&name.as_str()) => *text = hide(text).into_owned(),
                    other => hide_in_tree(other),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rewritten = rewrite_values(text, &NAMES, hide);
    // Text that is no JSON only has to be survived.
    let Ok(mut tree) = serde_json::from_str::<Value>(text) else { return };
    hide_in_tree(&mut tree);
    let read: Value = serde_json::from_str(&rewritten).expect("JSON stays JSON");
    assert_eq!(read, tree);
    let again = rewrite_values(&rewritten, &NAMES, hide);
    assert!(matches!(again, Cow::Borrowed(_)), "{again} is not {rewritten}");
});
