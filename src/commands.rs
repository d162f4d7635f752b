//! A command's journey: logged as pending, handed to the link, its outcome noted and told.
//!
//! At most once: nothing is sent before it is logged, and what a dead controller left pending is
//! reported as lost, never sent again.

use std::time::Duration;

use crate::{
    access::Actor,
    agents::Links,
    config::CommandsConfig,
    events::EventBus,
    store::{CommandRecord, Store, StoreError},
    vm::{GuestCommand, VmId},
};

/// Runs commands in guests. Clones share the queues.
#[derive(Debug, Clone)]
pub struct Commands {}

/// Why a command was not accepted. Once accepted, it is in the log with an outcome.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Code `AGENT_NOT_CONNECTED`.
    #[error("the VM's agent is not connected")]
    NotConnected,
    /// Code `COMMAND_QUEUE_FULL`.
    #[error("{limit} commands wait for this VM already")]
    QueueFull {
        /// The bound.
        limit: usize,
    },
    /// Code `INVALID_INPUT`.
    #[error("{0}")]
    Invalid(String),
    /// The log could not be written; nothing was sent.
    #[error("the command log could not be written")]
    Store(#[from] StoreError),
}

impl Commands {
    /// Commands over these links, logged in this store.
    #[must_use]
    pub fn new(_config: CommandsConfig, _store: Store, _links: Links, _events: EventBus) -> Self {
        todo!()
    }

    /// Runs one command and gives its log entry, which has an outcome. The caller has authorised
    /// it. Dropping the future does not lose the outcome: the command is finished in the
    /// background.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute(
        &self,
        _actor: &Actor,
        _vm: VmId,
        _command: GuestCommand,
        _timeout: Duration,
    ) -> Result<CommandRecord, CommandError> {
        todo!()
    }

    /// Marks what an earlier controller left pending as lost. Once, at start.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        todo!()
    }
}
