//! What a command's journey touches, as traits: so that it can be run a thousand times over, under
//! every fault, without a database and a guest.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::{
    agents::{LinkError, LinkState, SentAt},
    store::{CommandEnd, CommandRecord, LateNote, NewCommand, NotLogged, StoreError},
    vm::{CommandId, CommandOutcome, GuestCommand, LinkObservation, UserId, VmId},
};

/// The log of commands. A call that is dropped may have been carried out, or be carried out later.
#[async_trait]
pub trait CommandLog: Debug + Send + Sync + 'static {
    /// Logs a command as pending, durably. Waits no longer than `limit`.
    ///
    /// # Errors
    /// Says whether it may have been logged all the same; `IdTaken` where the id is in the log.
    async fn insert_command(&self, command: &NewCommand, limit: Duration) -> Result<(), NotLogged>;
    /// Ends what may have been written, or may still be, of a logging that was given up. The row of
    /// another attempt under the same id is left alone.
    ///
    /// # Errors
    /// `Database`.
    async fn void_command(&self, command: &NewCommand, response: &str) -> Result<(), StoreError>;
    /// Notes the outcome of a pending command; one that has an outcome keeps it.
    ///
    /// # Errors
    /// `NotFound`, `Database`.
    async fn finish_command(&self, id: CommandId, end: &CommandEnd) -> Result<(), StoreError>;
    /// Writes down that somebody asked for a command to be cancelled.
    ///
    /// # Errors
    /// `Database`.
    async fn audit_cancel(&self, user: UserId, vm: VmId, id: CommandId) -> Result<(), StoreError>;
    /// One command.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError>;
    /// Notes, once, an answer that came after its command had ended otherwise.
    ///
    /// # Errors
    /// `Database`.
    async fn note_late_answer(
        &self,
        vm: VmId,
        id: CommandId,
        response: &str,
        at: DateTime<Utc>,
    ) -> Result<LateNote, StoreError>;
    /// Marks as lost what is pending and was asked for at `before` or earlier; gives how many.
    ///
    /// # Errors
    /// `Database`.
    async fn lose_pending_commands(&self, before: DateTime<Utc>) -> Result<u64, StoreError>;
}

/// The links to the guests' agents.
pub trait CommandLinks: Debug + Send + Sync + 'static {
    /// The link's state, at once when it changes; `None`: there is no link. When the link is gone
    /// for good, the sender is dropped after `ended` was told.
    fn watch(&self, vm: VmId) -> Option<watch::Receiver<LinkState>>;
    /// What is known of the link and of who is at its other end, now.
    fn observe(&self, vm: VmId) -> LinkObservation;
    /// A command for this VM's agent, which has `timeout` from when its outcome is asked for. Nothing
    /// is sent before that.
    fn hand_over<'a>(
        &'a self,
        vm: VmId,
        id: CommandId,
        command: &'a GuestCommand,
        timeout: Duration,
    ) -> Box<dyn Handover + 'a>;
}

/// One command on its way to a guest. Whether it was sent is decided once, by whoever comes first:
/// the link, or who withdraws it.
#[async_trait]
pub trait Handover: Send + Sync {
    /// Sends it and waits for its outcome. Asked for once. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// It was not sent.
    async fn outcome(&self) -> Result<CommandOutcome, LinkError>;
    /// Makes sure that it is not sent from now on; `false`: it was already.
    #[must_use]
    fn withdraw(&self) -> bool;
    /// When it was sent; `None`: not yet, or never.
    fn sent(&self) -> Option<SentAt>;
}

/// The time on the wall.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}
