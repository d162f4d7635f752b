//! Guest links: our end of the agent channels.
//!
//! One task per link owns one socket, decodes what the guest sends within fixed bounds, matches
//! answers with pending commands and knows when the guest was last heard. The loop alone decides
//! which links exist ([`Links::open`], [`Links::close`]). Decoded frames leave over a bounded
//! channel of their own ([`Inbox`]); everything a guest sends is hostile until decoded.

mod backoff;
mod clean;
mod connect;
mod flight;
mod link;
mod links;
mod outgoing;
mod pacing;
mod rate;
mod sending;
mod session;
mod shared;
mod socket;
mod stash;
mod watch;
mod wire;

pub use links::Links;
pub use sending::{Sending, SentAt};
pub use shared::LinkState;
pub use socket::{SocketOwners, inspect_socket};
pub use watch::SocketWatch;

pub(crate) use clean::cut;
pub(crate) use rate::{Throttle, TokenBucket};
pub(crate) use wire::encode_command;

use agent_protocol::SystemReading;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::vm::{CommandId, CommandOutcome, LinkEnd, VmId};

/// What the links give out.
#[derive(Debug)]
pub struct Inbox {
    /// Decoded frames, for storage. Bounded; while it is full each link keeps its newest few and
    /// counts what it drops.
    pub frames: mpsc::Receiver<GuestFrame>,
    /// VMs whose link changed in a way the loop should look at (opened, closed, first heard,
    /// handshake changed). A hint.
    pub hints: mpsc::Receiver<VmId>,
    /// Answers to commands that nobody waits for any more. Bounded; while it is full they are
    /// dropped.
    pub late: mpsc::Receiver<LateAnswer>,
}

/// An answer that came after its command had ended otherwise.
#[derive(Debug, Clone)]
pub struct LateAnswer {
    /// By the socket.
    pub vm: VmId,
    /// The command, by the guest's word.
    pub id: CommandId,
    /// What it said.
    pub outcome: CommandOutcome,
    /// Our clock.
    pub received_at: DateTime<Utc>,
}

/// A decoded frame that is to be stored. An error's texts hold no NUL, which PostgreSQL could not
/// keep.
#[derive(Debug, Clone)]
pub enum GuestFrame {
    /// A reading, not validated yet. Its line was at most 128 KiB.
    Metrics {
        /// By the socket.
        vm: VmId,
        /// Our clock.
        received_at: DateTime<Utc>,
        /// The guest's clock.
        timestamp: DateTime<Utc>,
        /// `data.system`.
        system: SystemReading,
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

/// Why a command was not handed to a guest. It certainly did not run there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No open link, or nothing was heard over it yet.
    #[error("the agent is not connected")]
    NotConnected,
    /// Its time was over before the agent had a place for it.
    #[error("the agent had no place for the command in time")]
    NoPlace,
    /// The link ended before it was sent.
    #[error("the link ended before the command was sent")]
    Ended(LinkEnd),
}
