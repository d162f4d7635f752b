//! Guest links: our end of the agent channels.
//!
//! One task per link owns one socket, decodes what the guest sends within fixed bounds, matches
//! answers with pending commands and knows when the guest was last heard. The loop alone decides
//! which links exist ([`Links::open`], [`Links::close`]). Decoded frames leave over a bounded
//! channel of their own ([`Inbox`]); everything a guest sends is hostile until decoded.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    config::AgentsConfig,
    vm::{CommandId, CommandOutcome, GuestCommand, LinkObservation, SocketObservation, VmId},
};

/// All links of the host. Clones share them.
#[derive(Debug, Clone)]
pub struct Links {}

/// What the links give out.
#[derive(Debug)]
pub struct Inbox {
    /// Decoded frames, for storage. Bounded; a full channel makes links read more slowly.
    pub frames: mpsc::Receiver<GuestFrame>,
    /// VMs whose link changed in a way the loop should look at (opened, closed, first heard,
    /// handshake changed). A hint.
    pub hints: mpsc::Receiver<VmId>,
}

/// A decoded frame that is to be stored.
#[derive(Debug, Clone)]
pub enum GuestFrame {
    /// A reading, not validated yet.
    Metrics {
        /// By the socket.
        vm: VmId,
        /// Our clock.
        received_at: DateTime<Utc>,
        /// The guest's clock.
        timestamp: DateTime<Utc>,
        /// `data.system`.
        system: Value,
    },
    /// An error that the guest reports. Text is cut to 4 KiB and freed of control characters.
    Error {
        /// By the socket.
        vm: VmId,
        /// Our clock.
        received_at: DateTime<Utc>,
        /// The guest's clock, if it gave it.
        timestamp: Option<DateTime<Utc>>,
        /// The guest's words.
        error: String,
        /// An object, at most 16 KiB as JSON.
        details: Value,
    },
}

/// Why a command could not be handed to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No open link, or nothing was heard over it yet.
    #[error("the agent is not connected")]
    NotConnected,
}

impl Links {
    /// Starts with no link.
    #[must_use]
    pub fn new(_config: AgentsConfig) -> (Self, Inbox) {
        todo!()
    }

    /// Wants a link to this socket. Idempotent; another path replaces the link.
    pub fn open(&self, _vm: VmId, _path: PathBuf) {
        todo!()
    }

    /// Wants no link: it is closed and its pending commands end as `Disconnected`. Idempotent.
    pub fn close(&self, _vm: VmId) {
        todo!()
    }

    /// The link's state, now.
    #[must_use]
    pub fn observe(&self, _vm: VmId) -> LinkObservation {
        todo!()
    }

    /// Every wanted link's state, now.
    #[must_use]
    pub fn observe_all(&self) -> HashMap<VmId, LinkObservation> {
        todo!()
    }

    /// How many commands the agent takes at once; 1 unless it announced more.
    #[must_use]
    pub fn concurrency(&self, _vm: VmId) -> usize {
        todo!()
    }

    /// Sends a command and waits for its outcome, at most `timeout`. Waits for a free place first
    /// (one command in flight unless the agent announced more), within the same `timeout`.
    ///
    /// # Errors
    /// `NotConnected`: nothing was sent.
    pub async fn execute(
        &self,
        _vm: VmId,
        _id: CommandId,
        _command: &GuestCommand,
        _timeout: Duration,
    ) -> Result<CommandOutcome, LinkError> {
        todo!()
    }

    /// Asks for a reading at once, if the link is open. Never waits.
    pub fn request_metrics(&self, _vm: VmId) {
        todo!()
    }

    /// Closes every link and waits for their tasks, at most `limit`.
    pub async fn shutdown(&self, _limit: Duration) {
        todo!()
    }
}

/// Watches the socket directory. Events are hints; the loop's scan is the truth.
#[derive(Debug)]
pub struct SocketWatch {}

impl SocketWatch {
    /// Watches `dir`, also when it is missing now or is removed and made again. The receiver gets
    /// the VM of each socket that came or went, or `None`: look at all.
    pub fn start(_dir: PathBuf) -> (Self, mpsc::Receiver<Option<VmId>>) {
        todo!()
    }
}

/// Looks at a socket's path without following links: is it a socket, and whose.
#[must_use]
pub fn inspect_socket(_path: &std::path::Path, _owners: &SocketOwners) -> SocketObservation {
    todo!()
}

/// The users that a socket may belong to.
#[derive(Debug, Clone)]
pub struct SocketOwners {}

impl SocketOwners {
    /// Root, ourselves, and the names or numbers of the list that this host knows.
    #[must_use]
    pub fn resolve(_list: &str) -> Self {
        todo!()
    }
}
