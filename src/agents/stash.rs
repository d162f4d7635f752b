//! Frames on their way out of a link, when the receiver cannot take them yet.
//!
//! A link must go on reading and answering while the receiver is slow, so it keeps its newest few
//! frames and drops older ones. Errors go before readings: a reading is followed by another.

use std::collections::VecDeque;

use super::GuestFrame;

/// Frames kept, and what they may take in memory together: a thousand links may each keep this.
const CAPACITY: usize = 8;
const MAX_TREE_BYTES: usize = 2 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stash {
    frames: VecDeque<(GuestFrame, usize)>,
    tree_bytes: usize,
}

impl Stash {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps the frame, which takes that many bytes in memory; gives how many were dropped for it.
    pub(super) fn push(&mut self, frame: GuestFrame, tree_bytes: usize) -> u64 {
        self.frames.push_back((frame, tree_bytes));
        self.tree_bytes += tree_bytes;
        let mut dropped = 0;
        while self.frames.len() > CAPACITY || (self.tree_bytes > MAX_TREE_BYTES && self.frames.len() > 1) {
            let oldest_reading =
                self.frames.iter().position(|(f, _)| matches!(f, GuestFrame::Metrics { .. }));
            if let Some((_, tree_bytes)) = self.frames.remove(oldest_reading.unwrap_or(0)) {
                self.tree_bytes -= tree_bytes;
            }
            dropped += 1;
        }
        dropped
    }

    /// The next to go.
    pub(super) fn pop(&mut self) -> Option<GuestFrame> {
        let (frame, tree_bytes) = self.frames.pop_front()?;
        self.tree_bytes -= tree_bytes;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::SystemReading;
    use chrono::Utc;
    use serde_json::json;

    use super::*;
    use crate::vm::VmId;

    #[test]
    fn the_oldest_reading_goes_first_and_order_is_kept() {
        let vm = VmId::generate();
        let reading = |n: u64| GuestFrame::Metrics {
            vm,
            received_at: Utc::now(),
            timestamp: Utc::now(),
            system: SystemReading::of(&json!(n)),
        };
        let mut stash = Stash::default();
        let error = GuestFrame::Error {
            vm,
            received_at: Utc::now(),
            timestamp: None,
            error: "full".to_owned(),
            details: json!({}),
        };
        assert_eq!(stash.push(error, 1), 0);
        let dropped: u64 = (0..20).map(|n| stash.push(reading(n), 1)).sum();
        assert_eq!(dropped, 21 - CAPACITY as u64);
        assert!(matches!(stash.pop(), Some(GuestFrame::Error { .. })));
        let mut left: Vec<u64> = Vec::new();
        while let Some(GuestFrame::Metrics { system, .. }) = stash.pop() {
            left.push(system.text.parse().unwrap());
        }
        assert_eq!(left, (13..20).collect::<Vec<u64>>());
        assert_eq!(stash.tree_bytes, 0);
        let large = (0..3).map(|n| stash.push(reading(n), MAX_TREE_BYTES / 2)).collect::<Vec<_>>();
        assert_eq!((large, stash.frames.len()), (vec![0, 0, 1], 2));
        assert_eq!((stash.push(reading(3), MAX_TREE_BYTES), stash.frames.len()), (2, 1));
    }
}
