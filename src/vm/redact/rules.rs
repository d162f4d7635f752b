//! An operator's own rules: names, flags and patterns, each a regular expression in the end.
//!
//! They read the line as the built-in rules left it, all of them the same text, so that none
//! depends on another's order; what they find is joined, so that a line grows by a bounded amount
//! whatever the patterns are. The expressions take time in proportion to the line, and memory
//! within a limit.

use std::ops::Range;

use regex::{Captures, Regex, RegexBuilder};

use super::HIDDEN;

/// Of names, of flags, and of patterns.
const MAX_RULES: usize = 64;
const MAX_NAME: usize = 64;
/// Characters of one pattern.
const MAX_PATTERN: usize = 1024;
/// What one compiled expression may take, bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A word as shells and JSON hold it together, quotes and all.
const VALUE: &str = r#"((?:\\?"[^"]*"?|'[^']*'?|[^\s"';|&<>()])+)"#;

/// Why rules cannot be used. A rule is told by its number, never by its text: that may hold the
/// very secret it is to hide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactionError {
    /// More than anybody needs.
    #[error("holds more than {MAX_RULES} entries")]
    TooMany,
    /// A name that is none.
    #[error("entry {number} is not a name of 1 to {MAX_NAME} letters, digits and '_.-'")]
    Name {
        /// Counted from 1.
        number: usize,
    },
    /// Not a program and its flag.
    #[error("entry {number} is not a program and its flag, as in 'mytool --pin' or 'mytool -p'")]
    Flag {
        /// Counted from 1.
        number: usize,
    },
    /// Not a regular expression, or one that would grow too large.
    #[error("entry {number} {reason}")]
    Pattern {
        /// Counted from 1.
        number: usize,
        /// As the rest of a sentence, without the pattern.
        reason: String,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// What the first group matches is hidden, or all of it where there is no group.
    expressions: Vec<Regex>,
    flags: Vec<Flag>,
}

/// A program's flag. Only what follows the program is looked at.
#[derive(Debug)]
struct Flag {
    program: Regex,
    value: Regex,
}

impl Rules {
    pub(super) fn new(names: &[&str], flags: &[&str], patterns: &[&str]) -> Result<Self, RedactionError> {
        if [names, flags, patterns].iter().any(|entries| entries.len() > MAX_RULES) {
            return Err(RedactionError::TooMany);
        }
        let mut rules = Self::default();
        for (number, name) in (1..).zip(names) {
            rules.expressions.extend(named(name).ok_or(RedactionError::Name { number })?);
        }
        for (number, flag) in (1..).zip(flags) {
            rules.flags.push(flagged(flag).ok_or(RedactionError::Flag { number })?);
        }
        for (number, text) in (1..).zip(patterns) {
            let pattern = pattern(text).map_err(|reason| RedactionError::Pattern { number, reason })?;
            rules.expressions.push(pattern);
        }
        Ok(rules)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.expressions.is_empty() && self.flags.is_empty()
    }

    /// The line without what the rules find; `None` where that is nothing.
    pub(super) fn hide(&self, line: &str) -> Option<String> {
        let mut found = Vec::new();
        for expression in &self.expressions {
            found.extend(expression.captures_iter(line).filter_map(|captures| hidden(&captures)));
        }
        for Flag { program, value } in &self.flags {
            let Some(start) = program.find(line).map(|program| program.end()) else { continue };
            let values = value.captures_iter(&line[start..]).filter_map(|captures| hidden(&captures));
            found.extend(values.map(|range| start + range.start..start + range.end));
        }
        let found = joined(found);
        // What is hidden already stays as it is.
        if found.iter().all(|range| &line[range.clone()] == HIDDEN) {
            return None;
        }
        let mut out = String::with_capacity(line.len());
        let mut at = 0;
        for range in found {
            out.push_str(&line[at..range.start]);
            out.push_str(HIDDEN);
            at = range.end;
        }
        out.push_str(&line[at..]);
        Some(out)
    }
}

/// The part to hide; a match of nothing hides nothing.
fn hidden(captures: &Captures<'_>) -> Option<Range<usize>> {
    // A first group that took no part in the match has nothing to hide.
    let part = if captures.len() > 1 { captures.get(1) } else { captures.get(0) };
    part.map(|part| part.range()).filter(|range| !range.is_empty())
}

/// In order, with those that touch or overlap made one.
fn joined(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// `name=value`, `name: value`, `"name": "value"`, `/name:value`; and `--name value`.
fn named(entry: &str) -> Option<[Regex; 2]> {
    let name = entry.trim_start_matches('-');
    if !is_name(name) {
        return None;
    }
    let name = regex::escape(name);
    let given = format!(r#"(?:^|[^A-Za-z0-9_])(?i:{name})(?:\\?["'])?\s*[=:]\s*{VALUE}"#);
    let follows = format!(r#"(?:^|[\s"'(])--?(?i:{name})\s+{VALUE}"#);
    Some([compiled(&given).ok()?, compiled(&follows).ok()?])
}

/// `program -f value`, `program -fvalue`, `program --flag value`, `program --flag=value`.
fn flagged(entry: &str) -> Option<Flag> {
    let (program, flag) = entry.split_once(char::is_whitespace)?;
    let flag = flag.trim_start();
    let name = flag.strip_prefix("--").or_else(|| flag.strip_prefix('-'))?;
    if !is_name(program) || !is_name(name) || program.starts_with('-') || name.starts_with('-') {
        return None;
    }
    // Only a single letter may have its value attached: `-port` is not `-p ort` everywhere, but
    // hiding too much is the lesser harm.
    let parted = if flag.len() == 2 { r"[\s=:]*" } else { r"(?:\s*[=:]\s*|\s+)" };
    let (program, flag) = (regex::escape(program), regex::escape(flag));
    let program = format!(r#"(?:^|[\s"';|&(/\\]){program}(?:\.exe)?(?:["']|\s)"#);
    let value = format!(r#"(?:^|[\s"'(]){flag}{parted}{VALUE}"#);
    Some(Flag { program: compiled(&program).ok()?, value: compiled(&value).ok()? })
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.chars().count() > MAX_PATTERN {
        return Err(format!("has more than {MAX_PATTERN} characters"));
    }
    compiled(text).map_err(|error| match error {
        // The last line says what is wrong, those before it repeat the pattern.
        regex::Error::Syntax(words) => {
            let what = words.lines().last().and_then(|line| line.strip_prefix("error: "));
            format!("is not a regular expression: {}", what.unwrap_or("it cannot be read"))
        }
        _ => format!("takes more than {MAX_COMPILED} bytes once compiled"),
    })
}

fn compiled(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build()
}

#[cfg(test)]
mod tests;
