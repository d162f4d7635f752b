//! The agent in a VM: is it there, and what came from it.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};

use crate::{
    api::scalars::BigInt,
    metrics::Rejections,
    vm::{AgentConnectivity, LinkCounters, LinkObservation, LinkSeal, VmStatus},
};

/// Whether the agent can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "AgentConnectivity", name = "AgentConnectivity")]
pub(crate) enum AgentConnectivityName {
    /// Never heard since the VM was made.
    NeverSeen,
    /// Known from before, not heard since the controller started, or silent while libvirt cannot be
    /// asked.
    Unknown,
    /// Heard, and recently enough.
    Online,
    /// Silent for too long in a running domain, or disconnected.
    Offline,
    /// The domain has no channel.
    Unsupported,
}

/// Whether what the agent says, and what it is told, is sealed with the VM's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "LinkSeal", name = "AgentSeal")]
pub(crate) enum AgentSealName {
    /// The VM was given no key, `agents.seal` is `off`, or there is no connection.
    Unused,
    /// The VM has a key, and its agent speaks without.
    Unsealed,
    /// Both ways.
    Sealed,
    /// The agent spoke without although `agents.seal` is `require`: nothing is taken from it, nothing sent.
    Refused,
}

/// What the link counted since it was made, over all its connections, and the readings and errors
/// refused since the controller started.
#[derive(Debug, SimpleObject)]
pub(crate) struct AgentCounters {
    /// Well-formed frames.
    frames: BigInt,
    /// Bytes read.
    bytes: BigInt,
    /// Lines that were no JSON object, or not UTF-8.
    malformed: BigInt,
    /// Lines over the frame limit, or that would take too much memory once read.
    oversized: BigInt,
    /// JSON of a known type but the wrong shape.
    wrong_shape: BigInt,
    /// Objects of a type we do not know.
    unknown_type: BigInt,
    /// Answers to commands nobody sent.
    unsolicited: BigInt,
    /// Answers that came after their deadline.
    late: BigInt,
    /// Signed envelopes where nothing is sealed: the VM was given no key, or `agents.seal` is `off`.
    sealed: BigInt,
    /// Signed envelopes that are not of the VM's key, or were changed on their way.
    bad_seal: BigInt,
    /// Signed envelopes that came before.
    replayed: BigInt,
    /// Signed envelopes that are not of this time, or not of this exchange.
    stale: BigInt,
    /// Messages without an envelope where only envelopes count.
    unsealed: BigInt,
    /// Readings of more than 256 KiB, or that would take too much memory once read.
    too_large: BigInt,
    /// Lines and readings dropped over the rate, or for want of room.
    dropped: BigInt,
    /// Readings refused: cpu or memory missing or of the wrong kind.
    refused_shape: BigInt,
    /// Readings refused: values out of range.
    refused_range: BigInt,
    /// Readings refused: the guest's clock is too far off.
    refused_skew: BigInt,
    /// Errors that the guest reported over its rate, neither kept nor told.
    errors_muted: BigInt,
}

/// The agent in a VM.
#[derive(Debug, SimpleObject)]
pub(crate) struct Agent {
    /// Whether it can be talked to.
    connectivity: AgentConnectivityName,
    /// When it was last heard.
    last_seen_at: Option<DateTime<Utc>>,
    /// What it says it is.
    version: Option<String>,
    /// What it says it runs on.
    platform: Option<String>,
    /// What it says it can do.
    capabilities: Vec<String>,
    /// The safe actions it says it carries out, in the words of the wire; null where it never said.
    actions: Option<Vec<String>>,
    /// What it last said of its own connection (`connected`, `degraded`, …); null where it never
    /// said, or there is no connection.
    reported_state: Option<String>,
    /// Whether what it says, and what it is told, is sealed.
    seal: AgentSealName,
    /// The guest's clock minus ours, milliseconds.
    clock_skew_ms: Option<BigInt>,
    /// What came from it.
    counters: AgentCounters,
}

impl Agent {
    pub(crate) fn new(
        status: Option<&VmStatus>,
        link: &LinkObservation,
        counted: LinkCounters,
        refused: Rejections,
    ) -> Self {
        let open = link.open();
        let live = open.and_then(|link| link.last_message_at);
        Self {
            connectivity: status.map_or(AgentConnectivity::NeverSeen, |status| status.agent).into(),
            last_seen_at: live.or_else(|| status.and_then(|status| status.last_seen)),
            version: open
                .and_then(|link| link.version.clone())
                .or_else(|| status.and_then(|status| status.agent_version.clone())),
            platform: open.and_then(|link| link.platform.clone()),
            capabilities: open.map(|link| link.capabilities.clone()).unwrap_or_default(),
            actions: open.and_then(|link| link.actions.as_ref()).map(|actions| actions.to_vec()),
            reported_state: open.and_then(|link| link.reported_state.clone()),
            seal: link.seal().into(),
            clock_skew_ms: open.and_then(|link| link.skew).map(|skew| skew.num_milliseconds().into()),
            counters: AgentCounters {
                frames: counted.frames.into(),
                bytes: counted.bytes.into(),
                malformed: counted.malformed.into(),
                oversized: counted.oversized.into(),
                wrong_shape: counted.wrong_shape.into(),
                unknown_type: counted.unknown_type.into(),
                unsolicited: counted.unsolicited.into(),
                late: counted.late.into(),
                sealed: counted.sealed.into(),
                bad_seal: counted.bad_seal.into(),
                replayed: counted.replayed.into(),
                stale: counted.stale.into(),
                unsealed: counted.unsealed.into(),
                too_large: counted.too_large.into(),
                dropped: counted.dropped.into(),
                refused_shape: refused.shape.into(),
                refused_range: refused.range.into(),
                refused_skew: refused.skew.into(),
                errors_muted: refused.errors_muted.into(),
            },
        }
    }
}
