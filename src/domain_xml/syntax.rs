//! The parts of XML's grammar that the pull parser leaves to its callers: characters, names,
//! attributes with their places, references.
//!
//! They are checked because an edit must never be made in a text that libvirt will read in
//! another way than we did.

use std::{borrow::Cow, ops::Range};

use quick_xml::{
    escape,
    events::{BytesDecl, BytesPI, BytesRef},
};

use super::malformed::Malformed;

/// One attribute of a start tag.
#[derive(Debug)]
pub(crate) struct Attribute<'x> {
    /// The qualified name.
    pub(crate) name: &'x str,
    /// The value, entities resolved and white space normalised.
    pub(crate) value: Cow<'x, str>,
    /// Where the raw value stands, without its quotes.
    pub(crate) value_span: Range<usize>,
}

/// White space, as XML has it.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Whether an XML document can carry every character of `text`.
pub(crate) fn is_xml_text(text: &str) -> bool {
    text.chars().all(is_xml_char)
}

/// Refuses characters that no XML document holds.
pub(crate) fn check_characters(text: &str) -> Result<(), Malformed> {
    match text.char_indices().find(|&(_, c)| !is_xml_char(c)) {
        Some((at, c)) => Err(Malformed::new(format!("{c:?} may not stand in XML"), at)),
        None => Ok(()),
    }
}

fn is_name_start(c: char) -> bool {
    matches!(c, ':' | '_' | 'A'..='Z' | 'a'..='z'
        | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
        | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}'
        | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_name_start) && characters.all(|c| {
        is_name_start(c)
            || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
    })
}

/// Reads what stands between `<` and `>` (or `/>`): the element's name and its attributes.
pub(crate) fn read_tag(text: &str, inner: Range<usize>) -> Result<(&str, Vec<Attribute<'_>>), Malformed> {
    let mut cursor = Cursor { text, at: inner.start, end: inner.end };
    let name = cursor.name()?;
    let mut attributes: Vec<Attribute<'_>> = Vec::new();
    loop {
        let spaced = cursor.skip_space();
        if cursor.at == cursor.end {
            return Ok((name, attributes));
        }
        let start = cursor.at;
        if !spaced {
            return Err(Malformed::new("white space is missing before an attribute", start));
        }
        let attribute = cursor.attribute()?;
        if attributes.iter().any(|other| other.name == attribute.name) {
            return Err(Malformed::new(format!("attribute {} stands twice", attribute.name), start));
        }
        attributes.push(attribute);
    }
}

struct Cursor<'x> {
    text: &'x str,
    at: usize,
    end: usize,
}

impl<'x> Cursor<'x> {
    fn rest(&self) -> &'x str {
        &self.text[self.at..self.end]
    }

    fn skip_space(&mut self) -> bool {
        let skipped = self.rest().bytes().take_while(|&b| is_space(b)).count();
        self.at += skipped;
        skipped > 0
    }

    fn name(&mut self) -> Result<&'x str, Malformed> {
        let rest = self.rest();
        let length = rest.bytes().position(|b| is_space(b) || b == b'=').unwrap_or(rest.len());
        let name = &rest[..length];
        if !is_name(name) {
            return Err(Malformed::new(format!("{name:?} is not a name"), self.at));
        }
        self.at += length;
        Ok(name)
    }

    fn attribute(&mut self) -> Result<Attribute<'x>, Malformed> {
        let name = self.name()?;
        self.skip_space();
        if !self.rest().starts_with('=') {
            return Err(Malformed::new(format!("attribute {name} has no value"), self.at));
        }
        self.at += 1;
        self.skip_space();
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Err(Malformed::new(format!("the value of {name} has no quotes"), self.at)),
        };
        self.at += 1;
        let start = self.at;
        let Some(length) = self.rest().find(quote) else {
            return Err(Malformed::new(format!("the value of {name} does not end"), start));
        };
        let raw = &self.rest()[..length];
        if raw.contains('<') {
            return Err(Malformed::new(format!("'<' stands in the value of {name}"), start));
        }
        self.at += length + 1;
        Ok(Attribute { name, value: attribute_value(raw, start)?, value_span: start..start + length })
    }
}

/// Resolves references and normalises white space, as XML 1.0 says for attributes.
fn attribute_value(raw: &str, at: usize) -> Result<Cow<'_, str>, Malformed> {
    let wrong = |e: &dyn std::fmt::Display| Malformed::new(e.to_string(), at);
    if !raw.contains(['&', '\t', '\r', '\n']) {
        return Ok(Cow::Borrowed(raw));
    }
    let spaced = raw.replace("\r\n", " ").replace(['\t', '\r', '\n'], " ");
    let value = escape::unescape(&spaced).map_err(|e| wrong(&e))?.into_owned();
    if !is_xml_text(&value) {
        return Err(wrong(&"a character reference names no XML character"));
    }
    Ok(Cow::Owned(value))
}

/// The text of `&…;`.
pub(crate) fn resolve_reference(reference: &BytesRef<'_>, at: usize) -> Result<String, Malformed> {
    let resolved = match reference.resolve_char_ref() {
        Ok(Some(c)) if is_xml_char(c) => return Ok(c.to_string()),
        Ok(Some(_)) | Err(_) => None,
        Ok(None) => escape::resolve_predefined_entity(reference),
    };
    resolved
        .map(str::to_owned)
        .ok_or_else(|| Malformed::new(format!("&{}; is not a reference known here", &**reference), at))
}

/// Refuses a declaration of an encoding that the text, being UTF-8, cannot have.
pub(crate) fn check_declaration(declaration: &BytesDecl<'_>, at: usize) -> Result<(), Malformed> {
    let wrong = |e: &dyn std::fmt::Display| Malformed::new(format!("the XML declaration: {e}"), at);
    let version = declaration.version().map_err(|e| wrong(&e))?;
    if !matches!(version.as_ref(), "1.0" | "1.1") {
        return Err(wrong(&"unknown version"));
    }
    let Some(encoding) = declaration.encoding() else { return Ok(()) };
    let encoding = encoding.map_err(|e| wrong(&e))?;
    if ["UTF-8", "US-ASCII", "ASCII"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) {
        Ok(())
    } else {
        Err(wrong(&format_args!("encoding {encoding} is declared, but the text is UTF-8")))
    }
}

/// Refuses instructions with a target that is no name or is reserved.
pub(crate) fn check_instruction(instruction: &BytesPI<'_>, at: usize) -> Result<(), Malformed> {
    let target = instruction.target();
    if is_name(target) && !target.eq_ignore_ascii_case("xml") {
        Ok(())
    } else {
        Err(Malformed::new(format!("{target:?} cannot be the target of an instruction"), at))
    }
}
