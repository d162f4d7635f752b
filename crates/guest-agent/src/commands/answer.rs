//! Answers: one shape for success and failure, and never longer than a frame.

use std::time::Instant;

use agent_protocol::{Answer, AnswerError, CommandType, MAX_FRAME_BYTES, sealed_bytes};
use chrono::Utc;
use serde_json::{Value, json};

use super::process::{Finished, Remains};
use crate::{
    log::note,
    message::{self, EncodeError},
    read,
    seal::Refusal,
};

/// Room for everything in an answer but `stdout`, `stderr` and `data`.
const ENVELOPE_BYTES: usize = 16 << 10;
/// `data` within this length leaves room for some text beside it.
pub(super) const MAX_DATA_BYTES: usize = 700 << 10;
const MAX_ID_CHARS: usize = 256;

/// What a command that was carried out has to say.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The action's typed result.
    pub(super) data: Option<Value>,
    /// The process behind it, if there was one.
    pub(super) process: Option<Finished>,
}

impl From<Value> for Outcome {
    fn from(data: Value) -> Self {
        Self { data: Some(data), process: None }
    }
}

/// Why a command was not carried out, or not to its end.
#[derive(Debug)]
pub(super) struct Failure {
    /// Stable, upper case.
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) process: Option<Box<Finished>>,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), process: None }
    }

    pub(super) fn too_many(limit: usize) -> Self {
        Self::new("TOO_MANY_COMMANDS", format!("too many commands: {limit} are running"))
    }

    pub(super) fn undecodable(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        // serde's own words for a name that an enum does not have.
        let code = if message.starts_with("unknown variant") { "UNKNOWN_COMMAND" } else { "BAD_COMMAND" };
        Self::new(code, message)
    }

    pub(super) fn spawn(what: &str, error: &std::io::Error) -> Self {
        Self::new("CANNOT_START", format!("start {what}: {error}"))
    }

    pub(super) fn refused(why: Refusal) -> Self {
        Self::new(why.code(), why.to_string())
    }

    /// A tool that ran and failed: its own last words are the message.
    pub(super) fn tool(what: &str, finished: Finished) -> Self {
        if finished.timed_out {
            return Self::timeout(finished);
        }
        let words = finished.stderr.text();
        let last = words.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no message");
        let message = format!("{what}: {}", read::printable(last, 300));
        Self { code: "COMMAND_FAILED", message, process: Some(Box::new(finished)) }
    }

    pub(super) fn timeout(finished: Finished) -> Self {
        let message = format!("ended after {} s: its time was over", finished.limit.as_secs());
        Self { code: "TIMEOUT", message, process: Some(Box::new(finished)) }
    }
}

/// The answer to a command that was never begun.
pub(super) fn refuse(id: &str, kind: Option<CommandType>, failure: Failure) -> Vec<u8> {
    assemble(id, kind, 0, false, Err(failure)).0
}

/// The answer to a command that was begun at `begun`, and what is left of its process. `sealed`: it has
/// to fit into an envelope too, in which every quote takes twice its room.
pub(super) fn encode(
    id: &str,
    kind: CommandType,
    begun: Instant,
    sealed: bool,
    result: Result<Outcome, Failure>,
) -> (Vec<u8>, Option<Remains>) {
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    assemble(id, Some(kind), took, sealed, result)
}

fn assemble(
    id: &str,
    kind: Option<CommandType>,
    took: u64,
    sealed: bool,
    result: Result<Outcome, Failure>,
) -> (Vec<u8>, Option<Remains>) {
    let (data, process, error) = match result {
        Ok(outcome) => (outcome.data, outcome.process, None),
        Err(failure) => {
            let message = read::printable(&failure.message, 1000);
            let error =
                AnswerError { code: Some(json!(failure.code)), message: Some(message), details: None };
            (None, failure.process.map(|p| *p), Some(error))
        }
    };
    let mut answer = Answer {
        id: id.chars().take(MAX_ID_CHARS).collect(),
        success: error.is_none(),
        exit_code: None,
        stdout: String::new(),
        stderr: String::new(),
        execution_time_ms: Some(took),
        command_type: kind,
        data,
        error,
        timestamp: Some(Utc::now()),
    };
    let mut remains = None;
    if let Some(process) = process {
        answer.exit_code = process.exit_code;
        if answer.data.is_none() {
            answer.data = Some(process.facts());
        }
        let data = answer.data.as_ref().map_or_else(String::new, serde_json::Value::to_string);
        let data = if sealed { sealed_bytes(&data) } else { data.len() };
        let room = MAX_FRAME_BYTES.saturating_sub(ENVELOPE_BYTES + data) / if sealed { 2 } else { 1 };
        // Each stream may have half, and whatever the other one leaves.
        let stderr_wants = encoded_length(&process.stderr.text());
        answer.stdout = process.stdout.clipped(room.saturating_sub(stderr_wants.min(room / 2)));
        answer.stderr = process.stderr.clipped(room.saturating_sub(encoded_length(&answer.stdout)));
        remains = process.remains;
    }
    let line = message::line("response", &answer).and_then(|line| fits(line, sealed)).unwrap_or_else(|e| {
        note(format_args!("{e}"));
        // Only `data` can have been too much, and without it the answer is short.
        answer.success = false;
        answer.data = None;
        answer.stdout.clear();
        answer.stderr.clear();
        let message = Some("the result exceeds a frame".to_owned());
        answer.error = Some(AnswerError { code: Some(json!("RESULT_TOO_LARGE")), message, details: None });
        message::line("response", &answer).unwrap_or_default()
    });
    (line, remains)
}

/// A line that can be sent, also in an envelope if it may have to.
fn fits(line: Vec<u8>, sealed: bool) -> Result<Vec<u8>, EncodeError> {
    let length = if sealed { sealed_bytes(&String::from_utf8_lossy(&line)) } else { 0 };
    if length > MAX_FRAME_BYTES { Err(EncodeError::TooLong { kind: "response", length }) } else { Ok(line) }
}

/// How long a text becomes between JSON's quotes.
pub(super) fn encoded_length(text: &str) -> usize {
    text.chars().map(encoded_char).sum()
}

pub(super) fn encoded_char(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// Rows until `data` would be too long; the second value says that some are missing.
pub(super) fn bounded(rows: impl IntoIterator<Item = Value>) -> (Vec<Value>, bool) {
    let mut kept = Vec::new();
    let mut length = 0;
    for row in rows {
        length += row.to_string().len() + 1;
        if length > MAX_DATA_BYTES {
            return (kept, true);
        }
        kept.push(row);
    }
    (kept, false)
}

#[cfg(test)]
mod tests {
    use agent_protocol::GuestMessage;
    use proptest::prelude::*;

    use super::*;

    fn decode(line: &[u8]) -> Answer {
        assert!(line.len() <= MAX_FRAME_BYTES + 1, "{} bytes", line.len());
        match GuestMessage::decode(line.strip_suffix(b"\n").unwrap()) {
            Ok(GuestMessage::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_is_an_answer_with_a_code() {
        let answer = decode(&refuse("7", Some(CommandType::Safe), Failure::too_many(4)));
        assert!(!answer.success && answer.id == "7");
        let error = answer.error.unwrap();
        assert_eq!(error.code, Some(json!("TOO_MANY_COMMANDS")));
        assert!(error.message.unwrap().starts_with("too many commands"));
    }

    #[test]
    fn a_result_beyond_a_frame_becomes_a_failure_that_says_so() {
        let outcome = Outcome::from(json!("x".repeat(MAX_FRAME_BYTES)));
        let answer = decode(&encode("1", CommandType::Safe, Instant::now(), false, Ok(outcome)).0);
        assert_eq!(answer.error.unwrap().code, Some(json!("RESULT_TOO_LARGE")));
        // What fits bare and not in an envelope, of the kind that doubles there.
        let quotes = || Outcome::from(json!(vec![""; MAX_FRAME_BYTES / 4]));
        let answer = decode(&encode("1", CommandType::Safe, Instant::now(), false, Ok(quotes())).0);
        assert!(answer.success);
        let line = encode("1", CommandType::Safe, Instant::now(), true, Ok(quotes())).0;
        assert_eq!(decode(&line).error.unwrap().code, Some(json!("RESULT_TOO_LARGE")));
        assert!(sealed_bytes(std::str::from_utf8(&line).unwrap()) <= MAX_FRAME_BYTES);
    }

    #[test]
    fn too_many_rows_are_cut() {
        let (rows, cut) = bounded((0..10_000).map(|i| json!({"name": "x".repeat(100), "i": i})));
        assert!(cut && json!(rows).to_string().len() <= MAX_DATA_BYTES);
        assert_eq!(bounded([json!(1)]), (vec![json!(1)], false));
    }

    proptest! {
        #[test]
        fn the_length_of_encoded_text_is_known(text in "\\PC{0,20}|[\u{0}-\u{ff}]{0,40}") {
            prop_assert_eq!(encoded_length(&text) + 2, serde_json::to_string(&text).unwrap().len());
        }
    }
}
