//! Domains that others made, and what domains write to their consoles.

use async_graphql::{Enum, SimpleObject};
use uuid::Uuid;

use super::PageInfo;
use crate::{
    api::scalars::BigInt,
    lifecycle::{ConsoleLog, ConsolePiece},
    vm::{DomainFacts, DomainState, InterfaceFacts, NoteFacts, VmId},
};

/// What a domain does, in libvirt's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "DomainState", name = "DomainState")]
pub(crate) enum DomainStateName {
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
    /// libvirt does not know, or the domain was too busy to say.
    Unknown,
}

/// A network card of a domain.
#[derive(Debug, SimpleObject)]
pub(crate) struct DomainInterface {
    /// Lower-case, colon separated.
    mac: String,
    /// The libvirt network it is plugged into, if it is one.
    network: Option<String>,
}

impl From<InterfaceFacts> for DomainInterface {
    fn from(card: InterfaceFacts) -> Self {
        Self { mac: card.mac, network: card.network }
    }
}

/// A domain of this host that is no VM of ours. Nothing of it is ever touched, unless it is adopted.
#[derive(Debug, SimpleObject)]
pub(crate) struct UnmanagedDomain {
    /// Its UUID; to be given to `adoptDomain`.
    uuid: Uuid,
    /// Its name.
    name: String,
    /// What it does.
    state: DomainStateName,
    /// Whether its configuration survives its end; others cannot be adopted.
    persistent: bool,
    /// Whether it has the agent's channel.
    has_agent_channel: bool,
    /// Whether its metadata says that it is a VM of ours: `infinibayd db rebuild` restores it.
    has_our_metadata: bool,
    /// Its network cards.
    interfaces: Vec<DomainInterface>,
    /// MiB; null where it is not known now.
    memory_mib: Option<BigInt>,
    /// Virtual processors; null where they are not known now.
    vcpus: Option<u32>,
}

impl From<(VmId, DomainFacts)> for UnmanagedDomain {
    fn from((id, facts): (VmId, DomainFacts)) -> Self {
        Self {
            uuid: id.uuid(),
            name: facts.name,
            state: facts.state.into(),
            persistent: facts.persistent,
            has_agent_channel: facts.channel.is_some(),
            has_our_metadata: matches!(facts.about.note, NoteFacts::Present(_)),
            interfaces: facts.interfaces.into_iter().map(Into::into).collect(),
            memory_mib: facts.about.memory_kib.map(|kib| (kib / 1024).into()),
            vcpus: facts.about.vcpus,
        }
    }
}

/// Domains that are no VMs of ours.
#[derive(Debug, SimpleObject)]
pub(crate) struct UnmanagedDomainConnection {
    /// In the order of their UUIDs.
    pub(crate) nodes: Vec<UnmanagedDomain>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

/// The end of a serial console's log.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmConsoleLog {
    /// Without escape sequences and control characters, but for line ends and tabs.
    text: String,
    /// Whether there is more before it.
    truncated: bool,
}

/// Some of what a VM wrote to its serial console.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmConsolePiece {
    /// As it was written, without escape sequences and control characters, but for line ends and tabs.
    /// Cut anywhere: a line may go on in the next piece.
    text: String,
    /// This is the beginning of another log: the one that was told of before is gone, because the VM
    /// was started anew, or because the log was full several times over.
    anew: bool,
    /// Something before this was left out: what was written before, for the first piece; what was
    /// written too fast, for a later one.
    skipped: bool,
}

impl From<ConsolePiece> for VmConsolePiece {
    fn from(piece: ConsolePiece) -> Self {
        Self { text: piece.text, anew: piece.anew, skipped: piece.skipped }
    }
}

impl From<ConsoleLog> for VmConsoleLog {
    fn from(log: ConsoleLog) -> Self {
        Self { text: log.text, truncated: log.truncated }
    }
}
