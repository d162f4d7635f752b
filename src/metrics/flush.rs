//! From the buffers to the database.
//!
//! A database that is away costs nothing but time: what failed goes back, in order. A row that
//! the database refuses while it takes others must not hold up all that follow it, so after some
//! failures the batch is split until the culprit stands alone.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::buffer::Buffer;
use crate::{
    agents::Throttle,
    store::{Store, StoreError, VmErrorRecord},
    vm::MetricsSample,
};

/// Guest errors waiting at most.
const MAX_ERRORS: usize = 1000;

/// How long after a failure the database is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Failures in a row after which a batch is searched for a row that is at fault.
const PATIENCE: u32 = 3;

/// Failures in a row, with no success between, after which the search is given up: then it is
/// the database that is at fault.
const SEARCH_FAILURES: u32 = 16;

/// Guest errors that may fail in one flush before the rest is left for the next.
const ERROR_FAILURES: u32 = 4;

/// How long one flush may take; a database that hangs is one that failed.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// How long the last flush may take.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// How often trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What waits to be stored, shared by those who fill it and the one who empties it.
#[derive(Debug)]
pub(super) struct Waiting {
    readings: Mutex<Buffer>,
    errors: Mutex<VecDeque<VmErrorRecord>>,
    lost: Mutex<Throttle>,
    /// Enough has come for a batch.
    due: Notify,
    batch_rows: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the front, if it is still this one.
fn front_with(errors: &mut VecDeque<VmErrorRecord>, id: Uuid) -> Option<VmErrorRecord> {
    if errors.front()?.id == id { errors.pop_front() } else { None }
}

impl Waiting {
    pub(super) fn new(max_rows: usize, batch_rows: usize) -> Self {
        Self {
            readings: Mutex::new(Buffer::new(max_rows)),
            errors: Mutex::default(),
            lost: Mutex::new(Throttle::new(LOG_INTERVAL)),
            due: Notify::new(),
            batch_rows,
        }
    }

    pub(super) fn push_reading(&self, sample: MetricsSample) {
        let (dropped, waiting) = {
            let mut readings = locked(&self.readings);
            (readings.push(sample), readings.len())
        };
        self.say_lost("readings", dropped);
        if waiting >= self.batch_rows {
            self.due.notify_one();
        }
    }

    pub(super) fn push_error(&self, error: VmErrorRecord) {
        let mut errors = locked(&self.errors);
        errors.push_back(error);
        if errors.len() > MAX_ERRORS {
            errors.pop_front();
            drop(errors);
            self.say_lost("guest errors", 1);
        }
    }

    fn say_lost(&self, what: &str, dropped: u64) {
        if dropped > 0
            && let Some(held_back) = locked(&self.lost).pass(Instant::now())
        {
            tracing::warn!(what, dropped, held_back, "the database is behind: the oldest are dropped");
        }
    }

    fn put_back(&self, batch: Vec<MetricsSample>) {
        let dropped = locked(&self.readings).put_back(batch);
        self.say_lost("readings", dropped);
    }
}

/// Empties what waits into the store.
pub(super) struct Flusher<'a> {
    store: &'a Store,
    waiting: &'a Waiting,
    interval: Duration,
    failures: u32,
    said: Throttle,
}

impl<'a> Flusher<'a> {
    pub(super) fn new(store: &'a Store, waiting: &'a Waiting, interval: Duration) -> Self {
        Self { store, waiting, interval, failures: 0, said: Throttle::new(LOG_INTERVAL) }
    }

    /// Works until `filled` says that nothing more will come, then stores what is left.
    pub(super) async fn run(mut self, filled: &CancellationToken) {
        loop {
            let more = async {
                if self.failures > 0 {
                    tokio::time::sleep(RETRY.min(self.interval)).await;
                } else {
                    tokio::select! {
                        () = tokio::time::sleep(self.interval) => {}
                        () = self.waiting.due.notified() => {}
                    }
                }
            };
            tokio::select! {
                () = filled.cancelled() => break,
                () = more => {}
            }
            // What a stop interrupts goes back, and is taken up by the last flush.
            tokio::select! {
                () = filled.cancelled() => break,
                ended = tokio::time::timeout(FLUSH_LIMIT, self.flush()) => {
                    if ended.is_err() {
                        self.failures = self.failures.saturating_add(1);
                        tracing::warn!(limit = ?FLUSH_LIMIT, "storing readings takes too long");
                    }
                }
            }
        }
        let last = tokio::time::timeout(LAST_FLUSH, self.flush()).await;
        let (readings, errors) = (locked(&self.waiting.readings).len(), locked(&self.waiting.errors).len());
        if last.is_err() || readings + errors > 0 {
            tracing::error!(readings, errors, "not everything could be stored before the stop");
        }
    }

    async fn flush(&mut self) {
        let readings = self.flush_readings().await;
        let errors = self.flush_errors().await;
        match readings.and(errors) {
            Ok(()) => self.failures = 0,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if let Some(held_back) = self.said.pass(Instant::now()) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        held_back,
                        failures = self.failures,
                        "what guests report cannot be stored; it is kept and tried again"
                    );
                }
            }
        }
    }

    /// Tries each waiting error once; one that fails goes to the end, so that it holds up no
    /// other.
    async fn flush_errors(&self) -> Result<(), StoreError> {
        let mut failed = Ok(());
        let mut failures = 0;
        let waiting = locked(&self.waiting.errors).len();
        for _ in 0..waiting {
            // Copied, not taken: a stop in the middle must not lose it, and storing it twice
            // does nothing.
            let Some(error) = locked(&self.waiting.errors).front().cloned() else { break };
            let stored = self.store.insert_vm_error(&error).await;
            let mut errors = locked(&self.waiting.errors);
            // The bound may have dropped it meanwhile.
            let Some(front) = front_with(&mut errors, error.id) else { continue };
            if let Err(error) = stored {
                errors.push_back(front);
                failed = Err(error);
                failures += 1;
                if failures >= ERROR_FAILURES {
                    break;
                }
            }
        }
        failed
    }

    async fn flush_readings(&mut self) -> Result<(), StoreError> {
        loop {
            let (batch, more) = {
                let mut readings = locked(&self.waiting.readings);
                let batch = readings.take(self.waiting.batch_rows);
                // Less than a batch of rows is left for the next time.
                let more =
                    batch.len() == self.waiting.batch_rows || readings.len() >= self.waiting.batch_rows;
                (batch, more)
            };
            if batch.len() == 0 {
                return Ok(());
            }
            // Whatever ends this in the middle, the batch goes back; storing it twice does
            // nothing.
            let mut held = Held { waiting: self.waiting, batch };
            if let Err(error) = self.store.insert_metrics(held.samples()).await {
                if self.failures < PATIENCE || self.store.ping().await.is_err() {
                    return Err(error);
                }
                let refused = self.search(held.samples()).await.ok_or(error)?;
                if !refused.is_empty() {
                    tracing::error!(rows = refused.len(), "the database refuses readings, which are dropped");
                }
            }
            held.batch.clear();
            if !more {
                return Ok(());
            }
        }
    }

    /// Stores all it can, in halves, and gives the rows that the database refuses for
    /// themselves. `None`: it may be the database that is at fault.
    async fn search(&self, samples: &[MetricsSample]) -> Option<Vec<Uuid>> {
        let mut suspects = Vec::new();
        let mut failures = 0;
        let mut stored = None;
        let mut parts = vec![samples];
        while let Some(part) = parts.pop() {
            if self.takes(part).await {
                (failures, stored) = (0, part.first());
                continue;
            }
            failures += 1;
            if failures > SEARCH_FAILURES {
                return None;
            }
            match part {
                [one] => suspects.push(one),
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        // A suspect may have met a database that was away for a moment. It is at fault only if
        // it fails between two rows that succeed; storing a row again does nothing.
        let proof = std::slice::from_ref(stored?);
        let mut refused = Vec::new();
        for suspect in suspects {
            if !self.takes(proof).await {
                return None;
            }
            if !self.takes(std::slice::from_ref(suspect)).await {
                if !self.takes(proof).await {
                    return None;
                }
                refused.push(suspect.id);
            }
        }
        Some(refused)
    }

    async fn takes(&self, samples: &[MetricsSample]) -> bool {
        self.store.insert_metrics(samples).await.is_ok()
    }
}

/// A batch that goes back unless it was stored.
struct Held<'a> {
    waiting: &'a Waiting,
    batch: Vec<MetricsSample>,
}

impl Held<'_> {
    fn samples(&self) -> &[MetricsSample] {
        &self.batch
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            self.waiting.put_back(std::mem::take(&mut self.batch));
        }
    }
}
