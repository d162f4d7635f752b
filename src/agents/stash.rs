//! Frames on their way out of a link, when the receiver cannot take them yet.
//!
//! They wait for their turn in the line of all links. A link whose turn does not come goes on
//! reading at last ([`super::hold`]): then it keeps its newest frames and drops older ones. Errors
//! go before readings: a reading is followed by another.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::GuestFrame;

/// Frames kept: as many as one line of several readings can bring. And what they may take in
/// memory together: a thousand links may each keep this.
const CAPACITY: usize = 64;
const MAX_TREE_BYTES: usize = 2 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stash {
    frames: VecDeque<(GuestFrame, usize)>,
    tree_bytes: usize,
    /// The place in the line; none while nothing waits.
    place: Option<PollSender<GuestFrame>>,
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

    /// Hands the oldest over as soon as its turn comes; gives how many will never be taken. The
    /// place in the line is kept however often this is asked and left again.
    pub(super) fn poll_hand_over(
        &mut self,
        outlet: &mpsc::Sender<GuestFrame>,
        context: &mut Context<'_>,
    ) -> Poll<u64> {
        let place = self.place.get_or_insert_with(|| PollSender::new(outlet.clone()));
        let turn = ready!(place.poll_reserve(context));
        let mut lost = 0;
        if turn.is_err() {
            // Nobody takes any more: the controller is stopping.
            lost = self.frames.len() as u64;
            self.frames.clear();
        } else if let Some((frame, tree_bytes)) = self.frames.pop_front() {
            self.tree_bytes -= tree_bytes;
            // Its room was reserved above.
            let _ = place.send_item(frame);
        }
        if self.frames.is_empty() {
            // Without what it had grown to: most links need none of it most of the time.
            *self = Self::default();
        }
        Poll::Ready(lost)
    }
}

#[cfg(test)]
mod tests {
    use agent_protocol::SystemReading;
    use chrono::Utc;
    use serde_json::json;

    use super::*;
    use crate::vm::VmId;

    /// Hands all over to a receiver that has room; gives what came out.
    fn emptied(stash: &mut Stash) -> Vec<GuestFrame> {
        let (outlet, mut receiver) = mpsc::channel(2 * CAPACITY);
        let mut context = Context::from_waker(std::task::Waker::noop());
        while !stash.is_empty() {
            assert_eq!(stash.poll_hand_over(&outlet, &mut context), Poll::Ready(0));
        }
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

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
        let more = CAPACITY as u64 + 12;
        let dropped: u64 = (0..more).map(|n| stash.push(reading(n), 1)).sum();
        assert_eq!(dropped, 13);
        let mut left = emptied(&mut stash).into_iter();
        assert!(matches!(left.next(), Some(GuestFrame::Error { .. })));
        let left: Vec<u64> = left
            .map(|frame| match frame {
                GuestFrame::Metrics { system, .. } => system.text.parse().unwrap(),
                GuestFrame::Error { .. } => panic!("one error came in"),
            })
            .collect();
        assert_eq!(left, (13..more).collect::<Vec<u64>>());
        assert_eq!(stash.tree_bytes, 0);
        let large = (0..3).map(|n| stash.push(reading(n), MAX_TREE_BYTES / 2)).collect::<Vec<_>>();
        assert_eq!((large, stash.frames.len()), (vec![0, 0, 1], 2));
        assert_eq!((stash.push(reading(3), MAX_TREE_BYTES), stash.frames.len()), (2, 1));
    }

    #[test]
    fn each_waits_in_line_and_is_told_when_nobody_takes_any_more() {
        let vm = VmId::generate();
        let reading = |n: u64| GuestFrame::Metrics {
            vm,
            received_at: Utc::now(),
            timestamp: Utc::now(),
            system: SystemReading::of(&json!(n)),
        };
        let (outlet, mut receiver) = mpsc::channel(1);
        outlet.try_send(reading(0)).unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut links: [Stash; 3] = Default::default();
        for (n, link) in links.iter_mut().enumerate() {
            link.push(reading(n as u64 + 1), 1);
            link.push(reading(n as u64 + 11), 1);
            assert!(link.poll_hand_over(&outlet, &mut context).is_pending());
        }
        // Asked in the wrong order, and again and again: those in front keep their places.
        for expected in [0, 1, 2, 3, 11] {
            let Some(GuestFrame::Metrics { system, .. }) = receiver.try_recv().ok() else { panic!("empty") };
            assert_eq!(system.text.parse::<u64>().unwrap(), expected);
            for link in links.iter_mut().rev().filter(|link| !link.is_empty()) {
                let _ = link.poll_hand_over(&outlet, &mut context);
            }
        }
        drop(receiver);
        let lost: u64 = links
            .iter_mut()
            .filter(|link| !link.is_empty())
            .map(|link| match link.poll_hand_over(&outlet, &mut context) {
                Poll::Ready(lost) => lost,
                Poll::Pending => panic!("nobody will take it"),
            })
            .sum();
        assert_eq!(lost, 1, "twelve is in the channel, thirteen was left");
    }
}
