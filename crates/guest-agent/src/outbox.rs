//! What waits to be sent, and what a broken connection does to it.
//!
//! An answer exists once: the command has run and will not run again, so answers are kept until
//! they were sent whole. A reading is worth nothing once the next one exists, so readings give
//! way. Nothing here blocks or touches a descriptor: the caller asks for bytes and says how many
//! the port took.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use agent_protocol::TooLongToSeal;

use crate::log::note;

/// Readings kept while the host reads slowly.
const MAX_METRICS: usize = 4;
/// With more than this waiting, no further command is read.
const MAX_ANSWERS: usize = 64;
const MAX_ANSWER_BYTES: usize = 2 << 20;
/// The port takes bytes before the host has them. An answer that left so shortly before a
/// hang-up may be lost on the way and is sent again; a host takes the second copy for an answer
/// to nothing.
const RESEND_WINDOW: Duration = Duration::from_secs(2);
const MAX_RECENT_BYTES: usize = 2 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passing,
    Answer,
}

#[derive(Debug)]
struct Line {
    kind: Kind,
    /// As it is kept for another try.
    bytes: Vec<u8>,
    /// As it goes out, where that is something else.
    wrapped: Option<Vec<u8>>,
    sent: usize,
}

impl Line {
    fn new(kind: Kind, bytes: Vec<u8>) -> Self {
        Self { kind, bytes, wrapped: None, sent: 0 }
    }

    fn outgoing(&self) -> &[u8] {
        self.wrapped.as_ref().unwrap_or(&self.bytes)
    }
}

/// How a line goes out: in an envelope (`Some`), bare, or not at all because the envelope is too long.
pub(crate) type Wrapped = Option<Result<Vec<u8>, TooLongToSeal>>;

/// Lines in the order of their worth.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    current: Option<Line>,
    handshake: Option<Vec<u8>>,
    keep_alive: Option<Vec<u8>>,
    answers: VecDeque<Vec<u8>>,
    answer_bytes: usize,
    metrics: VecDeque<Vec<u8>>,
    recent: VecDeque<(Instant, Vec<u8>)>,
}

impl Outbox {
    /// Another handshake replaces one that still waits.
    pub(crate) fn handshake(&mut self, line: Vec<u8>) {
        self.handshake = Some(line);
    }

    /// Another sign of life replaces one that still waits.
    pub(crate) fn keep_alive(&mut self, line: Vec<u8>) {
        self.keep_alive = Some(line);
    }

    /// Kept until sent.
    pub(crate) fn answer(&mut self, line: Vec<u8>) {
        self.answer_bytes += line.len();
        self.answers.push_back(line);
    }

    /// The oldest reading gives way.
    pub(crate) fn metrics(&mut self, line: Vec<u8>) {
        if self.metrics.len() >= MAX_METRICS {
            self.metrics.pop_front();
        }
        self.metrics.push_back(line);
    }

    /// Whether another command may be read: each one brings an answer.
    pub(crate) fn has_room(&self) -> bool {
        self.answers.len() < MAX_ANSWERS && self.answer_bytes < MAX_ANSWER_BYTES
    }

    /// The host end was opened. A fragment may stand on the line, also one of a predecessor of
    /// this process: an empty line ends it.
    pub(crate) fn connected(&mut self) {
        self.current = Some(Line::new(Kind::Passing, b"\n".to_vec()));
    }

    /// The host end was closed: whatever would be stale is dropped, answers stay.
    pub(crate) fn hung_up(&mut self, now: Instant) {
        self.handshake = None;
        self.keep_alive = None;
        self.metrics.clear();
        if let Some(Line { kind: Kind::Answer, bytes, .. }) = self.current.take() {
            self.answer_bytes += bytes.len();
            self.answers.push_front(bytes);
        }
        while let Some((at, line)) = self.recent.pop_back() {
            if now.saturating_duration_since(at) <= RESEND_WINDOW {
                self.answer_bytes += line.len();
                self.answers.push_front(line);
            }
        }
    }

    /// Whether answers wait that were not begun.
    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// The bytes to send next. Each line is given to `wrap` when its turn comes, also one that is sent
    /// again: what makes an envelope fresh must be. Answers wait where `hold` says so.
    pub(crate) fn pending(&mut self, hold: bool, wrap: impl Fn(&[u8]) -> Wrapped) -> Option<&[u8]> {
        while self.current.is_none() {
            let mut line = self.next(hold)?;
            match wrap(&line.bytes) {
                None => {}
                Some(Ok(envelope)) => line.wrapped = Some(envelope),
                Some(Err(e)) => {
                    // Answers were cut so that they fit.
                    note(format_args!("a message is dropped: {e}"));
                    continue;
                }
            }
            self.current = Some(line);
        }
        self.current.as_ref().map(|line| &line.outgoing()[line.sent..])
    }

    fn next(&mut self, hold: bool) -> Option<Line> {
        if let Some(bytes) = self.handshake.take().or_else(|| self.keep_alive.take()) {
            return Some(Line::new(Kind::Passing, bytes));
        }
        if !hold && let Some(bytes) = self.answers.pop_front() {
            self.answer_bytes -= bytes.len();
            return Some(Line::new(Kind::Answer, bytes));
        }
        self.metrics.pop_front().map(|bytes| Line::new(Kind::Passing, bytes))
    }

    /// The port took `count` of the pending bytes.
    pub(crate) fn took(&mut self, count: usize, now: Instant) {
        let Some(line) = &mut self.current else { return };
        let length = line.outgoing().len();
        line.sent = length.min(line.sent + count);
        if line.sent < length {
            return;
        }
        let line = self.current.take();
        if let Some(Line { kind: Kind::Answer, bytes, .. }) = line {
            self.recent.push_back((now, bytes));
        }
        self.forget(now);
    }

    /// Forgets answers that are safely away.
    pub(crate) fn forget(&mut self, now: Instant) {
        let mut bytes: usize = self.recent.iter().map(|(_, line)| line.len()).sum();
        while let Some((at, line)) = self.recent.front() {
            if now.saturating_duration_since(*at) <= RESEND_WINDOW && bytes <= MAX_RECENT_BYTES {
                break;
            }
            bytes -= line.len();
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::FrameDecoder;
    use proptest::prelude::*;

    use super::*;

    fn drain(outbox: &mut Outbox, at: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(bytes) = outbox.pending(false, |_| None) {
            let count = bytes.len();
            out.extend_from_slice(bytes);
            outbox.took(count, at);
        }
        out
    }

    #[test]
    fn a_greeting_goes_first_and_readings_last() {
        let mut outbox = Outbox::default();
        outbox.metrics(b"m\n".to_vec());
        outbox.answer(b"a\n".to_vec());
        outbox.keep_alive(b"k\n".to_vec());
        outbox.connected();
        outbox.handshake(b"h\n".to_vec());
        assert_eq!(drain(&mut outbox, Instant::now()), b"\nh\nk\na\nm\n");
    }

    #[test]
    fn readings_give_way_and_answers_never_do() {
        let mut outbox = Outbox::default();
        for i in 0..200 {
            outbox.metrics(format!("m{i}\n").into_bytes());
            outbox.answer(format!("a{i}\n").into_bytes());
        }
        assert!(!outbox.has_room());
        let sent = String::from_utf8(drain(&mut outbox, Instant::now())).unwrap();
        assert_eq!(sent.lines().filter(|l| l.starts_with('a')).count(), 200);
        assert_eq!(sent.lines().filter(|l| l.starts_with('m')).count(), MAX_METRICS);
        assert!(outbox.has_room());
    }

    #[test]
    fn an_answer_long_gone_is_not_sent_again() {
        let mut outbox = Outbox::default();
        let start = Instant::now();
        outbox.answer(b"a\n".to_vec());
        drain(&mut outbox, start);
        outbox.answer(b"b\n".to_vec());
        drain(&mut outbox, start + RESEND_WINDOW);
        outbox.hung_up(start + RESEND_WINDOW + Duration::from_millis(1));
        assert_eq!(drain(&mut outbox, start + RESEND_WINDOW), b"b\n");
    }

    #[test]
    fn a_line_is_wrapped_each_time_that_it_is_sent() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        outbox.answer(b"a\n".to_vec());
        let times = std::cell::Cell::new(0);
        let wrap = |line: &[u8]| {
            times.set(times.get() + 1);
            Some(Ok([format!("{}:", times.get()).as_bytes(), line].concat()))
        };
        assert_eq!(outbox.pending(true, wrap), None, "it waits");
        assert_eq!(outbox.pending(false, wrap), Some(&b"1:a\n"[..]));
        outbox.took(2, now);
        assert_eq!(outbox.pending(false, wrap), Some(&b"a\n"[..]), "begun, it is not wrapped again");
        outbox.hung_up(now);
        assert_eq!(outbox.pending(false, wrap), Some(&b"2:a\n"[..]));
        outbox.took(4, now);
        outbox.hung_up(now);
        assert_eq!(outbox.pending(false, |_| None), Some(&b"a\n"[..]), "and bare, where nobody opens it");
        let mut outbox = Outbox::default();
        outbox.metrics(b"m\n".to_vec());
        outbox.metrics(b"n\n".to_vec());
        let long = |line: &[u8]| (line == b"m\n").then_some(Err(TooLongToSeal { bytes: 1 }));
        assert_eq!(outbox.pending(false, long), Some(&b"n\n"[..]), "what does not fit is left out");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Answer,
        Metrics,
        Take(usize),
        HangUp { lost: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Answer),
            2 => Just(Step::Metrics),
            6 => (0usize..30).prop_map(Step::Take),
            1 => (0usize..60).prop_map(|lost| Step::HangUp { lost }),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn no_hang_up_loses_an_answer_or_tears_a_line(steps in steps()) {
            let mut outbox = Outbox::default();
            let now = Instant::now();
            let mut all = Vec::new();
            let mut line = Vec::new();
            outbox.connected();
            for step in steps {
                match step {
                    Step::Answer => {
                        all.push(format!("<answer {}>", all.len()));
                        outbox.answer(format!("{}\n", all[all.len() - 1]).into_bytes());
                    }
                    Step::Metrics => outbox.metrics(b"<reading>\n".to_vec()),
                    Step::Take(limit) => {
                        if let Some(bytes) = outbox.pending(false, |_| None) {
                            let count = bytes.len().min(limit);
                            line.extend_from_slice(&bytes[..count]);
                            outbox.took(count, now);
                        }
                    }
                    Step::HangUp { lost } => {
                        // What was still under way is gone, from any byte on.
                        line.truncate(line.len().saturating_sub(lost));
                        outbox.hung_up(now);
                        outbox.connected();
                    }
                }
            }
            line.extend(drain(&mut outbox, now));

            let mut decoder = FrameDecoder::default();
            decoder.push(&line);
            let mut frames = Vec::new();
            while let Some(frame) = decoder.next_frame() {
                frames.push(String::from_utf8(frame.unwrap()).unwrap());
            }
            for answer in &all {
                prop_assert!(frames.contains(answer), "{answer} is missing in {frames:?}");
            }
            for frame in &frames {
                prop_assert!(!frame[1..].contains('<'), "two messages on one line: {frame}");
            }
        }
    }
}
