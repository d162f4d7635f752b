//! Makes a guest's words fit to be shown, however they are cut into pieces: bytes that are no text
//! become U+FFFD, and what would steer a terminal is taken out: escape sequences whole, other control
//! characters, and the marks that change the direction of writing.

/// Between two pieces.
#[derive(Debug, Clone, Default)]
pub(super) struct Cleaner {
    state: State,
    /// The beginning of a character, at most three bytes.
    begun: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Text,
    /// After an ESC.
    Escape,
    /// In a control sequence.
    Sequence,
    /// In a title or the like, up to its end.
    Title,
}

impl Cleaner {
    /// What of a piece is to be shown.
    pub(super) fn clean(&mut self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    text.chars().for_each(|c| self.take(c, &mut out));
                    return out;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    String::from_utf8_lossy(good).chars().for_each(|c| self.take(c, &mut out));
                    let Some(length) = error.error_len() else {
                        self.begun = bad.to_vec();
                        return out;
                    };
                    self.take(char::REPLACEMENT_CHARACTER, &mut out);
                    rest = &bad[length..];
                }
            }
        }
    }

    /// What is left when nothing follows.
    pub(super) fn end(&mut self) -> String {
        let mut out = String::new();
        if !std::mem::take(&mut self.begun).is_empty() {
            self.take(char::REPLACEMENT_CHARACTER, &mut out);
        }
        self.state = State::Text;
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        self.state = match (self.state, c) {
            (State::Escape, '[') => State::Sequence,
            (State::Escape, ']') => State::Title,
            (State::Escape, '@'..='_' | 'c' | '7' | '8') | (State::Sequence, '@'..='~') => State::Text,
            (State::Sequence, ' '..='?') => State::Sequence,
            (State::Title, c) if !c.is_control() => State::Title,
            (_, '\u{1b}') => State::Escape,
            (_, c) => {
                if is_shown(c) {
                    out.push(c);
                }
                State::Text
            }
        };
    }
}

fn is_shown(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    matches!(c, '\n' | '\t') || !(turns || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: [(&[u8], &str); 8] = [
        (b"a\r\nb\tc", "a\nb\tc"),
        (b"\x1b[2J\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07x", "x"),
        (b"\x1b]0;title\x1b[1mx", "x"),
        (b"\x1bcx\x1b", "x"),
        ("\u{0}\u{8}\u{7f}\u{9b}x\u{202e}\u{61c}y".as_bytes(), "xy"),
        ("é\u{fffd}€".as_bytes(), "é\u{fffd}€"),
        (b"a\xffb\xe2\x82c\xe2\x82", "a\u{fffd}b\u{fffd}c\u{fffd}"),
    ];

    #[test]
    fn what_steers_a_terminal_is_taken_out() {
        for (raw, plain) in CASES {
            let mut cleaner = Cleaner::default();
            assert_eq!(cleaner.clean(raw) + &cleaner.end(), plain, "{raw:?}");
        }
    }

    #[test]
    fn it_is_the_same_however_it_is_cut() {
        for (raw, plain) in CASES {
            for size in 1..raw.len() {
                let mut cleaner = Cleaner::default();
                let shown: String = raw.chunks(size).map(|piece| cleaner.clean(piece)).collect();
                assert_eq!(shown + &cleaner.end(), plain, "{raw:?} in pieces of {size}");
            }
        }
    }
}
