//! Some values of a JSON text rewritten in place, without reading it into a tree.

use std::{borrow::Cow, ops::Range};

use memchr::{memchr, memchr2, memmem};

/// The text with every string that is the value of one of these names, at any depth, replaced by
/// what `rewrite` makes of it. Borrowed where nothing changes; what is not replaced stays as it is
/// written. `rewrite` sees strings without their escapes, and what it gives is escaped again.
///
/// Names are letters, digits and underscores of ASCII. The text must be JSON that a reader takes;
/// of anything else as much is rewritten as can be told.
#[must_use]
pub fn rewrite_values<'a>(
    text: &'a str,
    names: &[&str],
    mut rewrite: impl for<'s> FnMut(&'s str) -> Cow<'s, str>,
) -> Cow<'a, str> {
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    let mut rewrite_value = |name: Range<usize>| {
        // What stood in a string that was rewritten.
        if name.start < at {
            return;
        }
        at = name.end;
        let Some(value) = value_after(text, name.end) else { return };
        at = value.end;
        let Some(old) = unescaped(&text[value.clone()]) else { return };
        let new = rewrite(&old);
        if *new != *old {
            out.push_str(&text[copied..value.start]);
            // As JSON, quotes included.
            out.push_str(&serde_json::Value::from(&*new).to_string());
            copied = value.end;
        }
    };
    if memmem::find(text.as_bytes(), b"\\u").is_none() {
        // A letter can be written in one way only, so that names can be searched for.
        plain_names(text, names).into_iter().for_each(&mut rewrite_value);
    } else {
        let mut from = 0;
        while let Some(string) = next_string(text, from) {
            from = string.end;
            if unescaped(&text[string.clone()]).is_some_and(|name| names.contains(&&*name)) {
                rewrite_value(string);
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Where one of the names stands as a whole string, in order.
fn plain_names(text: &str, names: &[&str]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for name in names {
        let quoted = format!("\"{name}\"");
        let places = memmem::find_iter(text.as_bytes(), &quoted).map(|at| at..at + quoted.len());
        // Inside of a string a quote has a backslash before it, elsewhere none has.
        found.extend(places.filter(|place| !text[..place.start].ends_with('\\')));
    }
    found.sort_unstable_by_key(|place| place.start);
    found
}

/// The string that is the value of a name that ends there. In JSON a string before a colon is a
/// name, and nothing else is.
fn value_after(text: &str, name_end: usize) -> Option<Range<usize>> {
    let colon = past_blanks(text, name_end).filter(|&at| text.as_bytes()[at] == b':')?;
    string_at(text, past_blanks(text, colon + 1)?)
}

/// The next string, its quotes included.
fn next_string(text: &str, from: usize) -> Option<Range<usize>> {
    let quote = memchr(b'"', text.as_bytes().get(from..)?)?;
    string_at(text, from + quote)
}

/// The string that begins there.
fn string_at(text: &str, start: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    if bytes[start] != b'"' {
        return None;
    }
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(start..at + 1);
        }
        at += 2;
    }
}

/// Where the next token begins.
fn past_blanks(text: &str, from: usize) -> Option<usize> {
    let rest = text.as_bytes().get(from..)?;
    Some(from + rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))?)
}

/// What a string with its quotes says.
fn unescaped(string: &str) -> Option<Cow<'_, str>> {
    let inner = &string[1..string.len() - 1];
    match memchr(b'\\', inner.as_bytes()) {
        None => Some(Cow::Borrowed(inner)),
        Some(_) => serde_json::from_str(string).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const NAMES: [&str; 3] = ["command", "command_line", "cmd"];

    /// Idempotent, and mindful of escapes.
    fn hide(text: &str) -> Cow<'_, str> {
        if text.contains("s\"") { text.replace("s\"", "*\\\n").into() } else { text.into() }
    }

    fn rewritten(text: &str) -> Cow<'_, str> {
        rewrite_values(text, &NAMES, hide)
    }

    fn by_tree(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(by_tree),
            Value::Object(map) => {
                for (name, value) in map {
                    match value {
                        Value::String(text) if NAMES.contains(&name.as_str()) => {
                            *text = hide(text).into_owned()
                        }
                        other => by_tree(other),
                    }
                }
            }
            _ => {}
        }
    }

    #[test]
    fn only_what_changes_is_written_anew() {
        for text in [
            "",
            "7",
            "\"command\"",
            "[\"command\",\"s\\\"\"]",
            r#"{"command":"x","other":"s\""}"#,
            r#"{"command":["s\""],"a\"command":"s\""}"#,
            r#"{"a":"\"command\":\"s\"\""}"#,
            r#"{"a":"command","b":"s\""}"#,
            // No JSON.
            "\"",
            "\"command\":\"s",
            "\"command\":\"s\\",
            "{\"command\":",
            "\"command\":s\"",
            "\"\\",
            "\"\\x\":\"s\"",
        ] {
            assert!(matches!(rewritten(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        for (text, became) in [
            (r#"{"command":"s\""}"#, r#"{"command":"*\\\n"}"#),
            (r#" { "command" : "\u0073\"é" , "n" : 1.50 } "#, r#" { "command" : "*\\\né" , "n" : 1.50 } "#),
            (
                r#"{"c\u006fmmand":"s\"","cmd":"s\"","command":"s\" s\""}"#,
                r#"{"c\u006fmmand":"*\\\n","cmd":"*\\\n","command":"*\\\n *\\\n"}"#,
            ),
            (r#"{"command":{"x":[{"command":"s\""}]}}"#, r#"{"command":{"x":[{"command":"*\\\n"}]}}"#),
        ] {
            assert_eq!(rewritten(text), became, "{text}");
        }
    }

    /// Any JSON, laid out in any way.
    fn json() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            Just("\"command\"".to_owned()),
            Just("\"c\\u006fmmand\"".to_owned()),
            Just("\"cmd\"".to_owned()),
            Just("\"a\\\\\"".to_owned()),
            Just("\"\\\"cmd\\\":\\\"s\\\"\"".to_owned()),
            Just("\"as\\\"z\"".to_owned()),
            Just("\"\\u0073\\u0022\"".to_owned()),
            "[a-c:,\\[{é ]{0,6}".prop_map(|text| format!("\"{text}\"")),
            "\\PC{0,6}".prop_map(|text| Value::from(text).to_string()),
        ]
        .boxed();
        let leaf = prop_oneof![
            string.clone(),
            Just("null".to_owned()),
            any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()).prop_map(|n| n.to_string()),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec((string.clone(), " {0,2}\n?", inner), 0..6).prop_map(|fields| {
                    let fields: Vec<_> = fields
                        .iter()
                        .map(|(name, blank, value)| format!("{name}{blank}:{blank}{value}"))
                        .collect();
                    format!("{{{}}}", fields.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_tree_says_the_same(text in json()) {
            let mut tree: Value = serde_json::from_str(&text).expect("JSON");
            by_tree(&mut tree);
            let became = rewritten(&text);
            prop_assert_eq!(serde_json::from_str::<Value>(&became).expect("still JSON"), tree);
            prop_assert!(matches!(rewritten(&became), Cow::Borrowed(_)), "twice is once");
        }

        #[test]
        fn anything_is_gone_over(text in "[\"\\\\:a-dn ]{0,30}") {
            let _ = rewritten(&text);
        }
    }
}
