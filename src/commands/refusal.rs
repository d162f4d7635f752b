//! Why a command was not accepted.

use super::{check::Wrong, turns::Full};
use crate::store::StoreError;

/// Why a command was not accepted. Once accepted, it is in the log with an outcome.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Code `AGENT_NOT_CONNECTED`.
    #[error("the VM's agent is not connected")]
    NotConnected,
    /// Code `AGENT_UNSEALED`: there is no connection because the agent speaks without the seal that is
    /// required of it.
    #[error(
        "the VM's agent speaks without the seal that is required of it; nothing is sent to it. Its \
         condition AgentConnected says what to do"
    )]
    Unsealed,
    /// Code `QUEUE_FULL`.
    #[error("{limit} commands wait or run for this VM already; send it again when some have ended")]
    QueueFull {
        /// The bound.
        limit: usize,
    },
    /// Code `QUEUE_FULL`.
    #[error(
        "{limit} commands of yours wait or run for this VM already, as many as one requester may have; \
         send it again when some have ended"
    )]
    ShareFull {
        /// The bound.
        limit: usize,
    },
    /// Code `QUEUE_FULL`.
    #[error("{limit} commands wait or run on this host already; send it again when some have ended")]
    QueuesFull {
        /// The bound.
        limit: usize,
    },
    /// Code `QUEUE_FULL`.
    #[error("commands of {limit} bytes wait or run on this host already; send it again when some have ended")]
    QueuesTooLarge {
        /// The bound.
        limit: usize,
    },
    /// Code `INVALID_INPUT`.
    #[error("{reason}")]
    Invalid {
        /// The input's field, as the API names it; none where it is the whole.
        field: Option<&'static str>,
        /// What is wrong.
        reason: String,
    },
    /// Code `ACTION_UNSUPPORTED`: this guest cannot carry it out.
    #[error("{action} {reason}")]
    Unsupported {
        /// The action's name on the wire.
        action: &'static str,
        /// Why, as the rest of a sentence that begins with the name.
        reason: String,
    },
    /// Code `ID_TAKEN`.
    #[error("the id was given to another command")]
    IdTaken,
    /// Code `COMMAND_NOT_FOUND`.
    #[error("the VM has no such command")]
    NotFound,
    /// The log could not be asked or written; nothing was sent. Code `STORE_UNAVAILABLE` where it
    /// is away, else `INTERNAL`.
    #[error("the command log could not be written")]
    Store(#[source] StoreError),
    /// The task that ran it failed. The log may keep it as pending until it is marked as lost.
    #[error("the command's task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl CommandError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConnected => "AGENT_NOT_CONNECTED",
            Self::Unsealed => "AGENT_UNSEALED",
            Self::QueueFull { .. }
            | Self::ShareFull { .. }
            | Self::QueuesFull { .. }
            | Self::QueuesTooLarge { .. } => "QUEUE_FULL",
            Self::Invalid { .. } => "INVALID_INPUT",
            Self::Unsupported { .. } => "ACTION_UNSUPPORTED",
            Self::IdTaken => "ID_TAKEN",
            Self::NotFound => "COMMAND_NOT_FOUND",
            Self::Store(error) if error.is_unavailable() => "STORE_UNAVAILABLE",
            Self::Store(_) | Self::Task(_) => "INTERNAL",
        }
    }

    /// Counts the refusal.
    pub(super) fn counted(self) -> Self {
        metrics::counter!("infinibay_commands_refused_total", "reason" => self.code()).increment(1);
        self
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::IdTaken => Self::IdTaken,
            error => Self::Store(error),
        }
    }
}

impl From<Wrong> for CommandError {
    fn from(Wrong { field, reason }: Wrong) -> Self {
        Self::Invalid { field, reason }
    }
}

impl From<Full> for CommandError {
    fn from(full: Full) -> Self {
        match full {
            Full::Vm(limit) => Self::QueueFull { limit },
            Full::Share(limit) => Self::ShareFull { limit },
            Full::All(limit) => Self::QueuesFull { limit },
            Full::Bytes(limit) => Self::QueuesTooLarge { limit },
        }
    }
}
