//! Answers that nobody waits for any more, made fit to wait for those who may still know their
//! command.

use agent_protocol::tree_bytes;
use serde_json::json;

use super::cut;
use crate::vm::CommandOutcome;

/// What waits of one such answer: each stream, and its data in memory. 256 of them wait at most.
const MAX_STREAM_BYTES: usize = 64 << 10;
const MAX_DATA_TREE: usize = 128 << 10;

const CUT: &str = "\n[cut: the answer came late and was long]";

/// The outcome within those bounds; what is left out is named in its place.
pub(super) fn bounded(mut outcome: CommandOutcome) -> CommandOutcome {
    if let CommandOutcome::Answered { stdout, stderr, data, .. } = &mut outcome {
        for stream in [stdout, stderr] {
            if cut(stream, MAX_STREAM_BYTES) {
                stream.push_str(CUT);
                stream.shrink_to_fit();
            }
        }
        if data.as_ref().is_some_and(|data| tree_bytes(data.to_string().as_bytes()) > MAX_DATA_TREE) {
            *data = Some(json!({ "truncated": true }));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn answered(stdout: String, data: Value) -> CommandOutcome {
        CommandOutcome::Answered {
            success: true,
            exit_code: Some(0),
            stdout,
            stderr: "e".to_owned(),
            data: Some(data),
            execution_ms: Some(1),
        }
    }

    #[test]
    fn what_is_short_stays_and_what_is_long_says_that_it_was_cut() {
        let short = answered("x".repeat(MAX_STREAM_BYTES), json!({"packages": [1, 2]}));
        assert_eq!(bounded(short.clone()), short);
        let long = bounded(answered("x".repeat(MAX_STREAM_BYTES + 1), json!(vec![json!({"a": 0}); 1000])));
        let kept = format!("{}{CUT}", "x".repeat(MAX_STREAM_BYTES));
        assert_eq!(long, answered(kept, json!({"truncated": true})));
        let other = CommandOutcome::TimedOut;
        assert_eq!(bounded(other.clone()), other);
    }
}
