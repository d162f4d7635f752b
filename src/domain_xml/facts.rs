//! The few facts we need of a domain's XML.
//!
//! Elements are found by their whole path, never by name alone: a `<uuid>` inside `<sysinfo>`, a
//! `<mac>` of a foreign metadata element or a `<channel>` in a comment must not be taken for the
//! domain's own.

use std::path::PathBuf;

use super::{
    AGENT_CHANNEL,
    document::{Document, Element},
    hardware::read_vcpus,
    malformed::Malformed,
    uuid::parse_uuid,
};
use crate::vm::{ChannelFacts, DomainAbout, InterfaceFacts, NoteFacts, VmId};

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
    /// Whether our metadata element is there and names this very domain: we made or adopted it.
    /// A copy made by a cloning tool carries the element of its original, and is not ours.
    pub managed: bool,
    /// What else it says.
    pub about: DomainAbout,
}

/// Why it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the domain XML cannot be read: {0}")]
pub struct FactsError(pub String);

impl From<Malformed> for FactsError {
    fn from(malformed: Malformed) -> Self {
        Self(malformed.to_string())
    }
}

/// Reads a domain's XML (live or inactive).
///
/// # Errors
/// A text that is no whole, well-formed `<domain>` document, or has no valid name and UUID.
pub fn read_facts(xml: &str) -> Result<XmlFacts, FactsError> {
    let document = Document::parse(xml)?;
    let domain = document.root();
    if domain.name != "domain" || domain.namespace.is_some() {
        return Err(FactsError(format!("the root element is <{}>, not <domain>", domain.name)));
    }
    let text = |name: &str| -> Result<String, FactsError> {
        match document.children(domain, name).next() {
            Some(element) => Ok(document.text_of(element)?),
            None => Err(FactsError(format!("there is no <{name}>"))),
        }
    };
    let uuid = text("uuid")?;
    let id = parse_uuid(&uuid).ok_or_else(|| FactsError(format!("<uuid> holds {uuid:?}")))?;
    let devices = || document.children(domain, "devices");
    let channel = devices()
        .flat_map(|devices| document.children(devices, "channel"))
        .find_map(|channel| channel_facts(&document, channel));
    let interfaces = devices()
        .flat_map(|devices| document.children(devices, "interface"))
        .filter_map(|interface| interface_facts(&document, interface))
        .collect();
    let ours =
        super::note::elements(&document).find(|ours| ours.value("id").and_then(parse_uuid) == Some(id));
    let first = |name: &'static str| document.children(domain, name).next();
    // What it has, not what it can have: there may be room to grow.
    let memory = first("currentMemory").or_else(|| first("memory"));
    let about = DomainAbout {
        memory_kib: memory.and_then(|memory| kib(&document, memory)),
        vcpus: first("vcpu").and_then(|vcpu| read_vcpus(&document, vcpu).ok()).map(|(vcpus, _)| vcpus),
        note: match ours {
            Some(ours) => NoteFacts::Present(ours.value("digest").unwrap_or_default().to_owned()),
            None => NoteFacts::Absent,
        },
    };
    Ok(XmlFacts { id, name: text("name")?, channel, interfaces, managed: ours.is_some(), about })
}

fn kib(document: &Document<'_>, memory: &Element<'_>) -> Option<u64> {
    let scale: u64 = match memory.value("unit") {
        None | Some("KiB") => 1,
        Some("MiB") => 1 << 10,
        Some("GiB") => 1 << 20,
        // libvirt itself always says KiB.
        Some(_) => return None,
    };
    document.text_of(memory).ok()?.trim().parse::<u64>().ok()?.checked_mul(scale)
}

/// The `<target>` of a channel, if the channel is the agent's.
pub(super) fn agent_target<'d>(
    document: &'d Document<'d>,
    channel: &'d Element<'d>,
) -> Option<&'d Element<'d>> {
    document
        .children(channel, "target")
        .find(|target| target.value("type") == Some("virtio") && target.value("name") == Some(AGENT_CHANNEL))
}

fn channel_facts(document: &Document<'_>, channel: &Element<'_>) -> Option<ChannelFacts> {
    let target = agent_target(document, channel)?;
    if channel.value("type") != Some("unix") {
        return None;
    }
    let source = document.children(channel, "source").next()?;
    let path = PathBuf::from(source.value("path").filter(|_| source.value("mode") == Some("bind"))?);
    let guest_connected = target.value("state").and_then(|state| match state {
        "connected" => Some(true),
        "disconnected" => Some(false),
        _ => None,
    });
    path.is_absolute().then_some(ChannelFacts { path, guest_connected })
}

fn interface_facts(document: &Document<'_>, interface: &Element<'_>) -> Option<InterfaceFacts> {
    let mac = document.children(interface, "mac").next()?.value("address")?;
    let source = document.children(interface, "source").next();
    Some(InterfaceFacts {
        mac: mac.to_ascii_lowercase(),
        network: source.and_then(|source| source.value("network")).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests;
