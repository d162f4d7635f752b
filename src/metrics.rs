//! Readings: validated, told at once, buffered, stored in batches, expired.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{agents::GuestFrame, config::MetricsConfig, events::EventBus, store::Store, vm::VmId};

/// The readings' way from links to database. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {}

/// Readings refused since the controller started, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections {
    /// cpu or memory missing or of the wrong kind.
    pub shape: u64,
    /// cpu outside 0..100, used above total, negative, not a number.
    pub range: u64,
    /// The timestamp further off than allowed.
    pub skew: u64,
}

impl Metrics {
    /// A pipeline into this store.
    #[must_use]
    pub fn new(
        _config: MetricsConfig,
        _max_skew: std::time::Duration,
        _store: Store,
        _events: EventBus,
    ) -> Self {
        todo!()
    }

    /// Works until `stop`, then stores what is buffered. Guest errors take the same way.
    pub async fn run(&self, _frames: mpsc::Receiver<GuestFrame>, _stop: CancellationToken) {
        todo!()
    }

    /// What was refused of this VM.
    #[must_use]
    pub fn rejections(&self, _vm: VmId) -> Rejections {
        todo!()
    }
}
