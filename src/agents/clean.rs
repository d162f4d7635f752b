//! A guest's words made fit for logs, databases and people: bounded, and without control
//! characters.

use std::sync::Arc;

use agent_protocol::{Answer, AnswerError, FirstBootReport, GuestError, Handshake, StatusReport, tree_bytes};
use serde_json::Value;

use crate::vm::{CommandOutcome, FirstBoot};

const MAX_VERSION: usize = 64;
const MAX_CAPABILITIES: usize = 32;
const MAX_CAPABILITY: usize = 64;
const MAX_STATE: usize = 64;
/// More than the protocol has, and each longer than the longest of them.
const MAX_ACTIONS: usize = 64;
const MAX_ACTION: usize = 64;
const MAX_BOOT_ERRORS: usize = 16;
const MAX_BOOT_ERROR: usize = 512;
const MAX_ERROR_BYTES: usize = 4 << 10;
const MAX_DETAILS_BYTES: usize = 16 << 10;
/// What an error's details may take in memory: many wait for the database while it is away.
pub(super) const MAX_DETAILS_TREE: usize = 128 << 10;
const MAX_CONCURRENCY: usize = 16;

/// At most `max` characters, control characters (line breaks too) left out.
pub(crate) fn clean_text(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control() && !is_bidi_control(*c)).take(max).collect()
}

/// Cuts to at most `max` bytes, between characters; gives whether anything was cut.
pub(crate) fn cut(text: &mut String, max: usize) -> bool {
    if text.len() <= max {
        return false;
    }
    let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    true
}

/// Characters that reorder the text around them on a terminal.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Replaces NULs, which PostgreSQL's text and JSON cannot keep, in every string and key. Depth
/// is bounded by the JSON reader.
pub(super) fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => text_without_nul(text),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains('\0')) {
                *map = std::mem::take(map)
                    .into_iter()
                    .map(|(key, value)| (key.replace('\0', "\u{fffd}"), value))
                    .collect();
            }
            map.values_mut().for_each(without_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn text_without_nul(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// What an agent said of itself, bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) version: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) capabilities: Vec<String>,
    /// Names of safe actions; `None` from an agent that does not name them.
    pub(super) actions: Option<Arc<[String]>>,
    pub(super) first_boot: FirstBoot,
    /// Commands it takes at once.
    pub(super) concurrency: usize,
}

impl Default for Greeting {
    fn default() -> Self {
        Self {
            version: None,
            platform: None,
            capabilities: Vec::new(),
            actions: None,
            first_boot: FirstBoot::NotReported,
            concurrency: 1,
        }
    }
}

impl Greeting {
    pub(super) fn of(handshake: &Handshake) -> Self {
        let word = |text: &Option<String>| {
            text.as_deref().map(|text| clean_text(text, MAX_VERSION)).filter(|text| !text.is_empty())
        };
        Self {
            version: word(&handshake.version),
            platform: word(&handshake.platform),
            capabilities: words(&handshake.capabilities, MAX_CAPABILITIES, MAX_CAPABILITY),
            actions: handshake.actions.as_ref().map(|actions| words(actions, MAX_ACTIONS, MAX_ACTION).into()),
            first_boot: handshake.first_boot.as_ref().map_or(FirstBoot::NotReported, first_boot),
            concurrency: handshake
                .max_concurrent_commands
                .map_or(1, |n| usize::try_from(n).unwrap_or(MAX_CONCURRENCY).clamp(1, MAX_CONCURRENCY)),
        }
    }
}

/// What the agent says of its connection; nothing, if there is no word in it.
pub(super) fn reported_state(status: &StatusReport) -> Option<String> {
    Some(clean_text(&status.state, MAX_STATE)).filter(|state| !state.is_empty())
}

/// At most `count` words of at most `length` characters; what is empty once cleaned is no word.
fn words(list: &[String], count: usize, length: usize) -> Vec<String> {
    let cleaned = list.iter().take(count).map(|word| clean_text(word, length));
    cleaned.filter(|word| !word.is_empty()).collect()
}

fn first_boot(report: &FirstBootReport) -> FirstBoot {
    if !report.finished {
        return FirstBoot::Running;
    }
    let errors = report.errors.iter().take(MAX_BOOT_ERRORS);
    FirstBoot::Finished { errors: errors.map(|error| clean_text(error, MAX_BOOT_ERROR)).collect() }
}

/// The answer as the outcome of its command. The frame limit bounds it; how much of it is kept
/// is for those who keep it.
pub(super) fn outcome(answer: Answer) -> CommandOutcome {
    let mut stderr = answer.stderr;
    // Some agents say why they failed beside the streams only; it must not get lost.
    if let Some(words) = answer.error.as_ref().and_then(error_words)
        && !stderr.contains(&words)
    {
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr.push_str(&words);
    }
    let mut stdout = answer.stdout;
    text_without_nul(&mut stdout);
    text_without_nul(&mut stderr);
    let mut data = answer.data.filter(|data| !data.is_null());
    if let Some(data) = &mut data {
        without_nul(data);
    }
    CommandOutcome::Answered {
        success: answer.success,
        exit_code: answer.exit_code,
        stdout,
        stderr,
        data,
        execution_ms: answer.execution_time_ms.and_then(|ms| i64::try_from(ms).ok()),
    }
}

fn error_words(error: &AnswerError) -> Option<String> {
    let code = match &error.code {
        Some(Value::String(code)) => Some(code.clone()),
        Some(Value::Number(code)) => Some(code.to_string()),
        _ => None,
    };
    let words = match (code, &error.message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        (None, Some(message)) => message.clone(),
        (None, None) => error.details.as_ref()?.to_string(),
    };
    Some(clean_text(&words, MAX_ERROR_BYTES)).filter(|words| !words.is_empty())
}

/// The text and the details of a reported error, bounded: at most 4 KiB and 16 KiB, and 128 KiB in
/// memory.
pub(super) fn guest_error(error: &GuestError) -> (String, Value) {
    let mut text = clean_text(&error.error, MAX_ERROR_BYTES);
    cut(&mut text, MAX_ERROR_BYTES);
    let mut details = match &error.details {
        details @ Value::Object(_) => details.clone(),
        _ => Value::Object(serde_json::Map::new()),
    };
    without_nul(&mut details);
    let json = details.to_string();
    if json.len() > MAX_DETAILS_BYTES || tree_bytes(json.as_bytes()) > MAX_DETAILS_TREE {
        details = serde_json::json!({ "truncated": true });
    }
    (text, details)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_greeting_is_bounded_and_clean() {
        let handshake = Handshake {
            timestamp: Utc::now(),
            vm_id: Some("somebody else".to_owned()),
            version: Some(format!("\u{1b}[31m{}", "9".repeat(1000))),
            platform: Some("\u{202e}\0".to_owned()),
            capabilities: vec!["c".repeat(1000); 1000],
            max_concurrent_commands: Some(u32::MAX),
            actions: Some(vec!["a\u{7}".repeat(1000); 1000]),
            first_boot: Some(FirstBootReport { finished: true, errors: vec!["e\n".repeat(1000); 1000] }),
            seal: None,
        };
        let greeting = Greeting::of(&handshake);
        assert_eq!(greeting.version.as_deref(), Some(format!("[31m{}", "9".repeat(60)).as_str()));
        assert_eq!(greeting.platform, None);
        assert_eq!((greeting.capabilities.len(), greeting.capabilities[0].len()), (32, 64));
        let actions = greeting.actions.as_ref().unwrap();
        assert_eq!((actions.len(), actions[0].as_str()), (64, "a".repeat(64).as_str()));
        assert_eq!(greeting.concurrency, 16);
        let FirstBoot::Finished { errors } = greeting.first_boot else { panic!("not finished") };
        assert_eq!((errors.len(), errors[0].as_str()), (16, "e".repeat(512).as_str()));
        let quiet =
            Handshake { max_concurrent_commands: Some(0), actions: None, first_boot: None, ..handshake };
        assert_eq!(Greeting::of(&quiet).actions, None);
        assert_eq!(Greeting::of(&quiet).concurrency, 1);
        assert_eq!(Greeting::of(&quiet).first_boot, FirstBoot::NotReported);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, max, left) in [("aä", 3, "aä"), ("aä", 2, "a"), ("ää", 3, "ä"), ("ä", 1, ""), ("", 0, "")]
        {
            let mut cut_text = text.to_owned();
            assert_eq!(cut(&mut cut_text, max), text != left, "{text} {max}");
            assert_eq!(cut_text, left);
        }
    }

    #[test]
    fn nul_goes_from_keys_and_values_at_any_depth() {
        let line = br#"{"a\u0000b":["x\u0000",{"c":"\u0000"}]}"#;
        let mut value: Value = serde_json::from_slice(line).unwrap();
        without_nul(&mut value);
        assert_eq!(value, json!({"a\u{fffd}b": ["x\u{fffd}", {"c": "\u{fffd}"}]}));
    }

    #[test]
    fn the_reason_of_a_failure_reaches_standard_error() {
        let answer = |json: Value| outcome(serde_json::from_value(json).unwrap());
        let stderr = |outcome| match outcome {
            CommandOutcome::Answered { stderr, .. } => stderr,
            other => panic!("{other:?}"),
        };
        for (error, before, after) in [
            (json!({"code": "E1", "message": "no\u{7}pe"}), "", "E1: nope"),
            (json!("nope"), "boom", "boom\nnope"),
            (json!("nope"), "nope indeed", "nope indeed"),
            (json!({"code": 5}), "", "5"),
            (Value::Null, "boom", "boom"),
        ] {
            let outcome = answer(json!({"id": "1", "success": false, "stderr": before, "error": error}));
            assert_eq!(stderr(outcome), after);
        }
    }

    #[test]
    fn reported_errors_are_bounded() {
        let error = GuestError {
            error: "ä\u{1b}".repeat(10_000),
            details: json!({"x": "y".repeat(20_000)}),
            timestamp: None,
        };
        let (text, details) = guest_error(&error);
        assert!(text.len() <= MAX_ERROR_BYTES && text.chars().all(|c| c == 'ä'));
        assert_eq!(details, json!({"truncated": true}));
        let many = GuestError {
            error: String::new(),
            details: json!({"x": vec![json!({"a": 0}); 1000]}),
            timestamp: None,
        };
        assert_eq!(guest_error(&many).1, json!({"truncated": true}), "little text, much memory");
        let odd = GuestError { error: String::new(), details: json!([1]), timestamp: None };
        assert_eq!(guest_error(&odd).1, json!({}));
    }
}
