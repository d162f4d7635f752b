//! What guests' answers may take in one answer of ours.
//!
//! A page is bounded where it is read, but one query may ask for many pages: each response is
//! reckoned before it becomes a tree, and one request has so much room for all of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use agent_protocol::tree_bytes;
use async_graphql::Context;

use crate::vm::FrameText;

/// Bytes in memory: a full page, asked for as `response` and as `result`.
const MAX_TREE: usize = 64 << 20;

/// What is left of one request's room. Each request has its own.
#[derive(Debug)]
pub(super) struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_TREE))
    }
}

impl Room {
    /// Whether there is room for this as a tree; it is taken then.
    pub(super) fn take(ctx: &Context<'_>, text: &FrameText) -> bool {
        ctx.data_opt::<Self>().is_some_and(|room| room.fits(tree_bytes(text.as_str().as_bytes())))
    }

    fn fits(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let room = Room::default();
        assert!(room.fits(MAX_TREE - 10));
        assert!(!room.fits(11));
        assert!(room.fits(10) && !room.fits(1));
    }
}
