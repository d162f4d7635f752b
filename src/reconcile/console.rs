//! What a console's log says of an installation. A guest's words are a stranger's: what would steer a
//! terminal is taken out, and everything has a bound.
//!
//! A prompt that waits for somebody may paint itself again and again. So it is lines that are told
//! apart, not the log's growth; a jump of the cursor ends a line, because what is painted by jumps has
//! no other; and a clock beside the prompt, as Debian's installer has one, makes no new line of an old.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// How much of a log's end is read, bytes.
pub const TAIL: u64 = 16 << 10;
/// Lines of it that are told apart.
const MAX_LINES: usize = 256;
/// Lines that are shown.
const SHOWN: usize = 8;
/// Characters of these altogether.
const SHOWN_CHARS: usize = 600;

/// What our scripts write before the name of a stage.
const STAGE: &str = "infinibay: stage ";
/// Longest stage, bytes.
const MAX_STAGE: usize = 64;

/// The lines of a log's end, cleaned, without empty ones; and whether the last is whole.
fn lines(tail: &[u8], cut: bool) -> (Vec<String>, bool) {
    let text = String::from_utf8_lossy(tail);
    let (mut lines, mut line) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let ends = match c {
            '\u{1b}' => escape(&mut chars),
            '\n' | '\r' => true,
            '\t' => {
                line.push(' ');
                false
            }
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
            c if c.is_control() => false,
            c => {
                line.push(c);
                false
            }
        };
        if ends {
            lines.push(std::mem::take(&mut line));
        }
    }
    let whole = line.trim().is_empty();
    lines.push(line);
    if cut {
        lines.remove(0);
    }
    let plain = |line: String| Some(line.trim().to_owned()).filter(|line| !line.is_empty());
    (lines.into_iter().filter_map(plain).collect(), whole)
}

/// Takes an escape sequence out; whether it moved the cursor elsewhere.
fn escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    match chars.next_if(|next| matches!(next, '[' | ']' | '(' | ')')) {
        Some('[') => {
            while chars.next_if(|next| matches!(next, ' '..='?')).is_some() {}
            let end = chars.next_if(|next| matches!(next, '@'..='~'));
            end.is_some_and(|end| matches!(end, 'A' | 'B' | 'E' | 'F' | 'H' | 'J' | 'd' | 'f'))
        }
        // A title or the like, up to its end.
        Some(']') => {
            while chars.next_if(|next| !next.is_control()).is_some() {}
            false
        }
        Some(_) => {
            chars.next_if(|next| !next.is_control());
            false
        }
        None => chars.next_if(|next| matches!(next, '0'..='~')).is_some_and(|c| matches!(c, 'D' | 'E' | 'M')),
    }
}

/// Each whole line of a log's end as a number; `cut`: there is more before it. What is still being
/// written is left out, because it is another line at every look.
#[must_use]
pub fn line_numbers(tail: &[u8], cut: bool) -> Vec<u64> {
    let (mut lines, whole) = lines(tail, cut);
    if !whole {
        lines.pop();
    }
    let number = |line: &String| {
        let mut hasher = DefaultHasher::new();
        without_clocks(line).hash(&mut hasher);
        hasher.finish()
    };
    lines.iter().rev().take(MAX_LINES).map(number).collect()
}

/// What our scripts said last of an installer's stage, if the log's end has it.
#[must_use]
pub fn stage(tail: &[u8], cut: bool) -> Option<String> {
    let is_word = |word: &&str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=MAX_STAGE).contains(&word.len()) && word.bytes().all(plain)
    };
    let (lines, _) = lines(tail, cut);
    let mut words = lines.iter().rev().filter_map(|line| line.strip_prefix(STAGE).filter(is_word));
    words.next().map(str::to_owned)
}

/// A line with one mark for each time of day: digits with a colon among them.
#[must_use]
pub fn without_clocks(line: &str) -> String {
    let is_time = |c: char| c.is_ascii_digit() || c == ':';
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(begin) = rest.find(is_time) {
        let (before, from) = rest.split_at(begin);
        let (time, after) = from.split_at(from.find(|c| !is_time(c)).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(if time.contains(':') { ":" } else { time });
        rest = after;
    }
    out + rest
}

/// The last lines of a log, at most 8 and 600 characters: no escape sequences, no control characters,
/// and each line once where it is repeated.
#[must_use]
pub fn last_lines(tail: &[u8], cut: bool) -> Vec<String> {
    let mut room = SHOWN_CHARS;
    let mut shown: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for line in lines(tail, cut).0.into_iter().rev() {
        // A rule says nothing.
        if !line.contains(char::is_alphanumeric) || !known.insert(without_clocks(&line)) {
            continue;
        }
        let length = line.chars().count();
        if shown.len() == SHOWN || room == 0 {
            break;
        }
        // Its end says more than its beginning.
        shown.push(line.chars().skip(length.saturating_sub(room)).collect());
        room = room.saturating_sub(length);
    }
    shown.reverse();
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_steers_nothing() {
        let raw =
            b"one\r\n\x1b[31mtwo\x1b[0m\n\x1b]0;title\x07three\x00\x9b\n\xe2\x80\xaefour\n\n  five\tsix  ";
        assert_eq!(last_lines(raw, false), ["one", "two", "three\u{fffd}", "four", "five six"]);
        assert_eq!(last_lines(raw, true)[0], "two", "half a line is none");
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let shown = last_lines(many.as_bytes(), false);
        assert_eq!((shown.len(), shown[0].as_str(), shown[7].as_str()), (8, "line 92", "line 99"));
        let long = "x".repeat(5000) + "end";
        let shown = last_lines(long.as_bytes(), false);
        assert_eq!((shown.len(), shown[0].chars().count()), (1, 600));
        assert!(shown[0].ends_with("end"));
    }

    #[test]
    fn a_screen_that_is_painted_again_has_no_new_line() {
        let screen = b"\x1b[2J\x1b[5;10HNo kernel modules were found\x1b[7;10H<Yes>\x1b[7;30H<No>\x1b[24;1H";
        let once: Vec<u8> = screen.repeat(3);
        let known = line_numbers(&once, false);
        assert_eq!(known.iter().collect::<std::collections::HashSet<_>>().len(), 3);
        let again = screen.repeat(400);
        for cut_at in 0..screen.len() {
            let window = &again[again.len() - 16_000 - cut_at..again.len() - cut_at];
            let seen = line_numbers(window, true);
            assert!(seen.iter().all(|line| known.contains(line)), "cut at {cut_at}");
        }
    }

    #[test]
    fn a_clock_makes_no_new_line() {
        let at =
            |time: &str| format!("Retry?\n\x1b[H\x1b[7m[ (1*installer) 2 shell ][ Nov 23 {time} ]\x1b[19B");
        let (early, late) = (at("13:59"), at("14:00:07"));
        assert_eq!(line_numbers(early.as_bytes(), false), line_numbers(late.as_bytes(), false));
        let both = last_lines((early + &late).as_bytes(), false);
        assert_eq!(both, ["Retry?", "[ (1*installer) 2 shell ][ Nov 23 14:00:07 ]"]);
        for (line, same) in [("a 1:02:03 b 12", "a : b 12"), ("12:00", ":"), ("é 7 8", "é 7 8"), ("", "")] {
            assert_eq!(without_clocks(line), same);
        }
        assert_ne!(line_numbers(b"Progress 10%\n", false), line_numbers(b"Progress 11%\n", false));
    }

    #[test]
    fn a_stage_is_the_last_that_our_scripts_wrote() {
        let log = b"infinibay: stage started\r\nx\r\n\x1b[Hinfinibay: stage installer-netcfg\r\nlater\n";
        assert_eq!(stage(log, false).as_deref(), Some("installer-netcfg"));
        let long = format!("infinibay: stage {}\n", "x".repeat(65));
        for none in ["", "says infinibay: stage a\n", "infinibay: stage A b\n", "infinibay: stage \n", &long]
        {
            assert_eq!(stage(none.as_bytes(), false), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_still_written_is_no_line_yet() {
        assert_eq!(line_numbers(b"a\nb", false), line_numbers(b"a\n", false));
        assert_eq!(line_numbers(b"10%\r20%\r", false).len(), 2);
        assert_eq!(line_numbers(b"", true), Vec::<u64>::new());
    }
}
