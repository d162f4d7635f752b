//! A domain that others made, taken under management and given back: the channel and our element go
//! in together, and out of it comes exactly what went in.
//!
//! libvirt itself makes the controllers that a channel needs. They are told by comparing before and
//! after, noted, and taken out with the channel, unless something else has come to use them.

use super::{
    channel::{self, ChannelError, Injection},
    document::{Document, Element},
    edit::{Edits, removal_span},
    malformed::Malformed,
    note::{self, Given, Note},
};
use crate::vm::VmId;
use std::path::Path;

/// Why a domain cannot be adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptionError {
    /// The channel cannot be put in.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It carries our element under another id.
    #[error("the domain carries the metadata of another VM, of which it is a copy")]
    Copy,
    /// It says that we made it.
    #[error("the domain carries metadata that says it was made by this controller")]
    Made,
    /// A channel of the agent's name is there that is no socket of the host's.
    #[error("the domain has a channel named org.infinibay.agent that is no Unix socket bound on the host")]
    OtherChannel,
}

impl From<Malformed> for AdoptionError {
    fn from(malformed: Malformed) -> Self {
        Self::Channel(malformed.into())
    }
}

/// Puts our element in, and the channel where there is none. Done a second time it changes nothing.
///
/// # Errors
/// See [`AdoptionError`].
pub fn adopt_domain(xml: &str, id: VmId, socket: &Path, note: &Note) -> Result<Injection, AdoptionError> {
    let document = channel::parse_domain(xml)?;
    if let Some(element) = note::elements(&document).next() {
        let found = note::read(&document, element)?;
        return match found.id {
            Some(other) if other != id => Err(AdoptionError::Copy),
            Some(_) if found.is_adopted() => Ok(Injection { xml: xml.to_owned(), changed: false }),
            Some(_) => Err(AdoptionError::Made),
            None => Err(AdoptionError::Copy),
        };
    }
    let had_channel = !channel::agent_channels(&document).is_empty();
    if had_channel && super::read_facts(xml).is_ok_and(|facts| facts.channel.is_none()) {
        return Err(AdoptionError::OtherChannel);
    }
    let given = Given {
        channel: !had_channel,
        metadata: document.children(document.root(), "metadata").next().is_none(),
        before: Some(controllers(&document).map(|(word, _)| word).collect()),
        controllers: Vec::new(),
    };
    let with_channel =
        if had_channel { xml.to_owned() } else { channel::inject_channel(xml, id, socket)?.xml };
    let document = channel::parse_domain(&with_channel)?;
    let mut edits = Edits::default();
    note::write(&document, &note::markup(id, note, Some(&given), true), &mut edits);
    Ok(Injection { xml: edits.apply(&with_channel), changed: true })
}

/// The element that says which controllers libvirt made for the channel; `None` where that is
/// noted already.
///
/// # Errors
/// Not one whole, well-formed document.
pub fn settled_note(xml: &str, id: VmId, note: &Note) -> Result<Option<String>, Malformed> {
    let document = Document::parse(xml)?;
    let Some(element) = note::elements(&document).next() else { return Ok(None) };
    let found = note::read(&document, element)?;
    let Some(given @ Given { before: Some(before), .. }) = &found.given else { return Ok(None) };
    let added: Vec<String> =
        controllers(&document).map(|(word, _)| word).filter(|word| !before.contains(word)).collect();
    let settled = Given { before: None, controllers: added, ..given.clone() };
    Ok(Some(note::markup(id, note, Some(&settled), false)))
}

/// What the domain was given as far as its element says it: whether the channel is ours.
///
/// # Errors
/// Not one whole, well-formed document.
pub fn gave_channel(xml: &str, id: VmId) -> Result<bool, Malformed> {
    let found = super::find_note(xml)?;
    Ok(found.filter(|found| found.id == Some(id)).and_then(|found| found.given).is_some_and(|g| g.channel))
}

/// Takes out what was put in. A domain without our element is left as it is.
///
/// # Errors
/// Not one whole, well-formed domain.
pub fn release_domain(xml: &str, id: VmId) -> Result<Injection, AdoptionError> {
    let document = channel::parse_domain(xml)?;
    let unchanged = || Ok(Injection { xml: xml.to_owned(), changed: false });
    let Some(element) = note::elements(&document).next() else { return unchanged() };
    let found = note::read(&document, element)?;
    if found.id != Some(id) {
        return unchanged();
    }
    let given = found.given.unwrap_or_default();
    let mut edits = Edits::default();
    let metadata = document.children(document.root(), "metadata").next();
    let alone = metadata.filter(|metadata| given.metadata && document.all_children(metadata).count() == 1);
    edits.remove(removal_span(xml, alone.unwrap_or(element).span()));
    if given.channel {
        for channel in channel::agent_channels(&document) {
            edits.remove(removal_span(xml, channel.span()));
        }
    }
    let without_channel = edits.apply(xml);
    let document = channel::parse_domain(&without_channel)?;
    let mut edits = Edits::default();
    let made = |word: &str| match &given.before {
        Some(before) => !before.iter().any(|old| old == word),
        None => given.controllers.iter().any(|new| new == word),
    };
    if given.channel {
        remove_unused(&document, made, &mut edits);
    }
    Ok(Injection { xml: edits.apply(&without_channel), changed: true })
}

/// Takes out the controllers that `made` names and nothing uses. A controller that goes frees the
/// one it was plugged into.
fn remove_unused(document: &Document<'_>, made: impl Fn(&str) -> bool, edits: &mut Edits) {
    let mut gone: Vec<&Element<'_>> = Vec::new();
    loop {
        let next = controllers(document).find(|(word, controller)| {
            let is_gone = gone.iter().any(|other| other.span() == controller.span());
            !is_gone && made(word) && !is_used(document, word, &gone)
        });
        let Some((_, controller)) = next else { break };
        gone.push(controller);
    }
    for controller in gone {
        edits.remove(removal_span(document.text, controller.span()));
    }
}

/// Whether a device that stays is plugged into this controller.
fn is_used(document: &Document<'_>, word: &str, gone: &[&Element<'_>]) -> bool {
    let Some((kind, index)) = word.split_once(':') else { return true };
    devices(document).filter(|device| !gone.iter().any(|other| other.span() == device.span())).any(|device| {
        document.children(device, "address").any(|address| match (kind, address.value("type")) {
            ("pci", Some("pci")) => address.value("bus").and_then(number) == number(index),
            ("virtio-serial", Some("virtio-serial")) => address.value("controller") == Some(index),
            ("pci" | "virtio-serial", _) => false,
            // Others are never made for a channel.
            _ => true,
        })
    })
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn devices<'d>(document: &'d Document<'d>) -> impl Iterator<Item = &'d Element<'d>> {
    document.children(document.root(), "devices").flat_map(|devices| document.all_children(devices))
}

/// Each controller with its type and index as one word.
fn controllers<'d>(document: &'d Document<'d>) -> impl Iterator<Item = (String, &'d Element<'d>)> {
    let controllers =
        devices(document).filter(|device| device.name == "controller" && device.namespace.is_none());
    controllers.filter_map(|controller| {
        let (kind, index) = (controller.value("type")?, controller.value("index")?);
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (plain(kind) && plain(index)).then(|| (format!("{kind}:{index}"), controller))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note { digest: "d".to_owned(), text: r#"{"a":"<b>"}"#.to_owned() }
    }

    fn domain(id: VmId, metadata: &str, devices: &str) -> String {
        format!(
            "<domain type='qemu'>\n  <name>a</name>\n  <uuid>{id}</uuid>\n{metadata}  <devices>\n    <controller type='pci' index='0' model='pcie-root'/>\n{devices}  </devices>\n</domain>\n"
        )
    }

    fn socket() -> &'static Path {
        Path::new("/run/a.sock")
    }

    const OTHER: &str = "  <metadata>\n    <x:other xmlns:x='urn:x'/>\n  </metadata>\n";
    const CHANNEL: &str = "    <channel type='unix'>\n      <source mode='bind' path='/theirs'/>\n      <target type='virtio' name='org.infinibay.agent'/>\n    </channel>\n";

    #[test]
    fn what_goes_in_comes_out_and_nothing_else() {
        let id = VmId::generate();
        for metadata in ["", "  <metadata/>\n", OTHER] {
            for devices in ["", "    <controller type='virtio-serial' index='0'/>\n", CHANNEL] {
                let before = domain(id, metadata, devices);
                let adopted = adopt_domain(&before, id, socket(), &note()).unwrap();
                assert!(adopted.changed && adopted.xml.contains("org.infinibay.agent"), "{}", adopted.xml);
                assert!(!adopt_domain(&adopted.xml, id, socket(), &note()).unwrap().changed);
                let released = release_domain(&adopted.xml, id).unwrap();
                let after = released.xml.replace("<metadata>\n  </metadata>", "<metadata/>");
                assert_eq!(after, before);
                assert!(!release_domain(&released.xml, id).unwrap().changed);
            }
        }
    }

    #[test]
    fn controllers_that_libvirt_made_go_with_the_channel_unless_they_are_used() {
        let id = VmId::generate();
        let before = domain(id, "", "");
        let adopted = adopt_domain(&before, id, socket(), &note()).unwrap().xml;
        let made = "    <controller type='virtio-serial' index='0'>\n      <address type='pci' bus='0x01'/>\n    </controller>\n    <controller type='pci' index='1' model='pcie-root-port'/>\n";
        let defined = adopted.replace("  </devices>", &format!("{made}  </devices>"));
        assert_eq!(release_domain(&defined, id).unwrap().xml, before, "before it was settled");
        let settled = settled_note(&defined, id, &note()).unwrap().unwrap();
        assert!(settled.contains("controllers='virtio-serial:0 pci:1'"), "{settled}");
        let settled = settled
            .replace("<vm ", "<infinibay:vm xmlns:infinibay='urn:infinibay:domain' ")
            .replace("</vm>", "</infinibay:vm>");
        let document = Document::parse(&defined).unwrap();
        let mut edits = Edits::default();
        note::write(&document, &settled, &mut edits);
        let settled = edits.apply(&defined);
        assert_eq!(settled_note(&settled, id, &note()).unwrap(), None);
        assert_eq!(release_domain(&settled, id).unwrap().xml, before);
        let spice = "    <channel type='spicevmc'>\n      <address type='virtio-serial' controller='0'/>\n    </channel>\n";
        let used = settled.replace("  </devices>", &format!("{spice}  </devices>"));
        let kept = release_domain(&used, id).unwrap().xml;
        assert_eq!(kept, before.replace("  </devices>", &format!("{made}{spice}  </devices>")));
    }

    #[test]
    fn copies_and_strange_channels_are_refused() {
        let (id, original) = (VmId::generate(), VmId::generate());
        let copy = domain(
            id,
            &format!("  <metadata>{}</metadata>\n", note::markup(original, &note(), None, true)),
            "",
        );
        assert_eq!(adopt_domain(&copy, id, socket(), &note()), Err(AdoptionError::Copy));
        let strange = domain(id, "", &CHANNEL.replace("mode='bind'", "mode='connect'"));
        assert_eq!(adopt_domain(&strange, id, socket(), &note()), Err(AdoptionError::OtherChannel));
        assert!(!release_domain(&copy, id).unwrap().changed);
    }
}
