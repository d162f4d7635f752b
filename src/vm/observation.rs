//! What is, as far as it was seen. `Unknown` is a value of its own everywhere: it never means
//! "absent".

use std::{path::PathBuf, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

/// libvirt's domain states (`virDomainState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// Running on its processors.
    Running,
    /// Running, blocked on a resource.
    Blocked,
    /// Paused by somebody or something.
    Paused,
    /// On its way down.
    ShuttingDown,
    /// Off.
    Shutoff,
    /// Ended by a fault.
    Crashed,
    /// Suspended by the guest's power management.
    Suspended,
    /// libvirt itself does not know, or the domain was too busy to say.
    Unknown,
}

impl DomainState {
    /// Whether it is off, by whatever end.
    #[must_use]
    pub fn is_off(self) -> bool {
        matches!(self, Self::Shutoff | Self::Crashed)
    }

    /// Whether its processors work.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Blocked)
    }

    /// Whether a process of the hypervisor exists for the domain.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Blocked | Self::Paused | Self::ShuttingDown | Self::Suspended)
    }
}

/// The agent channel as it stands in the domain's live XML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFacts {
    /// The Unix socket, absolute.
    pub path: PathBuf,
    /// Whether the guest holds its end open; `None` where libvirt does not say.
    pub guest_connected: Option<bool>,
}

/// A network card of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Lower-case, colon separated.
    pub mac: String,
    /// The libvirt network it is plugged into.
    pub network: Option<String>,
}

/// Our element in a domain's metadata, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoteFacts {
    /// The domain's XML was not read.
    #[default]
    Unread,
    /// There is none, or only that of another domain, of which this one is a copy.
    Absent,
    /// It is there; with the digest of what it holds, empty where it says none.
    Present(String),
}

/// What a domain's XML says of it, beside what the loop decides on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainAbout {
    /// KiB.
    pub memory_kib: Option<u64>,
    /// Virtual processors.
    pub vcpus: Option<u32>,
    /// What we left in it.
    pub note: NoteFacts,
}

/// What is known of a domain that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFacts {
    /// The domain's name.
    pub name: String,
    /// Its power state.
    pub state: DomainState,
    /// libvirt's reason code for the state, as given.
    pub reason: i32,
    /// Whether a configuration survives its end.
    pub persistent: bool,
    /// Whether its memory is kept on disk, to go on from at the next start.
    pub managed_save: bool,
    /// Our channel, if its XML has it.
    pub channel: Option<ChannelFacts>,
    /// Its network cards.
    pub interfaces: Vec<InterfaceFacts>,
    /// What is configured and waits for the next start, each in a few words; empty where nothing
    /// does.
    pub waiting: Vec<String>,
    /// What else its XML says.
    pub about: DomainAbout,
}

/// What was seen of a VM's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainObservation {
    /// Nothing is known: libvirt is away, or the scan was incomplete.
    Unknown,
    /// libvirt was asked, and it is not there.
    Absent,
    /// It is there.
    Present(DomainFacts),
}

/// What the agent says of its system's first boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstBoot {
    /// Still at work.
    Running,
    /// Done; with what went wrong on the way, in the guest's words (bounded, cleaned).
    Finished {
        /// Empty when all went well.
        errors: Vec<String>,
    },
    /// The agent does not know of first boots; hearing it has to be enough.
    NotReported,
}

/// What a link has counted since it was made. Only ever grows while the link lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Well-formed frames.
    pub frames: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Lines that were no JSON object, or not UTF-8.
    pub malformed: u64,
    /// Lines over the frame limit, or that would take too much memory once read; dropped.
    pub oversized: u64,
    /// JSON of a known type but the wrong shape.
    pub wrong_shape: u64,
    /// Objects of a type we do not know.
    pub unknown_type: u64,
    /// Messages in signed envelopes where nothing is sealed: there is no key, or the policy wants none.
    pub sealed: u64,
    /// Envelopes that are not of the VM's key, or were changed on their way.
    pub bad_seal: u64,
    /// Envelopes that came before.
    pub replayed: u64,
    /// Envelopes that are not of this time, or not of this exchange.
    pub stale: u64,
    /// Messages without an envelope where only envelopes count.
    pub unsealed: u64,
    /// Answers to commands nobody is waiting for.
    pub unsolicited: u64,
    /// Answers to commands of ours whose deadline had passed.
    pub late: u64,
    /// Readings of more than 256 KiB, or that would take too much memory once read; dropped.
    pub too_large: u64,
    /// Lines and readings dropped because the link was over its rate or the receiver was full.
    pub dropped: u64,
}

/// Whether what comes over a link is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkSeal {
    /// The VM was given no key, or the policy wants no seal.
    #[default]
    Unused,
    /// It has a key, and its agent speaks without, or has not shown yet that it need not.
    Unsealed,
    /// Both ways.
    Sealed,
    /// Its agent spoke without where that is not allowed, and nothing is taken from it or sent to it.
    Refused,
}

/// A link whose connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLink {
    /// When the connection was made.
    pub since: DateTime<Utc>,
    /// When the last valid message came, by our clock. `None`: connected, but not heard.
    pub last_message_at: Option<DateTime<Utc>>,
    /// When the agent last greeted, by our clock: upon a connection, and when it starts.
    pub greeted_at: Option<DateTime<Utc>>,
    /// The agent's version, from its handshake.
    pub version: Option<String>,
    /// `linux`, `windows`, from its handshake.
    pub platform: Option<String>,
    /// From its handshake.
    pub capabilities: Vec<String>,
    /// What the agent last said of its connection (`connected`, `degraded`, …), cleaned, at most
    /// 64 characters.
    pub reported_state: Option<String>,
    /// The safe actions it carries out, from its handshake; `None` when it did not name them.
    pub actions: Option<Arc<[String]>>,
    /// The guest's clock minus ours, measured at the last timestamped message.
    pub skew: Option<TimeDelta>,
    /// From its handshake.
    pub first_boot: FirstBoot,
    /// Whether it is sealed.
    pub seal: LinkSeal,
    /// What came through.
    pub counters: LinkCounters,
}

/// Our end of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkObservation {
    /// No link is wanted or made.
    None,
    /// Wanted; not connected yet, or not any more.
    Connecting {
        /// Since when.
        since: DateTime<Utc>,
        /// Why the last attempt failed.
        last_error: Option<String>,
        /// `Refused` where that is why there is no connection; else `Unused`.
        seal: LinkSeal,
        /// What came through before.
        counters: LinkCounters,
    },
    /// Connected.
    Open(OpenLink),
}

impl LinkObservation {
    /// The open link, if it is one.
    #[must_use]
    pub fn open(&self) -> Option<&OpenLink> {
        match self {
            Self::Open(open) => Some(open),
            _ => None,
        }
    }

    /// Whether it is sealed.
    #[must_use]
    pub fn seal(&self) -> LinkSeal {
        match self {
            Self::None => LinkSeal::Unused,
            Self::Connecting { seal, .. } | Self::Open(OpenLink { seal, .. }) => *seal,
        }
    }

    /// What came through so far, also while the link is down.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        match self {
            Self::None => LinkCounters::default(),
            Self::Connecting { counters, .. } => *counters,
            Self::Open(open) => open.counters,
        }
    }
}

/// What the last look at the pools of a VM's volumes showed; all of it empty where all is well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageObservation {
    /// Volumes of the VM's that their pool, which answered, does not have: pool and name.
    pub missing: Vec<(String, String)>,
    /// Pools with little room left.
    pub low: Vec<String>,
    /// Pools that gave no answer or are not active: of their volumes nothing is known.
    pub silent: Vec<String>,
    /// A pool was not looked at yet.
    pub partial: bool,
}

/// The socket file, by `lstat` and a glance at the listeners; never by following a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketObservation {
    /// Nothing at that path.
    Missing,
    /// A socket of an acceptable owner.
    Present,
    /// Something else stands there: a symbolic link, a file, a stranger's socket.
    Untrusted(String),
    /// It could not be looked at.
    Unknown,
}
