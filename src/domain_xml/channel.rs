//! Our channel in somebody's domain XML: put in, repaired, taken out, with every other byte left
//! as it was.
//!
//! No virtio-serial controller is ever written. libvirt adds the controllers that the channels of
//! a definition need by itself, in all its drivers: index 0 where a channel names no address,
//! the named index where it does, and one more where the existing ones have no free port.

use std::path::Path;

use super::{
    AGENT_CHANNEL,
    document::{Document, Element, escape_attribute},
    edit::{Edits, Markup, append_child, insert_after, removal_span},
    facts::agent_target,
    malformed::Malformed,
    syntax::is_xml_text,
    uuid::parse_uuid,
};
use crate::vm::VmId;

/// Longest path of a Unix socket on Linux, bytes, without the terminating zero.
const MAX_SOCKET_PATH: usize = 107;

/// A document after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The whole document. Equal to what was given where nothing changed.
    pub xml: String,
    /// Whether anything had to be changed.
    pub changed: bool,
}

/// Why a document was not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Not one whole, well-formed XML document.
    #[error("the domain XML is not a complete XML document")]
    Malformed(#[source] Malformed),
    /// A document of something else.
    #[error("the root element is <{0}>, not <domain>")]
    NotADomain(String),
    /// The document says that it is another VM's.
    #[error("the domain XML belongs to {found:?}, not to {expected}")]
    OtherDomain {
        /// Whose channel was to be put in.
        expected: VmId,
        /// The document's `<uuid>`, as it stands there.
        found: String,
    },
    /// The socket's path cannot stand in XML, or QEMU could not bind it.
    #[error("the socket path {path:?} cannot be used: {reason}")]
    SocketPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl From<Malformed> for ChannelError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Puts the agent's channel, at `socket_path`, into a domain's XML; repairs one that is there
/// with another path, mode or type, and drops duplicates of it, with which QEMU would not start.
/// Done a second time it changes nothing.
///
/// The document may lack `<uuid>` (libvirt then chooses one); if it has one, it must be `id`.
///
/// # Errors
/// See [`ChannelError`].
pub fn inject_channel(xml: &str, id: VmId, socket_path: &Path) -> Result<Injection, ChannelError> {
    let path = checked_path(socket_path)?;
    let document = parse_domain(xml)?;
    check_owner(&document, id)?;
    let mut edits = Edits::default();
    let mut ours = agent_channels(&document).into_iter();
    match ours.next() {
        Some(first) => {
            repair(&document, first, path, &mut edits);
            for duplicate in ours {
                edits.remove(removal_span(xml, duplicate.span()));
            }
        }
        None => insert(&document, path, &mut edits),
    }
    Ok(finish(&document, edits))
}

/// Takes every channel of the agent's name out of a domain's XML, with the line it stood on.
///
/// # Errors
/// [`ChannelError::Malformed`], [`ChannelError::NotADomain`].
pub fn remove_channel(xml: &str) -> Result<Injection, ChannelError> {
    let document = parse_domain(xml)?;
    let mut edits = Edits::default();
    for channel in agent_channels(&document) {
        edits.remove(removal_span(xml, channel.span()));
    }
    Ok(finish(&document, edits))
}

/// The `<channel>` element alone, for attaching it to a running domain. Whether the path can be
/// used is checked by [`inject_channel`], which must have gone before; bytes that are no UTF-8
/// are replaced here.
#[must_use]
pub fn channel_element(socket_path: &Path) -> String {
    channel_markup(&socket_path.to_string_lossy()).to_text(None)
}

fn checked_path(socket_path: &Path) -> Result<&str, ChannelError> {
    let refuse =
        |reason| Err(ChannelError::SocketPath { path: socket_path.to_string_lossy().into_owned(), reason });
    match socket_path.to_str() {
        None => refuse("it is not UTF-8"),
        Some(_) if !socket_path.is_absolute() => refuse("it is not absolute"),
        Some(path) if path.len() > MAX_SOCKET_PATH => {
            refuse("it is longer than the 107 bytes that a Unix socket's path may have")
        }
        // Line ends and tabs could be written as references, but never stand in a sane path.
        Some(path) if path.chars().any(char::is_control) || !is_xml_text(path) => {
            refuse("it has control characters")
        }
        Some(path) => Ok(path),
    }
}

pub(super) fn parse_domain(xml: &str) -> Result<Document<'_>, ChannelError> {
    let document = Document::parse(xml)?;
    let root = document.root();
    // libvirt finds the elements of a domain only outside of any namespace.
    if root.name != "domain" || root.namespace.is_some() {
        return Err(ChannelError::NotADomain(root.name.to_owned()));
    }
    Ok(document)
}

fn check_owner(document: &Document<'_>, id: VmId) -> Result<(), ChannelError> {
    for uuid in document.children(document.root(), "uuid") {
        let found = document.text_of(uuid)?;
        if parse_uuid(&found) != Some(id) {
            return Err(ChannelError::OtherDomain { expected: id, found });
        }
    }
    Ok(())
}

pub(super) fn agent_channels<'d>(document: &'d Document<'d>) -> Vec<&'d Element<'d>> {
    document
        .children(document.root(), "devices")
        .flat_map(|devices| document.children(devices, "channel"))
        .filter(|channel| agent_target(document, channel).is_some())
        .collect()
}

fn channel_markup(path: &str) -> Markup {
    Markup::Open {
        start: "<channel type='unix'>".to_owned(),
        children: vec![
            Markup::Line(source_tag(path)),
            Markup::Line(format!("<target type='virtio' name='{AGENT_CHANNEL}'/>")),
        ],
        end: "</channel>".to_owned(),
    }
}

fn source_tag(path: &str) -> String {
    format!("<source mode='bind' path='{}'/>", escape_attribute(path))
}

fn insert(document: &Document<'_>, path: &str, edits: &mut Edits) {
    let markup = channel_markup(path);
    let devices = document.children(document.root(), "devices").next();
    match devices {
        Some(devices) => match document.children(devices, "channel").last() {
            Some(sibling) => insert_after(document, devices, sibling, &markup, edits),
            None => append_child(document, devices, markup, edits),
        },
        None => {
            let devices = Markup::Open {
                start: "<devices>".to_owned(),
                children: vec![markup],
                end: "</devices>".to_owned(),
            };
            append_child(document, document.root(), devices, edits);
        }
    }
}

/// Changes as little as makes the channel right: its address, alias and log stay.
fn repair(document: &Document<'_>, channel: &Element<'_>, path: &str, edits: &mut Edits) {
    let unix = channel.value("type") == Some("unix");
    if !unix {
        match channel.attribute("type") {
            Some(kind) => edits.replace(kind.value_span.clone(), "unix"),
            None => {
                let after_name = channel.start_tag.start + "<channel".len();
                edits.replace(after_name..after_name, " type='unix'");
            }
        }
    }
    let mut sources = document.children(channel, "source");
    match sources.next() {
        Some(source) if unix && source.value("mode") == Some("bind") => match source.attribute("path") {
            Some(current) if current.value == path => {}
            Some(current) => edits.replace(current.value_span.clone(), &escape_attribute(path)),
            None => edits.replace(source.span(), &source_tag(path)),
        },
        Some(source) => edits.replace(source.span(), &source_tag(path)),
        None => append_child(document, channel, Markup::Line(source_tag(path)), edits),
    }
    for extra in sources {
        edits.remove(removal_span(document.text, extra.span()));
    }
}

fn finish(document: &Document<'_>, edits: Edits) -> Injection {
    let changed = !edits.is_empty();
    Injection { xml: edits.apply(document.text), changed }
}

#[cfg(test)]
mod tests;
