//! Guest links: our end of the agent channels.
//!
//! One task per link owns one socket, decodes what the guest sends within fixed bounds, matches
//! answers with pending commands and knows when the guest was last heard. The loop alone decides
//! which links exist ([`Links::open`], [`Links::close`]). Decoded frames leave over a bounded
//! channel of their own ([`Inbox`]); everything a guest sends is hostile until decoded.

mod backoff;
mod clean;
mod connect;
mod counting;
mod execute;
mod flight;
mod hold;
mod late;
mod limit;
mod link;
mod links;
mod moment;
mod outgoing;
mod pacing;
mod rate;
mod seal;
mod sending;
mod session;
mod shared;
mod socket;
mod stash;
mod watch;
mod wire;

pub use links::Links;
pub use sending::{Sending, SentAt};
pub use socket::{SocketOwners, inspect_socket};
pub use watch::SocketWatch;

pub(crate) use clean::{clean_text, cut};
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
    /// Decoded frames, for storage. Bounded; while it is full the links do not read, each at most
    /// for some seconds (a second while a command is in flight), then they keep their newest
    /// frames and count what they drop.
    pub frames: mpsc::Receiver<GuestFrame>,
    /// Answers that nobody waits for any more. Bounded; what finds no room is counted and dropped.
    pub late: mpsc::Receiver<LateAnswer>,
    /// VMs whose link changed in a way the loop should look at (opened, closed, first heard,
    /// handshake changed). A hint.
    pub hints: mpsc::Receiver<VmId>,
}

/// A decoded frame that is to be stored. An error's texts hold no NUL, which PostgreSQL could not
/// keep.
#[derive(Debug, Clone)]
pub enum GuestFrame {
    /// A reading, not validated yet. At most 256 KiB.
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

/// A well-formed answer that nobody waits for any more: its caller has gone or was told that the
/// time is over, or it was sent before a reconnection or by an earlier run of the controller. A
/// guest can also make it up: that such a command of this VM exists is for the receiver to check.
#[derive(Debug, Clone, PartialEq)]
pub struct LateAnswer {
    /// By the socket.
    pub vm: VmId,
    /// As the guest gives it.
    pub id: CommandId,
    /// The link sent that command itself and had not its answer yet; otherwise the guest may have
    /// made it up.
    pub known: bool,
    /// `Answered`. Each stream is cut to 64 KiB, and says so; data of more than 128 KiB in memory
    /// is `{"truncated": true}`.
    pub outcome: CommandOutcome,
    /// Our clock.
    pub received_at: DateTime<Utc>,
}

/// A link as those need to know it who send commands over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// The connection stands and the agent was heard over it: commands can be sent.
    pub open_and_heard: bool,
    /// Commands that the agent takes at once; 1 unless it announced more over this connection.
    pub concurrency: usize,
    /// Why the link, or its last connection, ended; `None` before any did, and again as soon as
    /// the agent is heard over the next one.
    pub ended: Option<LinkEnd>,
}

impl Default for LinkState {
    fn default() -> Self {
        Self { open_and_heard: false, concurrency: 1, ended: None }
    }
}

/// Why a command was not handed to a guest. It certainly did not run there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No open link, or nothing was heard over it yet.
    #[error("the agent is not connected")]
    NotConnected,
    /// The link ended while the command waited for its turn.
    #[error("the link to the agent ended before the command was sent")]
    Ended(LinkEnd),
    /// Its time was over before the agent had a place for it.
    #[error("the agent had no place for the command in time")]
    NoPlace,
}
