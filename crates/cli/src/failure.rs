//! What can go wrong, and the exit status that tells a script which it was.
//!
//! The statuses are those of `sysexits.h`, because they lie beside what ordinary commands end
//! with: `infinibay exec` passes the status of the guest's command on.

use std::io;

use serde_json::{Value, json};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no usable profile.
    #[error("{0}")]
    Profile(String),
    /// An authority's file is none.
    #[error("{0}")]
    Authority(String),
    /// What answers there cannot prove that it is the daemon.
    #[error("{0}")]
    Untrusted(String),
    /// The daemon could not be reached, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// What answered does not speak as the daemon does.
    #[error("{0}")]
    Answer(String),
    /// The API refused.
    #[error("{code}: {message}")]
    Api {
        /// The stable code.
        code: String,
        /// For people.
        message: String,
        /// The field of the input that is wrong, where it is one.
        field: Option<String>,
        /// What finds it in the daemon's log, where it is the daemon's fault.
        correlation: Option<String>,
    },
    /// The operation was accepted, and ended otherwise than well.
    #[error("{code}: {message} (operation {id})")]
    Operation {
        /// Which.
        id: String,
        /// Its error's code, or its status.
        code: String,
        /// For people.
        message: String,
    },
    /// The guest's command was cut off: nobody knows how it would have ended.
    #[error("{status}: {message}")]
    CutOff {
        /// The API's word for it.
        status: String,
        /// For people.
        message: String,
    },
    /// It took longer than it may.
    #[error("{0}")]
    TimedOut(String),
    /// Ctrl-C; what goes on without us, if anything.
    #[error("interrupted{}", .0.as_deref().map(|more| format!("; {more}")).unwrap_or_default())]
    Interrupted(Option<String>),
    /// Something on this machine.
    #[error("{0}: {1}")]
    Local(String, #[source] io::Error),
}

impl Failure {
    /// The status that the process ends with.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Api { code, .. } => status_of(code),
            Self::Unreachable(_) => 69,
            Self::Answer(_) => 70,
            Self::Operation { .. } => 73,
            Self::Local(_, error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Self::Local(..) => 74,
            Self::CutOff { .. } => 76,
            Self::Profile(_) | Self::Authority(_) | Self::Untrusted(_) => 78,
            Self::TimedOut(_) => 124,
            Self::Interrupted(_) => 130,
        }
    }

    /// The word for programs: the API's code, or ours.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "USAGE",
            Self::Profile(_) => "PROFILE",
            Self::Authority(_) => "CA",
            Self::Untrusted(_) => "UNTRUSTED",
            Self::Unreachable(_) => "UNREACHABLE",
            Self::Answer(_) => "BAD_ANSWER",
            Self::Api { code, .. } | Self::Operation { code, .. } => code,
            Self::CutOff { status, .. } => status,
            Self::TimedOut(_) => "TIMED_OUT",
            Self::Interrupted(_) => "INTERRUPTED",
            Self::Local(..) => "LOCAL",
        }
    }

    /// Whether the same request may go well a little later.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self.status(), 69 | 75)
    }

    /// For `--json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let message = match self {
            Self::Api { message, .. } | Self::Operation { message, .. } | Self::CutOff { message, .. } => {
                message.clone()
            }
            other => other.to_string(),
        };
        let mut error = json!({ "code": self.code(), "message": message });
        match self {
            Self::Api { field, correlation, .. } => {
                error["field"] = json!(field);
                error["correlationId"] = json!(correlation);
            }
            Self::Operation { id, .. } => error["operationId"] = json!(id),
            _ => {}
        }
        json!({ "error": error })
    }
}

/// The exit status of a refusal with this code.
fn status_of(code: &str) -> u8 {
    match code {
        "UNAUTHENTICATED" | "FORBIDDEN" => 77,
        "INTERNAL" => 70,
        "STORE_UNAVAILABLE"
        | "HYPERVISOR_UNAVAILABLE"
        | "QUEUE_FULL"
        | "TOO_MANY_CONNECTIONS"
        | "TOO_MANY_OPERATIONS"
        | "TOO_MANY_ATTEMPTS"
        | "REQUEST_TIMEOUT"
        | "SHUTTING_DOWN"
        | "LAGGED"
        | "IMAGE_BEING_CHECKED" => 75,
        code if code.ends_with("_NOT_FOUND") => 66,
        _ => 65,
    }
}

#[cfg(test)]
mod tests {
    use super::status_of;

    #[test]
    fn a_code_has_the_status_of_its_kind() {
        for (code, status) in [
            ("UNAUTHENTICATED", 77),
            ("FORBIDDEN", 77),
            ("VM_NOT_FOUND", 66),
            ("SNAPSHOT_NOT_FOUND", 66),
            ("INVALID_INPUT", 65),
            ("WRONG_STATE", 65),
            ("A_CODE_OF_LATER_DAYS", 65),
            ("STORE_UNAVAILABLE", 75),
            ("INTERNAL", 70),
        ] {
            assert_eq!(status_of(code), status, "{code}");
        }
    }
}
