//! Strangers' words on a terminal.
//!
//! Names, messages, console logs and what commands print may come from a hostile guest. A terminal
//! obeys what it is sent: it can be made to hide text, to retitle itself, to type. So nothing that
//! steers reaches one: each such character is shown as its escape (`\x1b`, `\u{202e}`).

use std::fmt::Write as _;

/// Whether this character steers a terminal, or the eyes of who reads it.
#[must_use]
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{061c}'          // marks of direction
            | '\u{2028}'..='\u{202e}'                     // line separators, embeddings, overrides
            | '\u{2066}'..='\u{2069}'                     // isolates
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'        // no width, annotations
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// Text of several lines: line feeds and tabs stay. A carriage return before a line feed is
/// dropped; another one would overwrite what stands there, and is shown.
#[must_use]
pub fn text(words: &str) -> String {
    let mut shown = String::with_capacity(words.len());
    let mut characters = words.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            other => push(&mut shown, other),
        }
    }
    shown
}

/// Text that has one line: nothing stays.
#[must_use]
pub fn line(words: &str) -> String {
    let mut shown = String::with_capacity(words.len());
    words.chars().for_each(|character| push(&mut shown, character));
    shown
}

fn push(shown: &mut String, character: char) {
    if !steers(character) {
        shown.push(character);
        return;
    }
    let number = u32::from(character);
    // Writing to a string does not fail.
    let _ = match character {
        '\n' => write!(shown, "\\n"),
        '\r' => write!(shown, "\\r"),
        '\t' => write!(shown, "\\t"),
        _ if number < 0x100 => write!(shown, "\\x{number:02x}"),
        _ => write!(shown, "\\u{{{number:x}}}"),
    };
}

/// JSON without characters that steer: they can only stand in strings, where an escape means the
/// same.
#[must_use]
pub fn json(written: &str) -> String {
    let mut shown = String::with_capacity(written.len());
    for character in written.chars() {
        if steers(character) && character != '\n' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{json, line, steers, text};

    #[test]
    fn what_steers_is_shown_and_not_obeyed() {
        let hostile = "a\x1b]0;owned\x07b\u{9b}31mc\u{202e}d\r\ne\rf\tg\0\u{7f}\u{e0041}";
        let shown = text(hostile);
        assert_eq!(shown, "a\\x1b]0;owned\\x07b\\x9b31mc\\u{202e}d\ne\\rf\tg\\x00\\x7f\\u{e0041}");
        assert!(line(hostile).chars().all(|character| !steers(character)));
        assert_eq!(line("a\nb\tc"), "a\\nb\\tc");
    }

    #[test]
    fn what_does_not_steer_stays() {
        let words = "Grüße, 世界 – ├─ \u{1f980}";
        assert_eq!(text(words), words);
        assert_eq!(line(words), words);
    }

    #[test]
    fn json_means_what_it_meant() {
        let value = serde_json::json!({ "words": "a\u{9b}b\u{7f}c\u{202e}d\u{e0041}\x1b\n" });
        let shown = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(shown.chars().all(|character| character == '\n' || !steers(character)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
