//! The few facts we need of a domain's XML.

use crate::vm::{ChannelFacts, InterfaceFacts, VmId};

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlFacts {
    /// `domain/uuid`.
    pub id: VmId,
    /// `domain/name`.
    pub name: String,
    /// The channel whose target is `org.infinibay.agent`, if it is a Unix socket that the
    /// hypervisor binds.
    pub channel: Option<ChannelFacts>,
    /// Network cards, in order.
    pub interfaces: Vec<InterfaceFacts>,
    /// Whether our metadata element is there: we made or adopted it.
    pub managed: bool,
}

/// Why it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the domain XML cannot be read: {0}")]
pub struct FactsError(pub String);

/// Reads a domain's XML (live or inactive).
pub fn read_facts(_xml: &str) -> Result<XmlFacts, FactsError> {
    todo!()
}
