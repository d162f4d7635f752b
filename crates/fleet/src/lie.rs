//! What must not be believed, one kind at a time, so that each can be counted at both ends.

use serde::Serialize;

use crate::frame::{Frame, STAMP};

/// One untruth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// Not JSON.
    Malformed,
    /// JSON knows no such number.
    NotANumber,
    /// A known type whose fields are of the wrong kind.
    WrongShape,
    /// A reading without processor and memory.
    Missing,
    /// A reading below zero.
    Negative,
    /// More memory used than there is.
    MoreThanAll,
    /// A reading of an hour ago.
    Skewed,
    /// A type that nobody knows.
    UnknownType,
    /// An answer that nobody asked for.
    Unsolicited,
    /// A line of 2 MiB.
    TooLong,
}

impl Lie {
    /// All of them, in the order in which a liar tells them.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::NotANumber,
        Self::WrongShape,
        Self::Missing,
        Self::Negative,
        Self::MoreThanAll,
        Self::Skewed,
        Self::UnknownType,
        Self::Unsolicited,
        Self::TooLong,
    ];

    /// The line, newline included. `frame` is a true one to make it from.
    #[must_use]
    pub(crate) fn line(self, frame: &Frame) -> Vec<u8> {
        let now = chrono::Utc::now();
        let stamp = now.format(STAMP);
        let reading = |cpu: &str, used: &str| {
            format!(
                r#"{{"type":"metrics","timestamp":"{stamp}","data":{{"system":{{"cpu":{{"usage_percent":{cpu}}},"memory":{{"total_kb":1000,"used_kb":{used},"available_kb":0}}}}}}}}"#
            )
        };
        let mut line = match self {
            Self::Malformed => br#"{"type":"metrics","timestamp":"#.to_vec(),
            Self::NotANumber => reading("NaN", "1").into_bytes(),
            Self::WrongShape => br#"{"type":"keep_alive","sequence_number":"seven"}"#.to_vec(),
            Self::Missing => format!(
                r#"{{"type":"metrics","timestamp":"{stamp}","data":{{"system":{{"cpu":"busy"}}}}}}"#
            )
            .into_bytes(),
            Self::Negative => reading("-1.5", "1").into_bytes(),
            Self::MoreThanAll => reading("1.5", "1001").into_bytes(),
            Self::Skewed => {
                let mut line = frame.at(now - chrono::TimeDelta::hours(1));
                line.pop();
                line
            }
            Self::UnknownType => format!(r#"{{"type":"weather","timestamp":"{stamp}","sun":true}}"#).into_bytes(),
            Self::Unsolicited => format!(
                r#"{{"id":"{}","success":true,"exit_code":0,"stdout":"I did it","stderr":"","execution_time_ms":1,"command_type":"unsafe","data":null}}"#,
                uuid::Uuid::new_v4()
            )
            .into_bytes(),
            Self::TooLong => {
                [br#"{"type":"ping","pad":""#.as_slice(), &vec![b'x'; 2 << 20], br#""}"#].concat()
            }
        };
        line.push(b'\n');
        line
    }
}
