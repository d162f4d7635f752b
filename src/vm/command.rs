//! Commands for guests, and how they end.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::SafeAction;

/// A command line for the guest's shell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsafeCommand {
    /// The line, as typed.
    pub raw_command: String,
    /// The shell to run it with; the agent's default when absent.
    pub shell: Option<String>,
    /// The directory to run it in.
    pub working_dir: Option<String>,
    /// Added to its environment. May hold secrets.
    pub env_vars: BTreeMap<String, String>,
}

impl fmt::Debug for UnsafeCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the line nor the environment belongs in a log.
        f.debug_struct("UnsafeCommand")
            .field("raw_command", &format_args!("{} bytes", self.raw_command.len()))
            .field("shell", &self.shell)
            .field("working_dir", &self.working_dir)
            .field("env_vars", &self.env_vars.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// What may be asked of a guest.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestCommand {
    /// One of a fixed list, with checked parameters.
    Safe(SafeAction),
    /// Anything; needs the permission `unsafe_commands`.
    Unsafe(UnsafeCommand),
}

/// Why a link ended, as those are told whose commands ended with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// The channel broke or the guest did not read.
    ChannelClosed,
    /// The VM is not running any more.
    VmStopped,
    /// The VM is being deleted.
    VmDeleted,
    /// Another VM's link took its place.
    Evicted,
    /// The agent spoke without the seal that is required of it.
    Unsealed,
    /// The controller stops.
    ControllerStopping,
}

/// How a command ended. Every command that was logged as pending ends in exactly one of these.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandOutcome {
    /// The agent answered.
    Answered {
        /// The agent's own verdict.
        success: bool,
        /// The process's exit status, where there was a process.
        exit_code: Option<i32>,
        /// Bounded.
        stdout: String,
        /// Bounded.
        stderr: String,
        /// The action's typed result, where it has one.
        data: Option<serde_json::Value>,
        /// As the agent measured it.
        execution_ms: Option<i64>,
    },
    /// It was sent, and no answer came in time.
    TimedOut,
    /// The link ended with the command unanswered.
    Disconnected(LinkEnd),
    /// The controller died while it was pending; it may or may not have run.
    Lost,
}
