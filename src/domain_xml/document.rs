//! A domain's XML as a list of elements that remember where they stand in the text.
//!
//! Reading facts and editing bytes both need the same three things: a parser that accepts only
//! whole, well-formed documents (the pull parser alone takes a truncated one for complete), the
//! path of each element, and byte ranges. Editing by ranges is what keeps every foreign byte:
//! nothing is ever serialised again.

use std::{borrow::Cow, ops::Range};

use quick_xml::{Reader, escape, events::Event};

use super::{
    malformed::Malformed,
    syntax::{self, Attribute},
};

/// Longest document looked at, bytes: what libvirt's own protocol carries in one string.
const MAX_BYTES: usize = 16 << 20;
/// Deepest nesting looked at; libxml2 and with it libvirt stop there too.
const MAX_DEPTH: usize = 256;
const BOM: &str = "\u{feff}";

/// One element. Ranges are byte ranges of the whole text.
#[derive(Debug)]
pub(crate) struct Element<'x> {
    /// The local name; the qualified one where its prefix was never declared.
    pub(crate) name: &'x str,
    /// The namespace, where it has one.
    pub(crate) namespace: Option<Cow<'x, str>>,
    /// The attributes, in order.
    pub(crate) attributes: Vec<Attribute<'x>>,
    /// `<name …>` or `<name …/>`.
    pub(crate) start_tag: Range<usize>,
    /// `</name>`; empty, at the end of the start tag, where that closes itself.
    pub(crate) end_tag: Range<usize>,
    depth: usize,
}

impl<'x> Element<'x> {
    /// From the first byte of the start tag to the last of the end tag.
    pub(crate) fn span(&self) -> Range<usize> {
        self.start_tag.start..self.end_tag.end
    }

    /// Whether it is written `<name/>`.
    pub(crate) fn is_self_closed(&self) -> bool {
        self.end_tag.is_empty()
    }

    /// An attribute by its qualified name.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute<'x>> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// An attribute's value, entities resolved.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.attribute(name).map(|attribute| attribute.value.as_ref())
    }
}

/// A whole, well-formed document.
#[derive(Debug)]
pub(crate) struct Document<'x> {
    /// The text it was read from.
    pub(crate) text: &'x str,
    /// In document order; the root comes first.
    elements: Vec<Element<'x>>,
}

impl<'x> Document<'x> {
    /// Reads `text`; one root element, everything closed, nothing after it.
    pub(crate) fn parse(text: &'x str) -> Result<Self, Malformed> {
        if text.len() > MAX_BYTES {
            return Err(Malformed::new(format!("the document is longer than {MAX_BYTES} bytes"), MAX_BYTES));
        }
        syntax::check_characters(text)?;
        // A byte order mark would shift the parser's positions.
        let base = if text.starts_with(BOM) { BOM.len() } else { 0 };
        let mut reader = Reader::from_str(&text[base..]);
        reader.config_mut().check_comments = true;
        let mut building = Building { text, elements: Vec::new(), open: Vec::new(), namespaces: Vec::new() };
        loop {
            let start = base + position(&reader);
            let event = reader.read_event().map_err(|e| Malformed::new(e.to_string(), start))?;
            let span = start..base + position(&reader);
            if matches!(event, Event::Eof) {
                return building.finish();
            }
            building.take(&event, span, base)?;
        }
    }

    /// The root element.
    pub(crate) fn root(&self) -> &Element<'x> {
        &self.elements[0]
    }

    /// The direct children of `parent` that are called `name` and are in no namespace, which is
    /// how libvirt looks for its own elements.
    pub(crate) fn children<'d>(
        &'d self,
        parent: &'d Element<'x>,
        name: &'d str,
    ) -> impl Iterator<Item = &'d Element<'x>> {
        self.all_children(parent).filter(move |child| child.name == name && child.namespace.is_none())
    }

    /// The direct children of `parent`.
    pub(crate) fn all_children<'d>(
        &'d self,
        parent: &'d Element<'x>,
    ) -> impl Iterator<Item = &'d Element<'x>> {
        let first = self.elements.partition_point(|e| e.start_tag.start <= parent.start_tag.start);
        self.elements[first..]
            .iter()
            .take_while(|e| e.start_tag.start < parent.end_tag.start)
            .filter(|e| e.depth == parent.depth + 1)
    }

    /// The character data that stands directly in `element`.
    pub(crate) fn text_of(&self, element: &Element<'x>) -> Result<String, Malformed> {
        let from = element.start_tag.end;
        let inner = &self.text[from..element.end_tag.start.max(from)];
        let mut reader = Reader::from_str(inner);
        let (mut depth, mut out) = (0_usize, String::new());
        loop {
            let at = from + position(&reader);
            match reader.read_event().map_err(|e| Malformed::new(e.to_string(), at))? {
                Event::Start(_) => depth += 1,
                Event::End(_) => depth = depth.saturating_sub(1),
                Event::Text(text) if depth == 0 => out.push_str(&text.xml10_content()),
                Event::CData(text) if depth == 0 => out.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) if depth == 0 => {
                    out.push_str(&syntax::resolve_reference(&reference, at)?);
                }
                Event::Eof => return Ok(out),
                _ => {}
            }
        }
    }
}

/// A document half read.
struct Building<'x> {
    text: &'x str,
    elements: Vec<Element<'x>>,
    /// Indices of the elements not yet closed.
    open: Vec<usize>,
    /// Declared prefixes, with the number of elements open at the declaration.
    namespaces: Vec<(usize, &'x str, Cow<'x, str>)>,
}

impl<'x> Building<'x> {
    fn take(&mut self, event: &Event<'_>, span: Range<usize>, base: usize) -> Result<(), Malformed> {
        let at = span.start;
        match event {
            Event::Start(_) => self.start(span, false),
            Event::Empty(_) => self.start(span, true),
            Event::End(_) => self.end(span),
            Event::Text(_) if self.open.is_empty() => {
                let blank = self.text[span].bytes().all(syntax::is_space);
                if blank { Ok(()) } else { Err(Malformed::new("there is text outside the root element", at)) }
            }
            Event::Text(_) if self.text[span.clone()].contains("]]>") => {
                Err(Malformed::new("']]>' stands in text", at))
            }
            Event::CData(_) | Event::GeneralRef(_) if self.open.is_empty() => {
                Err(Malformed::new("there is text outside the root element", at))
            }
            Event::GeneralRef(reference) => syntax::resolve_reference(reference, at).map(drop),
            Event::Decl(declaration) => {
                if at != base {
                    return Err(Malformed::new("an XML declaration stands where none may stand", at));
                }
                syntax::check_declaration(declaration, at)
            }
            Event::DocType(_) if !self.elements.is_empty() => {
                Err(Malformed::new("a document type declaration stands after the root element", at))
            }
            // An internal subset may define entities, and then nothing means what it seems to.
            Event::DocType(_) if self.text[span].contains('[') => {
                Err(Malformed::new("the document type declaration has an internal subset", at))
            }
            Event::PI(instruction) => syntax::check_instruction(instruction, at),
            _ => Ok(()),
        }
    }

    fn start(&mut self, span: Range<usize>, self_closed: bool) -> Result<(), Malformed> {
        if self.open.is_empty() && !self.elements.is_empty() {
            return Err(Malformed::new("there is a second root element", span.start));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Malformed::new(format!("elements are nested deeper than {MAX_DEPTH}"), span.start));
        }
        let inner = span.start + 1..span.end - if self_closed { 2 } else { 1 };
        let (qualified, attributes) = syntax::read_tag(self.text, inner)?;
        let depth = self.open.len();
        for attribute in &attributes {
            let prefix = match attribute.name {
                "xmlns" => "",
                name => match name.strip_prefix("xmlns:") {
                    Some(prefix) => prefix,
                    None => continue,
                },
            };
            self.namespaces.push((depth, prefix, attribute.value.clone()));
        }
        let (prefix, local) = qualified.split_once(':').unwrap_or(("", qualified));
        let declared = self.namespaces.iter().rev().find(|(_, declared, _)| *declared == prefix);
        let namespace = declared.map(|(_, _, uri)| uri.clone()).filter(|uri| !uri.is_empty());
        let name = if namespace.is_some() { local } else { qualified };
        let end_tag = span.end..span.end;
        self.elements.push(Element { name, namespace, attributes, start_tag: span, end_tag, depth });
        if self_closed {
            self.forget_namespaces(depth);
        } else {
            self.open.push(self.elements.len() - 1);
        }
        Ok(())
    }

    fn end(&mut self, span: Range<usize>) -> Result<(), Malformed> {
        // The parser has compared the names already.
        let Some(index) = self.open.pop() else {
            return Err(Malformed::new("an end tag has no start tag", span.start));
        };
        self.elements[index].end_tag = span;
        self.forget_namespaces(self.open.len());
        Ok(())
    }

    fn forget_namespaces(&mut self, depth: usize) {
        while self.namespaces.last().is_some_and(|(declared_at, ..)| *declared_at >= depth) {
            self.namespaces.pop();
        }
    }

    fn finish(self) -> Result<Document<'x>, Malformed> {
        if let Some(&index) = self.open.last() {
            let element = &self.elements[index];
            let reason = format!("the document ends inside <{}>", element.name);
            return Err(Malformed::new(reason, self.text.len()));
        }
        if self.elements.is_empty() {
            return Err(Malformed::new("there is no element", self.text.len()));
        }
        Ok(Document { text: self.text, elements: self.elements })
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// `text` fit for an attribute value in single or double quotes.
pub(crate) fn escape_attribute(text: &str) -> Cow<'_, str> {
    escape::escape(text)
}
