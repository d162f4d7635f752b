//! Files that an operator may put in the place of a built-in template.
//!
//! Whatever is wrong with one keeps the daemon from starting, and is told with the file's path and
//! a line of it, also where only what came out of it shows the mistake. What a template is for is
//! not known here.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Longest template file read, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A template's text, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateText {
    /// Its place in the templates directory, such as `linux.xml`.
    pub name: &'static str,
    /// The operator's file; absent where it is built in.
    pub path: Option<PathBuf>,
    /// The text.
    pub text: String,
}

/// A template file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {path}", path = .path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A place in a template: `FILE:LINE`, or the file alone where no line is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The operator's file, or the template's name where it is built in.
    pub file: String,
    /// Counted from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

impl TemplateText {
    /// The file of that name in `dir`, or else the built-in text. Reads a file: not for an async
    /// thread.
    ///
    /// # Errors
    /// A file that is there and cannot be read, is too long or is no text. One that is not there is
    /// none.
    pub fn load(dir: Option<&Path>, name: &'static str, built_in: &str) -> Result<Self, ReadError> {
        if let Some(path) = dir.map(|dir| dir.join(name)) {
            let read = read(&path).map_err(|source| ReadError { path: path.clone(), source })?;
            if let Some(text) = read {
                return Ok(Self { name, path: Some(path), text });
            }
        }
        Ok(Self { name, path: None, text: built_in.to_owned() })
    }

    /// This line of it.
    #[must_use]
    pub fn at(&self, line: Option<usize>) -> Place {
        let file = self.path.as_ref().map_or_else(|| self.name.to_owned(), |path| path.display().to_string());
        Place { file, line }
    }

    /// The first line that holds one of `words`, the first of them that is found at all; otherwise
    /// the first line. What stands in a template's comments is not looked at.
    #[must_use]
    pub fn mentions(&self, words: &[&str]) -> Place {
        let text = without_comments(&self.text);
        let line = words.iter().find_map(|word| text.lines().position(|line| line.contains(word)));
        self.at(Some(line.unwrap_or(0) + 1))
    }

    /// The line that gave line `number` of `output`, as far as one can tell: of those whose fixed
    /// parts all stand in it, in their order, the one with the most of them; otherwise the first.
    #[must_use]
    pub fn gave(&self, output: &str, number: usize) -> Place {
        let lines: Vec<&str> = output.lines().collect();
        // What is missing at the end is missing behind the last one.
        let Some(given) = lines.get(number.saturating_sub(1)).or(lines.last()) else {
            return self.at(Some(1));
        };
        let mut best = (0, 1);
        for (index, line) in without_comments(&self.text).lines().enumerate() {
            let fixed = fixed_in(line, given.trim());
            if fixed > best.0 {
                best = (fixed, index + 1);
            }
        }
        self.at(Some(best.1))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(found) if !found.is_file() || found.len() > MAX_BYTES => {
            Err(io::Error::other(format!("not a file of at most {MAX_BYTES} bytes")))
        }
        Ok(_) => std::fs::read_to_string(path).map(Some),
    }
}

/// How many bytes of `given` are fixed parts of the template's line, or 0 if one is not there.
fn fixed_in(line: &str, given: &str) -> usize {
    let (mut rest, mut left, mut fixed) = (line.trim(), given, 0);
    loop {
        let tag = ["{{", "{%"].iter().filter_map(|open| Some((rest.find(open)?, *open))).min();
        let literal = tag.map_or(rest, |(at, _)| &rest[..at]);
        let Some(at) = left.find(literal) else { return 0 };
        left = &left[at + literal.len()..];
        fixed += literal.len();
        let Some((at, open)) = tag else { return fixed };
        let close = if open == "{{" { "}}" } else { "%}" };
        // One that ends on another line: what follows there is no part of this one.
        let Some(end) = rest[at..].find(close) else { return fixed };
        rest = &rest[at + end + close.len()..];
    }
}

/// The text with blanks for its comments, and every line where it was.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{#") {
        let end = rest[open..].find("#}").map_or(rest.len(), |close| open + close + 2);
        plain.push_str(&rest[..open]);
        plain.extend(rest[open..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::TemplateText;

    fn template(text: &str) -> TemplateText {
        TemplateText { name: "a.xml", path: Some("/etc/t/a.xml".into()), text: text.to_owned() }
    }

    const TEXT: &str = "{#- about <os> -#}\n<domain>\n  <name>{{ name }}</name>\n  {%- if x %}\n  <os a='{{ a }}' \
                        b='{{ b }}'/>\n  {%- endif %}\n{{ only }}\n</domain>\n";

    #[test]
    fn a_line_that_came_out_is_found_in_the_template() {
        let output = "\n<domain>\n  <name>ada</name>\n  <os a='1' b='2'/>\nwhat\n</domain>";
        let lines: Vec<_> = (1..=7).filter_map(|number| template(TEXT).gave(output, number).line).collect();
        assert_eq!(lines, [1, 2, 3, 5, 1, 8, 8]);
        assert_eq!(template(TEXT).gave("", 1).to_string(), "/etc/t/a.xml:1");
    }

    #[test]
    fn a_word_is_found_outside_of_comments() {
        let at = |words: &[&str]| template(TEXT).mentions(words).line;
        assert_eq!(at(&["<os"]), Some(5));
        assert_eq!(at(&["nowhere", "<name"]), Some(3));
        assert_eq!(at(&["nowhere"]), Some(1));
        let built_in = TemplateText { path: None, ..template("{# no end\n<os>") };
        assert_eq!(built_in.mentions(&["<os"]).to_string(), "a.xml:1");
    }
}
