//! A batch on its way out of memory: compressed apart from everything else, and back in memory
//! unless it arrives.

use std::sync::Arc;

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{losses::Losses, waiting::Waiting};
use crate::{
    store::PackedSample,
    vm::{LossReason, MetricsSample},
};

/// A batch that is being compressed.
pub(super) struct Packing {
    held: Held,
    packed: JoinHandle<(Vec<PackedSample>, Vec<Uuid>)>,
}

impl Packing {
    /// Takes the oldest readings, if there are any.
    pub(super) fn begin(waiting: &Arc<Waiting>, max_rows: usize) -> Option<Self> {
        let batch = waiting.take(max_rows);
        if batch.is_empty() {
            return None;
        }
        let samples = batch.clone();
        let held = Held { waiting: Arc::clone(waiting), batch, packed: Arc::default() };
        Some(Self { held, packed: tokio::task::spawn_blocking(move || PackedSample::pack(&samples)) })
    }

    /// Done, but for what cannot be compressed.
    pub(super) async fn packed(self, losses: &Losses) -> Held {
        let Self { mut held, packed } = self;
        // It panics no more than it fails; what cannot be compressed cannot be stored.
        let (packed, failed) = packed
            .await
            .unwrap_or_else(|_| (Vec::new(), held.batch.iter().map(|sample| sample.id).collect()));
        losses.add(LossReason::Refused, failed.len() as u64);
        held.packed = packed.into();
        held
    }
}

/// A batch that goes back into memory, whatever ends its way, unless it has arrived. Storing it
/// twice does nothing.
pub(super) struct Held {
    waiting: Arc<Waiting>,
    batch: Vec<MetricsSample>,
    pub(super) packed: Arc<[PackedSample]>,
}

impl Held {
    /// It has arrived.
    pub(super) fn done(&mut self) {
        self.batch.clear();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            self.waiting.put_back(std::mem::take(&mut self.batch));
        }
    }
}
