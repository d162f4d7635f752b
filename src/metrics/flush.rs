//! From the buffers to the database, by way of the disk where it must be.
//!
//! While the database takes them, readings go there from memory: a batch is stored while the next
//! is compressed. What it does not take goes to the spool, and what comes later goes behind it;
//! the spool is emptied oldest first before memory's turn comes again. So order is kept, and a
//! database that is away costs nothing but time. A row that it refuses while it takes others must
//! not hold up all that follow it, so after some failures the culprit is searched for.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    losses::{ErrorReason, Losses, errors_lost},
    packing::{Held, Packing},
    search::{Takes, search},
    spool::Spool,
    waiting::Waiting,
};
use crate::{
    agents::Throttle,
    store::{PackedSample, Store, StoreError},
    vm::LossReason,
};

/// How long after a failure the database is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Failures in a row after which a batch is searched for a row that is at fault.
const PATIENCE: u32 = 3;

/// Guest errors that may fail in one flush before the rest is left for the next.
const ERROR_FAILURES: u32 = 4;

/// Rows stored at once when more than a batch wait: enough for the statement's own cost not to
/// count, few enough to be built without holding up a thread.
const MAX_ROWS: usize = 2000;

/// How long one batch may take; a database that hangs is one that failed.
const STORE_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take while memory gets short.
const STORE_LIMIT_WHEN_TIGHT: Duration = Duration::from_secs(2);

/// How long the database has for the last flush. What it does not take then goes to the spool.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// How often trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Why a flush did not come to its end.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Database(#[from] StoreError),
    /// Said already.
    #[error("readings on disk cannot be read")]
    Disk(#[source] io::Error),
}

impl Failure {
    /// Whether the database is there, as far as is known.
    fn leaves_database(&self) -> bool {
        match self {
            Self::Database(error) => !error.is_unavailable(),
            Self::Disk(_) => true,
        }
    }
}

/// Empties what waits into the store.
pub(super) struct Flusher {
    store: Store,
    waiting: Arc<Waiting>,
    spool: Spool,
    losses: Arc<Losses>,
    interval: Duration,
    /// Older readings would be removed at once.
    retention: TimeDelta,
    max_rows: usize,
    failures: u32,
    /// Nothing more will come.
    filled: CancellationToken,
    filled_at: OnceLock<Instant>,
    said: Throttle,
    said_spool: Mutex<Throttle>,
}

impl Flusher {
    pub(super) fn new(
        store: Store,
        waiting: Arc<Waiting>,
        spool: Spool,
        losses: Arc<Losses>,
        interval: Duration,
        retention: TimeDelta,
        batch_rows: usize,
    ) -> Self {
        let throttle = || Throttle::new(LOG_INTERVAL);
        Self {
            store,
            waiting,
            spool,
            losses,
            interval,
            retention,
            max_rows: batch_rows.max(MAX_ROWS),
            failures: 0,
            filled: CancellationToken::new(),
            filled_at: OnceLock::new(),
            said: throttle(),
            said_spool: Mutex::new(throttle()),
        }
    }

    /// Works until `filled` says that nothing more will come, then stores what is left.
    ///
    /// A stop cuts nothing off: it only bounds the time that the database has, so that no reading
    /// is on its way to the disk and back into memory at once.
    pub(super) async fn run(mut self, filled: CancellationToken) {
        self.filled = filled.clone();
        if let Err(error) = self.spool.open().await {
            self.spool_failed(&error);
        }
        loop {
            tokio::select! {
                () = filled.cancelled() => break,
                () = self.turn() => {}
            }
            self.flush().await;
        }
        self.last_flush().await;
    }

    /// Until there is something to do.
    async fn turn(&self) {
        if self.failures > 0 {
            tokio::time::sleep(RETRY.min(self.interval)).await;
        } else if self.spool.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = self.waiting.due() => {}
            }
        }
    }

    async fn last_flush(&mut self) {
        if self.failures > 0 {
            // First to where it is safe; then the database has its chance.
            self.spool_all().await;
        }
        self.flush().await;
        self.spool_all().await;
        let (readings, errors) = (self.waiting.readings(), self.waiting.errors());
        self.losses.add(LossReason::Stopped, readings as u64);
        errors_lost(ErrorReason::Stopped, errors as u64);
        if readings + errors > 0 {
            tracing::error!(readings, errors, "not everything could be stored before the stop");
        }
    }

    async fn flush(&mut self) {
        let stored = match self.flush_readings().await {
            Ok(()) => {
                self.failures = 0;
                self.flush_errors().await
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.say(&failure);
                if !failure.leaves_database() {
                    return;
                }
                // Errors need not wait for readings that are refused or cannot be read.
                self.while_spooling(self.flush_errors()).await
            }
        };
        if let Err(error) = stored {
            self.say(&error);
        }
    }

    fn say(&mut self, error: &(dyn std::error::Error + 'static)) {
        if let Some(held_back) = self.said.pass(Instant::now()) {
            tracing::warn!(
                error,
                held_back,
                failures = self.failures,
                "what guests report cannot be stored; it is kept and tried again"
            );
        }
    }

    /// Tries each waiting error once; one that fails goes to the end, so that it holds up no
    /// other.
    async fn flush_errors(&self) -> Result<(), StoreError> {
        let mut failed = Ok(());
        let mut failures = 0;
        for _ in 0..self.waiting.errors() {
            // Copied, not taken: a stop in the middle must not lose it, and storing it twice
            // does nothing.
            let Some(error) = self.waiting.first_error() else { break };
            let stored = self.in_time(self.store.insert_vm_error(&error)).await;
            if self.waiting.settle_error(error.id, stored.is_err())
                && let Err(error) = stored
            {
                failures += 1;
                // A database that is away refuses nothing: the others would only wait for it.
                let enough = failures >= ERROR_FAILURES || error.is_unavailable();
                failed = Err(error);
                if enough {
                    break;
                }
            }
        }
        failed
    }

    async fn flush_readings(&mut self) -> Result<(), Failure> {
        self.drain().await?;
        let mut next = self.pack();
        while let Some(batch) = next.take() {
            let mut held = batch.packed(&self.losses).await;
            // Less than a batch is left for the next time.
            if self.waiting.is_due() {
                next = self.pack();
            }
            let stored = tokio::select! {
                stored = self.store(&held.packed) => stored,
                // It goes to the disk at once, so that what comes meanwhile can go behind it.
                () = self.tight() => Err(StoreError::NoAnswer { limit: STORE_LIMIT_WHEN_TIGHT }),
            };
            if let Err(error) = stored {
                self.waiting.flow(false);
                // What was compressed meanwhile goes back first, so that it stays behind.
                drop(next);
                self.spool(held).await;
                return Err(error.into());
            }
            held.done();
            self.failures = 0;
            self.waiting.flow(true);
        }
        Ok(())
    }

    /// Empties the spool, oldest first. Guests' errors do not wait until all of it is stored.
    async fn drain(&mut self) -> Result<(), Failure> {
        while !self.spool.is_empty() {
            let (number, samples) = match self.spool.oldest().await {
                Ok(Some(oldest)) => oldest,
                Ok(None) => break,
                Err(error) => return Err(self.unread(error).await),
            };
            if let Err(error) = self.while_spooling(self.store(&samples)).await {
                if let Err(error) = self.spool.not_stored().await {
                    self.spool_failed(&error);
                }
                self.spool_all().await;
                return Err(error.into());
            }
            self.failures = 0;
            self.waiting.flow(true);
            if let Err(error) = self.spool.remove(number).await {
                return Err(self.unread(error).await);
            }
            if let Err(error) = self.while_spooling(self.flush_errors()).await {
                self.say(&error);
            }
        }
        Ok(())
    }

    /// The spool's oldest cannot be had. What came later goes behind it; it is tried again after a
    /// while.
    async fn unread(&self, error: io::Error) -> Failure {
        self.spool_failed(&error);
        self.spool_all().await;
        Failure::Disk(error)
    }

    /// Waits for the database's answer to what came from the disk. What comes meanwhile goes to
    /// the disk, behind it, before memory is short.
    async fn while_spooling<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        let mut works = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = self.waiting.due(), if works => {
                    works = !self.waiting.is_due() || self.spool_some().await;
                }
            }
        }
    }

    /// Until memory is short and a batch has had its time.
    async fn tight(&self) {
        tokio::time::sleep(STORE_LIMIT_WHEN_TIGHT).await;
        while !self.waiting.is_half_full() {
            self.waiting.due().await;
        }
    }

    /// All that waits in memory, to the disk, as far as it takes it.
    async fn spool_all(&self) {
        while self.spool_some().await {}
    }

    /// Gives whether there may be more.
    async fn spool_some(&self) -> bool {
        let Some(batch) = self.pack() else { return false };
        let held = batch.packed(&self.losses).await;
        self.spool(held).await
    }

    /// To the disk; what it does not take goes back into memory. Gives whether it took it.
    async fn spool(&self, mut held: Held) -> bool {
        match self.spool.append(Arc::clone(&held.packed)).await {
            Ok(()) => {
                held.done();
                true
            }
            Err(error) => {
                self.waiting.flow(false);
                self.spool_failed(&error);
                false
            }
        }
    }

    fn spool_failed(&self, error: &io::Error) {
        let said = self.said_spool.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now());
        if let Some(held_back) = said {
            tracing::error!(%error, held_back, "readings cannot be kept on disk; they wait in memory");
        }
    }

    /// Begins to compress the next batch, if there is one.
    fn pack(&self) -> Option<Packing> {
        Packing::begin(&self.waiting, self.max_rows)
    }

    /// Stores all of them but what is too old and what the database refuses for itself.
    async fn store(&self, samples: &[PackedSample]) -> Result<(), StoreError> {
        let oldest = Utc::now() - self.retention;
        let is_expired = |sample: &&PackedSample| sample.timestamp() < oldest;
        let expired = samples.iter().filter(is_expired).count();
        let fresh: Vec<_>;
        let samples = if expired == 0 {
            samples
        } else {
            fresh = samples.iter().filter(|sample| !is_expired(sample)).cloned().collect();
            &fresh
        };
        if let Err(error) = self.insert(samples).await {
            if self.failures < PATIENCE || self.in_time(self.store.ping()).await.is_err() {
                return Err(error);
            }
            let refused = search(samples, self).await.ok_or(error)?;
            self.losses.add(LossReason::Refused, refused.len() as u64);
        }
        self.losses.add(LossReason::Expired, expired as u64);
        Ok(())
    }

    /// Waits for the database, but not for ever, and at a stop not for long.
    async fn in_time(&self, work: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let late = async {
            self.filled.cancelled().await;
            tokio::time::sleep_until(*self.filled_at.get_or_init(Instant::now) + LAST_FLUSH).await;
        };
        tokio::select! {
            done = work => done,
            () = tokio::time::sleep(STORE_LIMIT) => Err(StoreError::NoAnswer { limit: STORE_LIMIT }),
            () = late => Err(StoreError::NoAnswer { limit: LAST_FLUSH }),
        }
    }

    async fn insert(&self, samples: &[PackedSample]) -> Result<(), StoreError> {
        let start = Instant::now();
        self.in_time(self.store.insert_packed(samples)).await?;
        ::metrics::histogram!("infinibay_flush_seconds").record(start.elapsed().as_secs_f64());
        ::metrics::counter!("infinibay_flush_rows_total").increment(samples.len() as u64);
        Ok(())
    }
}

impl Takes for Flusher {
    async fn takes(&self, samples: &[PackedSample]) -> bool {
        self.insert(samples).await.is_ok()
    }
}
