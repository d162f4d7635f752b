//! What one line of the guest means, and what is done with it.

use agent_protocol::{
    Answer, DecodeError, FrameError, GuestMessage, KeepAlive, Metrics, SystemReading, salvage, tree_fits,
};
use chrono::{DateTime, Utc};
use tokio::{sync::mpsc::error::TrySendError, time::Instant};

use super::{READ_BYTES, REST, Session};
use crate::agents::{
    GuestFrame, LateAnswer,
    clean::{Greeting, MAX_DETAILS_TREE, guest_error, outcome, reported_state},
    flight::Settled,
    late,
    seal::{Bare, Opened},
    shared::News,
};
use crate::vm::{CommandId, CommandOutcome};

/// The longest reading that is passed on; an ordinary one has 7 KiB. So many wait for their receiver
/// that this is less than a line may have.
const MAX_METRICS_BYTES: usize = 256 << 10;

/// What such a reading takes in memory at most for those who read it into a tree; an ordinary one
/// takes a fortieth of it.
const MAX_METRICS_TREE: usize = 4 << 20;

/// What a line of several readings may take.
const MAX_BATCH_TREE: usize = 8 << 20;

/// What an answer may take while somebody waits for one: a list of some ten thousand packages.
const MAX_ANSWER_TREE: usize = 32 << 20;

/// Readings taken from one batch.
const MAX_BATCH: usize = 64;

/// The longest line that is looked for a message behind a fragment.
const MAX_SALVAGE_BYTES: usize = 128 << 10;

/// The longest greeting that is taken from a guest over its rate.
const MAX_HANDSHAKE_BYTES: usize = 8 << 10;

impl Session<'_> {
    /// One line, or the fact that one was too long. Over its rate a guest's answers and greetings
    /// are taken all the same; everything else is counted and dropped, unread. So is, as oversized,
    /// a line that would take too much memory once it is read.
    pub(super) fn line(
        &mut self,
        line: Result<Vec<u8>, FrameError>,
        now: Instant,
        at: DateTime<Utc>,
        news: &mut News,
    ) {
        let size = line.as_ref().map_or(READ_BYTES, Vec::len);
        // Both are asked, whatever the first one says.
        let paid = (self.frame_rate.allow(1.0, now), self.byte_rate.allow(bytes(size), now));
        let (within, rested) = (paid.0 && paid.1, self.resting_until);
        if !within {
            self.resting_until = Some(now + REST);
        }
        let Ok(line) = line else {
            self.counters.oversized += 1;
            return;
        };
        // Looked for only where it matters: it is a pass over the line.
        let may_greet = || line.len() <= MAX_HANDSHAKE_BYTES && mentions(&line, "handshake");
        if !within && !self.may_answer(&line) && !may_greet() {
            self.counters.dropped += 1;
            return;
        }
        if !self.fits(&line) {
            self.counters.oversized += 1;
            return;
        }
        let message = match GuestMessage::decode(&line) {
            Ok(message) => message,
            Err(DecodeError::Malformed(_)) => {
                self.counters.malformed += 1;
                if !within || line.len() > MAX_SALVAGE_BYTES {
                    return;
                }
                match salvage(&line, MAX_METRICS_TREE) {
                    Some(message) => message,
                    None => return,
                }
            }
            Err(DecodeError::WrongShape { .. }) => {
                self.counters.wrong_shape += 1;
                return;
            }
            Err(DecodeError::Untyped) => {
                self.counters.unknown_type += 1;
                return;
            }
        };
        let Some((message, opens)) = self.unsealed(message, now) else { return };
        self.counters.frames += 1;
        match message {
            GuestMessage::Handshake(handshake) => {
                news.hear(Some(handshake.timestamp), at);
                let greeting = Greeting::of(&handshake);
                self.flight.set_capacity(greeting.concurrency);
                // One that seals is ours, and reads line by line.
                self.pacing.set_announced(greeting.concurrency > 1 || handshake.seal.is_some());
                news.greets_on = opens;
                news.greeting = Some(greeting);
            }
            GuestMessage::Metrics(metrics) => {
                news.hear(Some(metrics.timestamp), at);
                self.shared.metrics_came();
                self.reading(metrics, within, now, at);
            }
            GuestMessage::MetricsBatch(batch) => {
                news.hear(batch.last().map(|metrics| metrics.timestamp), at);
                self.shared.metrics_came();
                self.batch(batch, within, now, at);
            }
            GuestMessage::Answer(answer) => {
                // We asked for it: what we send bounds these, not the guest.
                if self.answer(answer, now, at, news) {
                    self.resting_until = rested;
                    if paid.0 {
                        self.frame_rate.give_back(1.0);
                    }
                    if paid.1 {
                        self.byte_rate.give_back(bytes(size));
                    }
                }
            }
            GuestMessage::KeepAlive(KeepAlive { sequence_number, timestamp }) => {
                news.hear(DateTime::from_timestamp(timestamp, 0), at);
                if within {
                    self.keep_alive = Some(sequence_number);
                }
            }
            GuestMessage::Ping => news.hear(None, at),
            GuestMessage::Status(status) => {
                news.hear(status.timestamp, at);
                news.reported_state = reported_state(&status);
            }
            GuestMessage::Error(error) => {
                news.hear(error.timestamp, at);
                let (text, details) = guest_error(&error);
                let error = Decoded::Error(error.timestamp, text, details);
                self.pass_on(within, error, MAX_DETAILS_TREE, now, at);
            }
            // An envelope in an envelope proves nothing that the outer one does not.
            GuestMessage::Signed(_) | GuestMessage::Unknown { .. } => self.counters.unknown_type += 1,
        }
    }

    /// What counts of a message: what is in its envelope, or the message itself where it needs none;
    /// and whether it opens the sealed exchange. What does not count is counted by its reason. What is in
    /// an envelope is bounded as a line is: it was a string until now.
    fn unsealed(&mut self, message: GuestMessage, now: Instant) -> Option<(GuestMessage, bool)> {
        let GuestMessage::Signed(envelope) = message else {
            return match self.seal.bare(&message, now) {
                Bare::Taken => Some((message, false)),
                Bare::Noted => {
                    self.counters.frames += 1;
                    self.pacing.set_announced(true);
                    None
                }
                Bare::Refused => {
                    self.counters.unsealed += 1;
                    None
                }
            };
        };
        let Opened { payload, opens } = self.seal.open(envelope, now, &mut self.counters)?;
        if !self.fits(payload.as_bytes()) {
            self.counters.oversized += 1;
            return None;
        }
        match GuestMessage::decode(payload.as_bytes()) {
            Ok(message) => return Some((message, opens)),
            Err(DecodeError::Malformed(_)) => self.counters.malformed += 1,
            Err(DecodeError::WrongShape { .. }) => self.counters.wrong_shape += 1,
            Err(DecodeError::Untyped) => self.counters.unknown_type += 1,
        }
        None
    }

    /// Whether it may be an answer that somebody waits for.
    fn may_answer(&self, line: &[u8]) -> bool {
        self.flight.len() > 0 && mentions(line, "id") && mentions(line, "success")
    }

    /// Whether it takes no more memory, once it is read, than what it may be is worth.
    fn fits(&self, line: &[u8]) -> bool {
        let larger_bound = || {
            if self.may_answer(line) {
                MAX_ANSWER_TREE
            } else if mentions(line, "metrics_batch") {
                MAX_BATCH_TREE
            } else {
                MAX_METRICS_TREE
            }
        };
        tree_fits(line, MAX_METRICS_TREE) || tree_fits(line, larger_bound())
    }

    /// Whether it answers a command that was sent over this connection.
    fn answer(&mut self, answer: Answer, now: Instant, at: DateTime<Utc>, news: &mut News) -> bool {
        let (id, timestamp) = (answer.id.clone(), answer.timestamp);
        match self.flight.settle(&id, outcome(answer)) {
            // Proves nothing: whoever can write to the channel can make it up.
            unknown @ (Settled::Unknown(..) | Settled::Nonsense) => {
                self.counters.unsolicited += 1;
                if let Settled::Unknown(id, outcome) = unknown
                    && self.stray_rate.allow(1.0, now)
                {
                    self.tell_late(id, false, outcome, at);
                }
                return false;
            }
            Settled::Late(id, outcome) => {
                self.counters.late += 1;
                self.tell_late(id, true, outcome, at);
            }
            Settled::InTime => {}
        }
        self.pacing.answered(now);
        news.hear(timestamp, at);
        true
    }

    /// Somebody may know the command, although nobody waits for its answer here. What guests make
    /// up leaves half of the room to what they were asked for.
    fn tell_late(&mut self, id: CommandId, known: bool, outcome: CommandOutcome, received_at: DateTime<Utc>) {
        let late = &self.outlets.late;
        let answer =
            || LateAnswer { vm: self.shared.vm, id, known, outcome: late::bounded(outcome), received_at };
        let has_room = known || late.capacity() > late.max_capacity() / 2;
        if !has_room || late.try_send(answer()).is_err() {
            self.counters.dropped += 1;
        }
    }

    fn batch(&mut self, batch: Vec<Metrics>, within: bool, now: Instant, at: DateTime<Utc>) {
        self.counters.dropped += batch.len().saturating_sub(MAX_BATCH) as u64;
        for (index, metrics) in batch.into_iter().take(MAX_BATCH).enumerate() {
            // The first one is paid for by the line.
            let within = within && (index == 0 || self.frame_rate.allow(1.0, now));
            self.reading(metrics, within, now, at);
        }
    }

    /// A reading takes what its text does, until somebody reads it into a tree: then it must not
    /// take too much either.
    fn reading(&mut self, metrics: Metrics, within: bool, now: Instant, at: DateTime<Utc>) {
        let Metrics { timestamp, system } = metrics;
        let size = system.text.len();
        let fits = size <= MAX_METRICS_BYTES && tree_fits(system.text.as_bytes(), MAX_METRICS_TREE);
        if within && !fits {
            self.counters.too_large += 1;
            return;
        }
        self.pass_on(within, Decoded::Reading(timestamp, system), size, now, at);
    }

    /// Passes on what takes `taken` bytes, if the guest has not passed on too much of late.
    fn pass_on(
        &mut self,
        allowed: bool,
        decoded: Decoded,
        taken: usize,
        now: Instant,
        received_at: DateTime<Utc>,
    ) {
        if !allowed || !self.tree_rate.allow(bytes(taken), now) {
            self.counters.dropped += 1;
            return;
        }
        let vm = self.shared.vm;
        let frame = match decoded {
            Decoded::Reading(timestamp, system) => GuestFrame::Metrics { vm, received_at, timestamp, system },
            Decoded::Error(timestamp, error, details) => {
                GuestFrame::Error { vm, received_at, timestamp, error, details }
            }
        };
        if !self.stash.is_empty() {
            self.counters.dropped += self.stash.push(frame, taken);
            return;
        }
        match self.outlets.frames.try_send(frame) {
            Ok(()) => {}
            Err(TrySendError::Full(frame)) => self.counters.dropped += self.stash.push(frame, taken),
            Err(TrySendError::Closed(_)) => self.counters.dropped += 1,
        }
    }
}

/// Whether a word stands between quotes, be they those of JSON within a string of JSON.
fn mentions(line: &[u8], word: &str) -> bool {
    let found = |text: String| memchr::memmem::find(line, text.as_bytes()).is_some();
    found(format!("\"{word}\"")) || found(format!("\\\"{word}\\\""))
}

enum Decoded {
    Reading(DateTime<Utc>, SystemReading),
    Error(Option<DateTime<Utc>>, String, serde_json::Value),
}

impl News {
    fn hear(&mut self, guest_clock: Option<DateTime<Utc>>, at: DateTime<Utc>) {
        self.heard = true;
        self.skew = guest_clock.map(|clock| clock - at).or(self.skew);
    }
}

/// Sizes here are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "a line is at most 16 MiB")]
fn bytes(size: usize) -> f64 {
    size as f64
}
