//! Our element in a domain's `<metadata>`: whose the domain is, what the VM is, and what an adopted
//! one was given, so that just that can be taken back.
//!
//! ```xml
//! <infinibay:vm xmlns:infinibay='urn:infinibay:domain' id='…' schema='2' digest='…'
//!               added='channel metadata' controllers='virtio-serial:0'>{"spec":…}</infinibay:vm>
//! ```
//!
//! `added` is there only on adopted domains. Until libvirt has shown which controllers it made for
//! the channel, `before` stands in the place of `controllers` and names those that were there.

use super::{
    METADATA_NAMESPACE, METADATA_SCHEMA,
    document::{Document, Element, escape_attribute},
    edit::{Edits, Markup, append_child, insert_after},
    malformed::Malformed,
    syntax::is_xml_text,
    uuid::parse_uuid,
};
use crate::vm::VmId;

/// What is written into the element: a text of JSON, and a short word that tells it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// See [`crate::vm::VmNote::digest`].
    pub digest: String,
    /// JSON.
    pub text: String,
}

/// What an adopted domain was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Given {
    /// The channel: the domain had none.
    pub(super) channel: bool,
    /// `<metadata>` itself.
    pub(super) metadata: bool,
    /// Its controllers (`type:index`) before the channel came, as long as those that libvirt added
    /// are not known.
    pub(super) before: Option<Vec<String>>,
    /// The controllers that libvirt added for the channel.
    pub(super) controllers: Vec<String>,
}

/// The element as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundNote {
    /// Whose it is. In a copy of a domain: the original's.
    pub id: Option<VmId>,
    /// Its version.
    pub schema: String,
    /// Empty where it says none.
    pub digest: String,
    /// JSON, unchecked: anybody who may use libvirt can write it.
    pub text: String,
    pub(super) given: Option<Given>,
}

impl FoundNote {
    /// Whether it says that the domain was adopted, not made.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.given.is_some()
    }
}

/// All elements of ours below the root's `<metadata>`.
pub(super) fn elements<'d>(document: &'d Document<'d>) -> impl Iterator<Item = &'d Element<'d>> {
    document
        .children(document.root(), "metadata")
        .flat_map(|metadata| document.all_children(metadata))
        .filter(|child| child.name == "vm" && child.namespace.as_deref() == Some(METADATA_NAMESPACE))
}

/// Reads one such element.
pub(super) fn read(document: &Document<'_>, element: &Element<'_>) -> Result<FoundNote, Malformed> {
    let words = |name| {
        element.value(name).map(|value| value.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let given = words("added").map(|added| Given {
        channel: added.iter().any(|word| word == "channel"),
        metadata: added.iter().any(|word| word == "metadata"),
        before: words("before"),
        controllers: words("controllers").unwrap_or_default(),
    });
    let value = |name| element.value(name).unwrap_or_default().to_owned();
    Ok(FoundNote {
        id: element.value("id").and_then(parse_uuid),
        schema: value("schema"),
        digest: value("digest"),
        text: document.text_of(element)?.trim().to_owned(),
        given,
    })
}

/// The element of a domain's XML: that which names the domain itself, else any other.
///
/// # Errors
/// Not one whole, well-formed document.
pub fn find_note(xml: &str) -> Result<Option<FoundNote>, Malformed> {
    let document = Document::parse(xml)?;
    let id = match document.children(document.root(), "uuid").next() {
        Some(uuid) => parse_uuid(&document.text_of(uuid)?),
        None => None,
    };
    let found = elements(&document).map(|element| read(&document, element)).collect::<Result<Vec<_>, _>>()?;
    let own = found.iter().position(|note| note.id.is_some() && note.id == id);
    Ok(found.into_iter().nth(own.unwrap_or(0)))
}

/// The element on its own. libvirt gives it its namespace when it is handed over without.
pub(super) fn markup(id: VmId, note: &Note, given: Option<&Given>, prefixed: bool) -> String {
    let (prefix, namespace) = if prefixed {
        ("infinibay:", format!(" xmlns:infinibay='{METADATA_NAMESPACE}'"))
    } else {
        ("", String::new())
    };
    let mut attributes =
        format!(" id='{id}' schema='{METADATA_SCHEMA}' digest='{}'", escape_attribute(&note.digest));
    if let Some(given) = given {
        let words = [("channel", given.channel), ("metadata", given.metadata)];
        let added: Vec<_> = words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
        attributes.push_str(&format!(" added='{}'", added.join(" ")));
        let (name, list) = match &given.before {
            Some(before) => ("before", before),
            None => ("controllers", &given.controllers),
        };
        attributes.push_str(&format!(" {name}='{}'", escape_attribute(&list.join(" "))));
    }
    format!("<{prefix}vm{namespace}{attributes}>{}</{prefix}vm>", escape_text(&note.text))
}

/// The element for a change of metadata, which replaces the one that is there: what an adopted
/// domain was given stays noted.
#[must_use]
pub fn note_element(id: VmId, note: &Note, found: Option<&FoundNote>) -> String {
    let own = found.filter(|found| found.id == Some(id));
    markup(id, note, own.and_then(|found| found.given.as_ref()), false)
}

/// JSON as XML text. What XML cannot carry stands inside of strings only, and can be written there
/// as JSON's escape.
fn escape_text(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 4);
    let mut buffer = [0_u8; 4];
    for c in json.chars() {
        let one = c.encode_utf8(&mut buffer);
        if is_xml_text(one) {
            out.push_str(&escape_attribute(one));
        } else {
            let mut units = [0_u16; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Writes the note into the XML of a domain that is about to be defined.
///
/// # Errors
/// Not one whole, well-formed document.
pub fn put_note(xml: &str, id: VmId, note: &Note) -> Result<String, Malformed> {
    let document = Document::parse(xml)?;
    let mut edits = Edits::default();
    write(&document, &markup(id, note, None, true), &mut edits);
    Ok(edits.apply(xml))
}

/// Replaces our element, or adds it.
pub(super) fn write(document: &Document<'_>, element: &str, edits: &mut Edits) {
    if let Some(old) = elements(document).next() {
        edits.replace(old.span(), element);
        return;
    }
    let line = Markup::Line(element.to_owned());
    let root = document.root();
    if let Some(metadata) = document.children(root, "metadata").next() {
        append_child(document, metadata, line, edits);
        return;
    }
    let metadata =
        Markup::Open { start: "<metadata>".to_owned(), children: vec![line], end: "</metadata>".to_owned() };
    match document.children(root, "uuid").next().or_else(|| document.children(root, "name").next()) {
        Some(sibling) => insert_after(document, root, sibling, &metadata, edits),
        None => append_child(document, root, metadata, edits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(id: VmId, metadata: &str) -> String {
        format!("<domain>\n  <name>a</name>\n  <uuid>{id}</uuid>\n{metadata}</domain>\n")
    }

    #[test]
    fn a_note_comes_back_as_it_was_written() {
        let id = VmId::generate();
        let text = serde_json::to_string("<>&'\"]]>\u{fffe}\u{1}\n é").unwrap();
        let note = Note { digest: "abc".to_owned(), text: text.clone() };
        for metadata in ["", "  <metadata/>\n", "  <metadata>\n    <other xmlns='urn:x'/>\n  </metadata>\n"] {
            let once = put_note(&domain(id, metadata), id, &note).unwrap();
            let twice = put_note(&once, id, &note).unwrap();
            assert_eq!(once, twice);
            let found = find_note(&once).unwrap().unwrap();
            assert_eq!(
                (found.id, found.digest.as_str(), found.schema.as_str()),
                (Some(id), "abc", METADATA_SCHEMA)
            );
            let read: String = serde_json::from_str(&found.text).unwrap();
            assert_eq!(read, serde_json::from_str::<String>(&text).unwrap());
            assert!(!found.is_adopted());
            assert!(metadata.contains("other") == once.contains("<other xmlns='urn:x'/>"));
        }
    }

    #[test]
    fn of_several_elements_the_domains_own_is_taken() {
        let (id, other) = (VmId::generate(), VmId::generate());
        let note = |digest: &str| Note { digest: digest.to_owned(), text: "{}".to_owned() };
        let element = |id, digest| markup(id, &note(digest), None, true);
        let both = format!("<metadata>{}{}</metadata>", element(other, "other"), element(id, "own"));
        assert_eq!(find_note(&domain(id, &both)).unwrap().unwrap().digest, "own");
        let copied = format!("<metadata>{}</metadata>", element(other, "other"));
        assert_eq!(find_note(&domain(id, &copied)).unwrap().unwrap().id, Some(other));
        assert_eq!(find_note(&domain(id, "")).unwrap(), None);
    }
}
