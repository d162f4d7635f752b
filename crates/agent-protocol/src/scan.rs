//! A quick way over the text of JSON, which knows less than a reader does and never guesses.
//!
//! It builds nothing and gives slices of the line. Whatever it is not sure that a reader would
//! take in the same sense it leaves alone (`None`): escaped names, halves of surrogate pairs, very
//! long or very large numbers, deep nesting, control characters, anything that is no JSON. Then
//! the general reader has the word, so that this may be strict but never lenient.

use memchr::memchr2;

/// Containers inside of each other that are gone into, one bit each; serde_json reads 127.
const MAX_DEPTH: u32 = 64;

/// The longest number: without an exponent none of this length is out of range.
const MAX_NUMBER: usize = 40;

/// A place in a line.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of the line.
    pub(crate) fn new(line: &'a [u8]) -> Option<Self> {
        // Compiled to a few wide instructions. Afterwards blanks are the only white space.
        let least = line.iter().fold(u8::MAX, |least, &byte| least.min(byte));
        if least < b' ' {
            return None;
        }
        Some(Self { text: std::str::from_utf8(line).ok()?, at: 0 })
    }

    /// The next byte that is no blank.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while *bytes.get(self.at)? == b' ' {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// Only blanks are left.
    pub(crate) fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// What `read` goes over, without the blanks before it, and what it gives.
    pub(crate) fn measured<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<(&'a str, T)> {
        self.peek()?;
        let start = self.at;
        let read = read(self)?;
        Some((&self.text[start..self.at], read))
    }

    /// Goes over an object. `field` is given each name and must go over its value.
    pub(crate) fn object(&mut self, mut field: impl FnMut(&'a str, &mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let name = self.plain_string()?;
            self.expect(b':')?;
            field(name, self)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Goes over an array. `item` must go over each item.
    pub(crate) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Some(());
        }
        loop {
            item(self)?;
            if !self.take(b',') {
                return self.expect(b']');
            }
        }
    }

    /// What stands between a string's quotes, if nothing in it is escaped.
    pub(crate) fn plain_string(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at + 1;
        let escapes = self.string()?;
        (!escapes).then(|| &self.text[start..self.at - 1])
    }

    /// Any value, as it stands there.
    pub(crate) fn value(&mut self) -> Option<&'a str> {
        Some(self.measured(Self::skip)?.0)
    }

    /// Goes over any value.
    pub(crate) fn skip(&mut self) -> Option<()> {
        // The innermost container is the lowest bit: 1 is an object.
        let (mut containers, mut depth) = (0_u64, 0_u32);
        loop {
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return None;
                    }
                    self.at += 1;
                    (containers, depth) = (containers << 1 | u64::from(open == b'{'), depth + 1);
                    let empty = self.take(if open == b'{' { b'}' } else { b']' });
                    if !empty {
                        if open == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                    (containers, depth) = (containers >> 1, depth - 1);
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => return None,
            }
            loop {
                if depth == 0 {
                    return Some(());
                }
                let in_object = containers & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if in_object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ => return None,
                }
                self.at += 1;
                (containers, depth) = (containers >> 1, depth - 1);
            }
        }
    }

    fn name(&mut self) -> Option<()> {
        self.peek()?;
        self.string()?;
        self.expect(b':')
    }

    /// Goes over a string that begins here; gives whether something in it is escaped.
    fn string(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        if *bytes.get(self.at)? != b'"' {
            return None;
        }
        let (mut at, mut escapes) = (self.at + 1, false);
        loop {
            at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[at] == b'"' {
                self.at = at + 1;
                return Some(escapes);
            }
            escapes = true;
            match bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    let digits = bytes.get(at + 2..at + 6)?;
                    // Halves of a pair, D800 to DFFF: digits stand before letters.
                    let surrogate = matches!(digits[0], b'd' | b'D') && digits[1] >= b'8';
                    if surrogate || !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    at += 6;
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut at = self.at + usize::from(bytes[self.at] == b'-');
        let whole = digits(at);
        if whole == 0 || whole > 1 && bytes[at] == b'0' {
            return None;
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return None;
            }
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            // Only towards zero.
            let exponent = if bytes.get(at + 1) == Some(&b'-') { digits(at + 2) } else { 0 };
            if exponent == 0 {
                return None;
            }
            at += 2 + exponent;
        }
        if at - self.at > MAX_NUMBER {
            return None;
        }
        self.at = at;
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn whole(text: &str) -> Option<&str> {
        let mut cursor = Cursor::new(text.as_bytes())?;
        let value = cursor.value()?;
        cursor.at_end().then_some(value)
    }

    #[test]
    fn what_is_plain_is_gone_over_and_what_is_not_is_left() {
        for text in [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "-12.50",
            "1e-7",
            "18446744073709551616",
            "\"\"",
            "{}",
            "[]",
            r#"{"a":[1,{"b":[]},"c"],"d\n\u00e9":{}}"#,
            r#" [ { "a" : 1 } , [ ] ] "#,
            r#""\"\\\/\b\f\n\r\t\ud7ff\ue000""#,
        ] {
            assert_eq!(whole(text), Some(text.trim()), "{text}");
        }
        let deep = "[".repeat(65) + &"]".repeat(65);
        for text in [
            "",
            " ",
            "nul",
            "tru",
            "01",
            "-",
            "1.",
            ".5",
            "1e5",
            "1E+5",
            "1e-",
            "1e400",
            "+1",
            "NaN",
            "\"",
            "\"a",
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\ud800""#,
            r#""\uDFFF""#,
            r#""\udb00\udc00""#,
            "\"\t\"",
            "{",
            "[",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            "1 2",
            "[1 2]",
            "[]]",
            "[\n]",
            &deep,
            "10000000000000000000000000000000000000000",
        ] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn names_that_are_escaped_are_left() {
        let names = |text: &'static str| {
            let (mut cursor, mut names) = (Cursor::new(text.as_bytes())?, Vec::new());
            cursor.object(|name, cursor| {
                names.push(name);
                cursor.skip()
            })?;
            Some(names)
        };
        assert_eq!(names(r#"{"a": [{"b\\": 1}], "c" :"d"}"#), Some(vec!["a", "c"]));
        assert_eq!(names(r#"{"a\u0062": 1}"#), None);
        assert_eq!(names("[]"), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_a_reader_takes(text in "[\\[\\]{}\"\\\\:, a0-9.eE+ud-]{0,24}") {
            if whole(&text).is_some() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn whatever_ends_early_is_left(cut in 0usize..60) {
            let text = r#"{"a":[1.5,true,null,"x\u00e9y"],"b":{"c":"d"},"e":-3}"#;
            prop_assert_eq!(whole(&text[..cut.min(text.len() - 1)]), None);
        }
    }
}
