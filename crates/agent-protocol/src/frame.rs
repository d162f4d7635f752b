//! Lines out of bytes, within a bound that holds *while* a line is being collected.
//!
//! A guest may send a line in any number of pieces, several lines in one piece, or no newline
//! ever. Memory stays at the frame limit plus what the caller hands in at once; an overlong line
//! is reported once and skipped up to its newline, so that the next frame is read in step again.

use std::collections::VecDeque;

use memchr::memchr;

/// The longest frame either end may send, in bytes, newline not counted (1 MiB).
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// Places for lines that are kept when there are none: a controller has ten thousand decoders.
const KEPT: usize = 16;

/// A line that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the limit. Its bytes were dropped.
    #[error("a frame exceeded {limit} bytes and was dropped")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Collects bytes and gives out whole lines, without their newline. Empty lines are skipped.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    partial: Vec<u8>,
    /// True while the tail of an overlong line is being thrown away.
    skipping: bool,
    ready: VecDeque<Result<Vec<u8>, FrameError>>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new(MAX_FRAME_BYTES)
    }
}

impl FrameDecoder {
    /// A decoder that refuses lines of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), skipping: false, ready: VecDeque::new() }
    }

    /// Takes what was read. Afterwards call [`FrameDecoder::next_frame`] until it gives `None`.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(at) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
            bytes = rest;
            if self.skipping {
                self.skipping = false;
                continue;
            }
            if self.partial.len() + line.len() > self.limit {
                self.partial = Vec::new();
                self.ready.push_back(Err(FrameError::TooLong { limit: self.limit }));
                continue;
            }
            let mut frame = std::mem::take(&mut self.partial);
            frame.extend_from_slice(line);
            if frame.last() == Some(&b'\r') {
                frame.pop();
            }
            if !frame.is_empty() {
                self.ready.push_back(Ok(frame));
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() > self.limit {
            self.partial = Vec::new();
            self.skipping = true;
            self.ready.push_back(Err(FrameError::TooLong { limit: self.limit }));
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// The next whole line, or the fact that one was dropped.
    pub fn next_frame(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let next = self.ready.pop_front();
        if self.ready.is_empty() && self.ready.capacity() > KEPT {
            // Grown by a burst of short lines, which may have been the only one.
            self.ready = VecDeque::new();
        }
        next
    }

    /// Forgets an unfinished line, as after a reconnection.
    pub fn reset(&mut self) {
        self.partial = Vec::new();
        self.skipping = false;
    }

    /// Bytes held for an unfinished line; never more than the limit.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.partial.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(decoder: &mut FrameDecoder, pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, FrameError>> {
        let mut out = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame() {
                out.push(frame);
            }
        }
        out
    }

    #[test]
    fn an_overlong_line_is_reported_once_and_the_next_one_survives() {
        let mut decoder = FrameDecoder::new(8);
        let frames = decode(&mut decoder, &[b"123456789", b"more", b" and more\nok\n"]);
        assert_eq!(frames, vec![Err(FrameError::TooLong { limit: 8 }), Ok(b"ok".to_vec())]);
        let frames = decode(&mut decoder, &[b"0123456789\nok\r\n\n"]);
        assert_eq!(frames, vec![Err(FrameError::TooLong { limit: 8 }), Ok(b"ok".to_vec())]);
    }

    #[test]
    fn an_idle_decoder_keeps_little_of_what_a_burst_took() {
        let mut decoder = FrameDecoder::default();
        let burst = [b"x\n".repeat(10_000), vec![b'y'; 60_000], b"\n".to_vec()].concat();
        assert_eq!(decode(&mut decoder, &[&burst]).len(), 10_001);
        assert!(decoder.ready.capacity() <= KEPT && decoder.partial.capacity() == 0, "{decoder:?}");
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_frames(
            stream in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\n')], 0..400),
            cuts in proptest::collection::vec(0usize..400, 0..12),
        ) {
            let whole = decode(&mut FrameDecoder::new(32), &[&stream]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.push(0);
            cuts.push(stream.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            let mut decoder = FrameDecoder::new(32);
            prop_assert_eq!(decode(&mut decoder, &pieces), whole);
            prop_assert!(decoder.pending_bytes() <= 32);
        }
    }
}
