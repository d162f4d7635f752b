//! Guest to host. Everything here was written by somebody we do not trust: unknown fields are
//! ignored, unknown types are named and left alone, and a known type of the wrong shape is an
//! error of its own, so that each can be counted.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{SystemReading, quick, tree_fits};

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a JSON object, or not UTF-8, or nested too deeply.
    #[error("not a JSON object")]
    Malformed(#[source] serde_json::Error),
    /// A known type whose fields are missing or of the wrong kind.
    #[error("a {kind} message of the wrong shape")]
    WrongShape {
        /// The type it claimed to be.
        kind: &'static str,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A JSON object without a `type` that is no answer to a command either.
    #[error("an object without a type that is no answer")]
    Untyped,
}

/// Which kind of command an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandType {
    /// A [`crate::SafeAction`].
    Safe,
    /// A shell line.
    Unsafe,
}

/// The error object that a failed `response` may carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerError {
    /// The agent's code.
    #[serde(default)]
    pub code: Option<Value>,
    /// The agent's words.
    #[serde(default)]
    pub message: Option<String>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// The answer to a command. On the wire it may come bare (no `type`, no `timestamp`) or as a
/// `response`; it is known by `id` and `success`.
///
/// Only these two must be right. Somebody waits for the answer, so a field of an unexpected kind
/// costs that field, not the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The command's id, as text: a hostile guest may send anything.
    pub id: String,
    /// The agent's verdict.
    pub success: bool,
    /// The process's exit status. Windows' unsigned statuses keep their bits.
    #[serde(default, deserialize_with = "lenient::exit_code")]
    pub exit_code: Option<i32>,
    /// Standard output.
    #[serde(default, deserialize_with = "lenient::text")]
    pub stdout: String,
    /// Standard error.
    #[serde(default, deserialize_with = "lenient::text")]
    pub stderr: String,
    /// Milliseconds, measured by the agent.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub execution_time_ms: Option<u64>,
    /// Which kind of command.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub command_type: Option<CommandType>,
    /// The action's typed result.
    #[serde(default)]
    pub data: Option<Value>,
    /// Present on some failures.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::answer_error")]
    pub error: Option<AnswerError>,
    /// Present on `response`, absent on bare answers.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::optional")]
    pub timestamp: Option<DateTime<Utc>>,
}

/// Readers that give nothing where they cannot give something.
mod lenient {
    use serde::{Deserialize, Deserializer, de::DeserializeOwned};
    use serde_json::Value;

    use super::AnswerError;

    pub(super) fn optional<'de, D: Deserializer<'de>, T: DeserializeOwned>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
    }

    pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            _ => String::new(),
        })
    }

    pub(super) fn exit_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
        Ok(Value::deserialize(deserializer)?.as_i64().and_then(|code| {
            i32::try_from(code).ok().or_else(|| u32::try_from(code).ok().map(u32::cast_signed))
        }))
    }

    pub(super) fn answer_error<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<AnswerError>, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => None,
            Value::String(message) => Some(AnswerError { code: None, message: Some(message), details: None }),
            other => Some(serde_json::from_value(other.clone()).unwrap_or(AnswerError {
                code: None,
                message: None,
                details: Some(other),
            })),
        })
    }
}

/// What the agent says of its system's first boot. An extension of ours: agents that do not
/// send it are taken as installed when they are first heard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FirstBootReport {
    /// Packages and first-boot commands included.
    pub finished: bool,
    /// What went wrong on the way.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// The agent introduces itself: at its start, whenever the host end comes back, and when
/// something it says here has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The guest's clock.
    pub timestamp: DateTime<Utc>,
    /// As configured in the guest; not to be trusted, the socket names the VM.
    #[serde(default)]
    pub vm_id: Option<String>,
    /// The agent's version.
    #[serde(default)]
    pub version: Option<String>,
    /// `linux` or `windows`.
    #[serde(default)]
    pub platform: Option<String>,
    /// `metrics`, `safe_commands`, `unsafe_commands`, `concurrent_commands`, `first_boot`, ….
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// How many commands it takes at once. An extension of ours; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_commands: Option<u32>,
    /// The names of the safe actions it carries out. An extension of ours; agents that do not
    /// send it may have any action of their platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// An extension of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_boot: Option<FirstBootReport>,
    /// That the agent has a key and how the seal is opened. An extension of ours.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::optional")]
    pub seal: Option<SealOffer>,
}

/// How an agent that has a key opens the sealed exchange; see [`crate::seal`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SealOffer {
    /// The agent's question, a UUID, which the host's [`crate::HostMessage::Seal`] has to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The host's question, which a sealed handshake answers by naming it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
}

/// A metrics frame. Typed is what is charted; the readings as a whole stay text.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The guest's clock, RFC 3339.
    pub timestamp: DateTime<Utc>,
    /// What it tells.
    pub system: SystemReading,
}

/// The agent's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// Echoed by the host.
    pub sequence_number: u32,
    /// Unix seconds.
    pub timestamp: i64,
}

/// `connection_status`: the agent's view of its connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The guest's clock.
    #[serde(default)]
    pub timestamp: Option<DateTime<Utc>>,
    /// `connected`, `retrying`, ….
    pub state: String,
    /// Anything.
    #[serde(default)]
    pub details: Option<Value>,
}

/// `signed`: another message in an envelope. Nothing of it is believed before its signature has
/// been checked, and checking takes a key, so that is not done here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The envelope's version: 1.
    pub v: u32,
    /// The guest's clock, Unix milliseconds.
    pub ts: i64,
    /// A UUID, as text: the signature is over these very letters.
    pub nonce: String,
    /// The message, as JSON.
    pub payload: String,
    /// HMAC-SHA256 over `v`, `ts`, `nonce` and `payload`, joined by line feeds; hexadecimal.
    pub sig: String,
}

/// An `error` or `error_report`, brought into one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestError {
    /// The guest's words.
    pub error: String,
    /// Everything else the message held, as an object.
    pub details: Value,
    /// The guest's clock, if it gave it.
    pub timestamp: Option<DateTime<Utc>>,
}

/// One message from the guest.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestMessage {
    /// See [`Handshake`].
    Handshake(Handshake),
    /// See [`Metrics`].
    Metrics(Metrics),
    /// Several readings at once.
    MetricsBatch(Vec<Metrics>),
    /// See [`Answer`].
    Answer(Answer),
    /// See [`KeepAlive`].
    KeepAlive(KeepAlive),
    /// Another sign of life.
    Ping,
    /// See [`StatusReport`].
    Status(StatusReport),
    /// See [`GuestError`].
    Error(GuestError),
    /// See [`Signed`].
    Signed(Signed),
    /// A well-formed object of a type that this version does not know.
    Unknown {
        /// The type's name, cut to 64 characters.
        kind: String,
    },
}

impl GuestMessage {
    /// Reads one line. Ordinary metrics are read without building a tree.
    ///
    /// # Errors
    /// [`DecodeError`] says which rule the line broke.
    pub fn decode(line: &[u8]) -> Result<Self, DecodeError> {
        quick::metrics(line).map_or_else(|| Self::decode_by_tree(line), Ok)
    }

    /// Reads one line of any kind by way of a tree. serde_json's own depth limit (128) bounds
    /// nesting. Public for those who hold [`GuestMessage::decode`] against it.
    ///
    /// # Errors
    /// As [`GuestMessage::decode`].
    #[doc(hidden)]
    pub fn decode_by_tree(line: &[u8]) -> Result<Self, DecodeError> {
        let object: serde_json::Map<String, Value> =
            serde_json::from_slice(line).map_err(DecodeError::Malformed)?;
        let Some(kind) = object.get("type").and_then(Value::as_str).map(str::to_owned) else {
            if object.contains_key("id") && object.contains_key("success") {
                return shaped("answer", object).map(Self::Answer);
            }
            return Err(DecodeError::Untyped);
        };
        match kind.as_str() {
            "handshake" => shaped("handshake", object).map(Self::Handshake),
            "metrics" => shaped("metrics", object).map(|line: MetricsLine| Self::Metrics(line.into())),
            "metrics_batch" => {
                #[derive(Deserialize)]
                struct Batch {
                    messages: Vec<MetricsLine>,
                }
                shaped("metrics_batch", object).map(|batch: Batch| {
                    Self::MetricsBatch(batch.messages.into_iter().map(Metrics::from).collect())
                })
            }
            "response" => shaped("response", object).map(Self::Answer),
            "keep_alive" => shaped("keep_alive", object).map(Self::KeepAlive),
            "ping" => Ok(Self::Ping),
            "connection_status" => shaped("connection_status", object).map(Self::Status),
            "error" => guest_error("error", "error", object),
            "error_report" => guest_error("error_report", "error_type", object),
            "signed" => shaped("signed", object).map(Self::Signed),
            other => Ok(Self::Unknown { kind: other.chars().take(64).collect() }),
        }
    }
}

/// A metrics frame as it stands on the wire.
#[derive(Debug, Deserialize)]
struct MetricsLine {
    timestamp: DateTime<Utc>,
    data: MetricsData,
}

#[derive(Debug, Deserialize)]
struct MetricsData {
    system: Value,
}

impl From<MetricsLine> for Metrics {
    fn from(line: MetricsLine) -> Self {
        Self { timestamp: line.timestamp, system: SystemReading::of(&line.data.system) }
    }
}

/// How a message may begin inside a line that was spoilt by an unfinished one before it.
const BEGINNINGS: [&[u8]; 2] = [b"{\"type\":", b"{\"id\":"];

/// Beginnings tried in one spoilt line; each costs a pass over what is left of it.
const MAX_TRIES: usize = 8;

/// Looks for a whole message at the end of a line that is none: agents under back-pressure send
/// a fragment and then the message again, on one line (`{"type":"met{"type":"metrics",…}`).
/// Nothing that would take more than `max_tree_bytes` is read: what the whole line was reckoned at
/// says nothing of a part of it, which may begin inside a string.
#[must_use]
pub fn salvage(line: &[u8], max_tree_bytes: usize) -> Option<GuestMessage> {
    (1..line.len())
        .filter(|&at| BEGINNINGS.iter().any(|beginning| line[at..].starts_with(beginning)))
        .take(MAX_TRIES)
        .filter(|&at| tree_fits(&line[at..], max_tree_bytes))
        .find_map(|at| GuestMessage::decode(&line[at..]).ok())
}

fn shaped<T: serde::de::DeserializeOwned>(
    kind: &'static str,
    object: serde_json::Map<String, Value>,
) -> Result<T, DecodeError> {
    serde_json::from_value(Value::Object(object)).map_err(|source| DecodeError::WrongShape { kind, source })
}

fn guest_error(
    kind: &'static str,
    words: &'static str,
    mut object: serde_json::Map<String, Value>,
) -> Result<GuestMessage, DecodeError> {
    use serde::de::Error as _;
    let error = match object.remove(words) {
        Some(Value::String(text)) => text,
        _ => {
            let source = serde_json::Error::custom(format_args!("{words} must be a string"));
            return Err(DecodeError::WrongShape { kind, source });
        }
    };
    let timestamp = match object.remove("timestamp") {
        None | Some(Value::Null) => None,
        Some(value) => {
            Some(serde_json::from_value(value).map_err(|source| DecodeError::WrongShape { kind, source })?)
        }
    };
    object.remove("type");
    // `error` keeps its details in a field of that name, `error_report` lays them out flat.
    let details = match object.remove("details") {
        Some(details @ Value::Object(_)) if object.is_empty() => details,
        Some(details) => {
            object.insert("details".to_owned(), details);
            Value::Object(object)
        }
        None => Value::Object(object),
    };
    Ok(GuestMessage::Error(GuestError { error, details, timestamp }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MUCH: usize = 1 << 30;

    #[test]
    fn bare_answers_are_known_by_id_and_success() {
        let line = br#"{"id":"7","success":true,"exit_code":0,"stdout":"hi","stderr":"","execution_time_ms":3,"command_type":"unsafe","data":null}"#;
        let GuestMessage::Answer(answer) = GuestMessage::decode(line).unwrap() else { panic!("no answer") };
        assert_eq!((answer.id.as_str(), answer.success, answer.stdout.as_str()), ("7", true, "hi"));
    }

    #[test]
    fn nanosecond_timestamps_and_unknown_fields_pass() {
        let line = br#"{"type":"metrics","timestamp":"2026-11-03T10:00:00.123456789+00:00","new":1,"data":{"x":2,"system":{"cpu":{}}}}"#;
        assert!(matches!(GuestMessage::decode(line).unwrap(), GuestMessage::Metrics(_)));
    }

    #[test]
    fn each_kind_of_rubbish_is_told_apart() {
        let deep = "[".repeat(100_000);
        for line in ["", "nonsense", "[1]", "42", "{\"a\":", deep.as_str()] {
            assert!(
                matches!(GuestMessage::decode(line.as_bytes()), Err(DecodeError::Malformed(_))),
                "{line:.20}"
            );
        }
        assert!(matches!(GuestMessage::decode(b"\xff\xfe"), Err(DecodeError::Malformed(_))));
        assert!(matches!(GuestMessage::decode(b"{\"a\":1}"), Err(DecodeError::Untyped)));
        for line in [
            r#"{"type":"metrics"}"#,
            r#"{"type":"signed","v":1,"ts":1790000000000,"nonce":"n","payload":{},"sig":""}"#,
            r#"{"type":"keep_alive","sequence_number":-1,"timestamp":0}"#,
            r#"{"type":"error","error":7}"#,
            r#"{"id":5,"success":"yes"}"#,
        ] {
            assert!(
                matches!(GuestMessage::decode(line.as_bytes()), Err(DecodeError::WrongShape { .. })),
                "{line}"
            );
        }
        assert_eq!(
            GuestMessage::decode(br#"{"type":"later"}"#).unwrap(),
            GuestMessage::Unknown { kind: "later".into() }
        );
    }

    #[test]
    fn an_envelope_is_a_message_of_its_own() {
        let line = br#"{"type":"signed","v":1,"ts":1790000000000,"nonce":"7B-x","payload":"{\"type\":\"ping\"}","sig":"00ff"}"#;
        let GuestMessage::Signed(signed) = GuestMessage::decode(line).unwrap() else { panic!("no envelope") };
        assert_eq!((signed.v, signed.ts, signed.nonce.as_str()), (1, 1_790_000_000_000, "7B-x"));
        assert_eq!((signed.payload.as_str(), signed.sig.as_str()), (r#"{"type":"ping"}"#, "00ff"));
    }

    #[test]
    fn an_answer_survives_fields_of_unexpected_kinds() {
        let decode = |line: &str| match GuestMessage::decode(line.as_bytes()) {
            Ok(GuestMessage::Answer(answer)) => answer,
            other => panic!("{line}: {other:?}"),
        };
        let answer = decode(
            r#"{"id":"7","success":false,"exit_code":3221225477,"stdout":null,"stderr":5,"execution_time_ms":1.5,"command_type":"odd","error":"no such thing","timestamp":"yesterday"}"#,
        );
        assert_eq!(answer.exit_code, Some(-1_073_741_819));
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("", ""));
        assert_eq!((answer.execution_time_ms, answer.command_type, answer.timestamp), (None, None, None));
        assert_eq!(answer.error.unwrap().message.as_deref(), Some("no such thing"));
        let answer = decode(r#"{"id":"7","success":false,"error":{"code":[],"message":4}}"#);
        assert!(answer.error.unwrap().details.is_some());
        assert!(GuestMessage::decode(br#"{"id":7,"success":true}"#).is_err());
    }

    #[test]
    fn a_message_after_a_fragment_is_found() {
        let whole = r#"{"type":"error","error":"x","details":{"type":"inner"}}"#;
        for fragment in
            ["{\"type\":\"err", "{\"type\":\"error\",\"details\":{\"type\":\"in", "rubbish", "\u{fffd}"]
        {
            let line = format!("{fragment}{whole}");
            assert!(GuestMessage::decode(line.as_bytes()).is_err(), "{line}");
            assert!(matches!(salvage(line.as_bytes(), MUCH), Some(GuestMessage::Error(_))), "{line}");
        }
        let answer = br#"{"id":"7","succ{"id":"7","success":true}"#;
        assert!(matches!(salvage(answer, MUCH), Some(GuestMessage::Answer(_))));
        for hopeless in ["", "{", "nonsense", "{\"type\":", "x{\"type\":\"metrics\""] {
            assert_eq!(salvage(hopeless.as_bytes(), MUCH), None, "{hopeless}");
        }
        // Time stays bounded, however many beginnings a line pretends to have.
        assert_eq!(salvage("{\"type\":".repeat(100_000).as_bytes(), MUCH), None);
        // A tree that the fragment's open string hides is not built.
        let hidden =
            format!(r#"{{"type":"error","error":"x","details":[{}0]}}"#, r#"{"a":0},"#.repeat(10_000));
        let line = format!("{{\"type\":\"err{hidden}");
        assert_eq!(salvage(line.as_bytes(), 1 << 20), None);
        assert!(salvage(line.as_bytes(), MUCH).is_some());
    }

    #[test]
    fn both_kinds_of_error_come_in_one_shape() {
        let line = br#"{"type":"error","timestamp":"2026-11-03T10:00:00Z","error":"no disk","details":{"component":"x"}}"#;
        let GuestMessage::Error(error) = GuestMessage::decode(line).unwrap() else { panic!() };
        assert_eq!(error.details, serde_json::json!({"component": "x"}));
        let line = br#"{"type":"error_report","error_type":"Io","severity":"Fatal","timestamp":"2026-11-03T10:00:00Z"}"#;
        let GuestMessage::Error(error) = GuestMessage::decode(line).unwrap() else { panic!() };
        assert_eq!((error.error.as_str(), error.details), ("Io", serde_json::json!({"severity": "Fatal"})));
    }

    /// JSON that looks like messages, with fields of any kind.
    fn message_like() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("[]".to_owned()),
            Just("{}".to_owned()),
            Just("{\"system\":{}}".to_owned()),
            Just("\"2026-01-01T00:00:00Z\"".to_owned()),
            Just("\"metrics\"".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            Just("1e300".to_owned()),
            "[a-z\\\\u0]{0,8}".prop_map(|text| format!("\"{text}\"")),
        ];
        let key = prop::sample::select(vec![
            "type",
            "timestamp",
            "data",
            "id",
            "success",
            "exit_code",
            "stdout",
            "error",
            "details",
            "sequence_number",
            "messages",
            "first_boot",
            "capabilities",
            "actions",
            "state",
            "error_type",
        ]);
        let kind = prop::sample::select(vec![
            "handshake",
            "metrics",
            "metrics_batch",
            "response",
            "keep_alive",
            "ping",
            "connection_status",
            "error",
            "error_report",
            "signed",
        ]);
        (kind, prop::collection::vec((key, value), 0..8)).prop_map(|(kind, fields)| {
            let fields: String = fields.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
            format!("{{\"type\":\"{kind}\"{fields}}}")
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = GuestMessage::decode(&bytes);
            let _ = salvage(&bytes, MUCH);
        }

        #[test]
        fn whatever_looks_like_a_message_is_read_or_refused(line in message_like(), cut in 0usize..200) {
            let _ = GuestMessage::decode(line.as_bytes());
            let fragment = &line.as_bytes()[..cut.min(line.len())];
            let spoilt = [fragment, line.as_bytes()].concat();
            // A message that can be read is found behind a fragment of itself.
            if GuestMessage::decode(line.as_bytes()).is_ok() && GuestMessage::decode(&spoilt).is_err() {
                prop_assert!(salvage(&spoilt, MUCH).is_some(), "{}", line);
            }
        }
    }
}
