//! Edits of a text by byte ranges, and the art of writing a new element the way its neighbours
//! are written.

use std::ops::Range;

use super::{
    document::{Document, Element},
    syntax::is_space,
};

/// Replacements that do not overlap. Kept apart from the text until all are known, so that the
/// ranges of a parsed document stay true while edits are collected.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    /// Puts `new` where `range` is.
    pub(crate) fn replace(&mut self, range: Range<usize>, new: &str) {
        self.0.push((range, new.to_owned()));
    }

    /// Takes `range` out.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        self.0.push((range, String::new()));
    }

    /// Takes the edits of another collection over.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text after all edits.
    pub(crate) fn apply(mut self, text: &str) -> String {
        self.0.sort_by_key(|(range, _)| (range.start, range.end));
        let grown: usize = self.0.iter().map(|(_, new)| new.len()).sum();
        let mut out = String::with_capacity(text.len() + grown);
        let mut at = 0;
        for (range, new) in &self.0 {
            out.push_str(&text[at..range.start]);
            out.push_str(new);
            at = range.end;
        }
        out.push_str(&text[at..]);
        out
    }
}

/// An element to be written, on one line or with others inside.
#[derive(Debug)]
pub(crate) enum Markup {
    /// Written on a line of its own.
    Line(String),
    /// A start tag, what is inside, an end tag.
    Open {
        /// `<name …>`.
        start: String,
        /// One level deeper.
        children: Vec<Markup>,
        /// `</name>`.
        end: String,
    },
}

impl Markup {
    /// As text; on several lines if there is a layout, else on one.
    pub(crate) fn to_text(&self, layout: Option<&Layout<'_>>) -> String {
        let mut out = String::new();
        self.write(layout, 0, &mut out);
        out
    }

    fn write(&self, layout: Option<&Layout<'_>>, depth: usize, out: &mut String) {
        match self {
            Self::Line(line) => out.push_str(line),
            Self::Open { start, children, end } => {
                out.push_str(start);
                for child in children {
                    break_line(layout, depth + 1, out);
                    child.write(layout, depth + 1, out);
                }
                break_line(layout, depth, out);
                out.push_str(end);
            }
        }
    }
}

fn break_line(layout: Option<&Layout<'_>>, depth: usize, out: &mut String) {
    if let Some(layout) = layout {
        layout.break_line(depth, out);
    }
}

/// How the lines around a place are written.
#[derive(Debug, Clone)]
pub(crate) struct Layout<'x> {
    line_end: &'x str,
    indent: String,
    unit: &'x str,
}

impl Layout<'_> {
    fn break_line(&self, depth: usize, out: &mut String) {
        out.push_str(self.line_end);
        out.push_str(&self.indent);
        for _ in 0..depth {
            out.push_str(self.unit);
        }
    }
}

/// The line end before `at` and the white space between the two, if nothing else stands there.
fn line_start(text: &str, at: usize) -> Option<(&str, &str)> {
    let before = &text[..at];
    let line = before.rfind('\n')?;
    let indent = &before[line + 1..];
    let line_end = if before[..line].ends_with('\r') { "\r\n" } else { "\n" };
    indent.bytes().all(is_space).then_some((line_end, indent))
}

/// The layout of the children of `parent`, as `child` shows it; `None` if `child` does not stand
/// on a line of its own.
fn layout_of<'x>(document: &Document<'x>, parent: &Element<'_>, child: &Element<'_>) -> Option<Layout<'x>> {
    let (line_end, indent) = line_start(document.text, child.start_tag.start)?;
    let unit = match line_start(document.text, parent.start_tag.start) {
        Some((_, outer)) => indent.strip_prefix(outer).filter(|unit| !unit.is_empty()),
        None => Some(indent).filter(|indent| !indent.is_empty()),
    };
    Some(Layout { line_end, indent: indent.to_owned(), unit: unit.unwrap_or("  ") })
}

/// Writes `markup` behind `sibling`, as a child of `parent`.
pub(crate) fn insert_after(
    document: &Document<'_>,
    parent: &Element<'_>,
    sibling: &Element<'_>,
    markup: &Markup,
    edits: &mut Edits,
) {
    let at = sibling.span().end;
    let layout = layout_of(document, parent, sibling);
    let mut new = String::new();
    break_line(layout.as_ref(), 0, &mut new);
    new.push_str(&markup.to_text(layout.as_ref()));
    edits.replace(at..at, &new);
}

/// Writes `markup` as the last child of `parent`.
pub(crate) fn append_child(document: &Document<'_>, parent: &Element<'_>, markup: Markup, edits: &mut Edits) {
    if let Some(last) = document.all_children(parent).last() {
        insert_after(document, parent, last, &markup, edits);
        return;
    }
    // No neighbour to learn from: one level deeper than the parent, on lines of its own if the
    // parent has such.
    let text = document.text;
    let layout = line_start(text, parent.start_tag.start).map(|(line_end, indent)| Layout {
        line_end,
        indent: indent.to_owned(),
        unit: "  ",
    });
    let start = text[parent.start_tag.clone()].trim_end_matches(['/', '>']).to_owned();
    let name = tag_name(&start);
    let whole = |inner: Vec<Markup>| Markup::Open {
        start: format!("{start}>"),
        children: inner,
        end: format!("</{name}>"),
    };
    if parent.is_self_closed() {
        edits.replace(parent.span(), &whole(vec![markup]).to_text(layout.as_ref()));
        return;
    }
    // Comments may stand between the tags; they keep their place.
    let inner = parent.start_tag.end..parent.end_tag.start;
    let kept = text[inner.clone()].trim_end_matches([' ', '\t', '\r', '\n']).len();
    let full = whole(vec![markup]).to_text(layout.as_ref());
    let head = format!("{start}>").len();
    let tail = format!("</{name}>").len();
    edits.replace(inner.start + kept..inner.end, &full[head..full.len() - tail]);
}

fn tag_name(start: &str) -> String {
    start
        .trim_start_matches('<')
        .split(|c: char| c.is_ascii_whitespace())
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The range to take out with an element: the element, and the line break and indentation before
/// it if it stands on a line of its own.
pub(crate) fn removal_span(text: &str, element: Range<usize>) -> Range<usize> {
    let start = match line_start(text, element.start) {
        Some((line_end, indent)) => element.start - indent.len() - line_end.len(),
        None => element.start,
    };
    start..element.end
}
