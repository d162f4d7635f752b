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

use super::buffer::{Batch, Buffer};
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

    pub(super) fn push_reading(&self, sample: MetricsSample, bytes: usize) {
        let (dropped, waiting) = {
            let mut readings = locked(&self.readings);
            (readings.push(sample, bytes), readings.len())
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

    fn put_back(&self, batch: Batch) {
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
        let done = match self.flush_errors().await {
            Ok(()) => self.flush_readings().await,
            failed => failed,
        };
        match done {
            Ok(()) => self.failures = 0,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if let Some(held_back) = self.said.pass(Instant::now()) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        held_back,
                        failures = self.failures,
                        "readings cannot be stored; they are kept and tried again"
                    );
                }
            }
        }
    }

    async fn flush_errors(&mut self) -> Result<(), StoreError> {
        loop {
            // Copied, not taken: a stop in the middle must not lose it, and storing it twice
            // does nothing.
            let Some(error) = locked(&self.waiting.errors).front().cloned() else { return Ok(()) };
            if let Err(failed) = self.store.insert_vm_error(&error).await {
                if self.failures < PATIENCE || self.store.ping().await.is_err() {
                    return Err(failed);
                }
                tracing::error!(
                    vm = %error.vm, error = &failed as &dyn std::error::Error,
                    "the database refuses a guest's error, which is dropped"
                );
            }
            let mut errors = locked(&self.waiting.errors);
            if errors.front().is_some_and(|front| front.id == error.id) {
                errors.pop_front();
            }
        }
    }

    async fn flush_readings(&mut self) -> Result<(), StoreError> {
        loop {
            let batch = locked(&self.waiting.readings).take(self.waiting.batch_rows);
            if batch.samples.is_empty() {
                return Ok(());
            }
            let full = batch.samples.len() == self.waiting.batch_rows;
            // Whatever ends this in the middle, the batch goes back; storing it twice does
            // nothing.
            let mut held = Held { waiting: self.waiting, batch: Some(batch) };
            if let Err(error) = self.store.insert_metrics(held.samples()).await {
                if self.failures < PATIENCE || self.store.ping().await.is_err() {
                    return Err(error);
                }
                let refused = self.search(held.samples()).await.ok_or(error)?;
                tracing::error!(rows = refused.len(), "the database refuses readings, which are dropped");
            }
            held.batch = None;
            if !full {
                return Ok(());
            }
        }
    }

    /// Stores all it can, in halves, and gives the rows that the database refuses for
    /// themselves. `None`: it takes nothing, so they are not at fault.
    async fn search(&self, samples: &[MetricsSample]) -> Option<Vec<Uuid>> {
        let mut refused = Vec::new();
        let mut failures = 0;
        let mut any_stored = false;
        let mut parts = vec![samples];
        while let Some(part) = parts.pop() {
            if self.store.insert_metrics(part).await.is_ok() {
                (failures, any_stored) = (0, true);
                continue;
            }
            failures += 1;
            if failures > SEARCH_FAILURES {
                return None;
            }
            match part {
                [one] => refused.push(one.id),
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        any_stored.then_some(refused)
    }
}

/// A batch that goes back unless it was stored.
struct Held<'a> {
    waiting: &'a Waiting,
    batch: Option<Batch>,
}

impl Held<'_> {
    fn samples(&self) -> &[MetricsSample] {
        self.batch.as_ref().map_or(&[], |batch| &batch.samples)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.waiting.put_back(batch);
        }
    }
}
