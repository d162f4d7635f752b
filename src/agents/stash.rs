//! Frames on their way out of a link, when the receiver cannot take them yet.
//!
//! A link must go on reading and answering while the receiver is slow, so it keeps its newest few
//! frames and drops older ones. Errors go before readings: a reading is followed by another.

use std::collections::VecDeque;

use super::GuestFrame;

/// Frames kept. A thousand links may each keep this many of up to 128 KiB.
const CAPACITY: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stash {
    frames: VecDeque<GuestFrame>,
}

impl Stash {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps the frame; gives how many were dropped for it.
    pub(super) fn push(&mut self, frame: GuestFrame) -> u64 {
        self.frames.push_back(frame);
        if self.frames.len() <= CAPACITY {
            return 0;
        }
        let oldest_reading = self.frames.iter().position(|f| matches!(f, GuestFrame::Metrics { .. }));
        self.frames.remove(oldest_reading.unwrap_or(0));
        1
    }

    /// The next to go.
    pub(super) fn pop(&mut self) -> Option<GuestFrame> {
        self.frames.pop_front()
    }
}

#[cfg(test)]
mod tests {
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
            system: json!(n),
        };
        let mut stash = Stash::default();
        let error = GuestFrame::Error {
            vm,
            received_at: Utc::now(),
            timestamp: None,
            error: "full".to_owned(),
            details: json!({}),
        };
        assert_eq!(stash.push(error), 0);
        let dropped: u64 = (0..20).map(|n| stash.push(reading(n))).sum();
        assert_eq!(dropped, 21 - CAPACITY as u64);
        assert!(matches!(stash.pop(), Some(GuestFrame::Error { .. })));
        let mut left = Vec::new();
        while let Some(GuestFrame::Metrics { system, .. }) = stash.pop() {
            left.push(system.as_u64().unwrap());
        }
        assert_eq!(left, (13..20).collect::<Vec<_>>());
    }
}
