//! Readings: validated, told at once, buffered, stored in batches. Guest errors take the same
//! way.
//!
//! Taking in never waits for a database that is away: readings gather on disk meanwhile, within a
//! bound, and subscribers go on seeing each reading as it comes. For one that works, and has more
//! to do than it can, taking in waits a little instead of dropping.

mod buffer;
mod flush;
mod losses;
mod packing;
mod rates;
mod remembered;
mod search;
mod spool;
mod tidy;
mod validate;
mod waiting;

use std::{
    borrow::Cow,
    mem,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_protocol::SystemReading;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinError, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    agents::{GuestFrame, Throttle, TokenBucket},
    config::MetricsConfig,
    events::EventBus,
    store::{Store, VmErrorRecord},
    vm::{FrameText, MetricsSample, NetworkRates, Redactor, VmEvent, VmId, truncate_to_micros},
};
use flush::Flusher;
pub use losses::Lost;
use losses::{ErrorReason, Losses, errors_lost};
use rates::Counters;
use remembered::Remembered;
use spool::Spool;
use tidy::{hide_secrets_in_text, hide_secrets_of_error, told};
pub use validate::{Refusal, validate};
use waiting::Waiting;

/// Errors of one guest that are stored and told: this many at once, and one per second on
/// average. Each takes up to 20 KiB of the database for as long as history is kept.
const ERROR_BURST: f64 = 60.0;
const ERROR_RATE: f64 = 1.0;

/// How often refused and dropped things are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The readings' way from links to database. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: MetricsConfig,
    max_skew: Duration,
    redactor: Redactor,
    /// Where readings wait on disk.
    spool_dir: PathBuf,
    store: Store,
    events: EventBus,
    losses: Arc<Losses>,
    rejections: Mutex<Remembered<Rejections>>,
}

/// Readings and errors refused since the controller started, by reason. Of the VMs refused longest
/// ago they are forgotten when there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejections {
    /// cpu or memory missing or of the wrong kind.
    pub shape: u64,
    /// cpu outside 0..100, used above total, negative, not a number.
    pub range: u64,
    /// The timestamp further off than allowed.
    pub skew: u64,
    /// Errors over the guest's rate, neither stored nor told.
    pub errors_muted: u64,
}

impl Metrics {
    /// A pipeline into this store, with a directory of its own for what the store cannot take yet.
    #[must_use]
    pub fn new(
        config: MetricsConfig,
        max_skew: Duration,
        redactor: Redactor,
        spool_dir: PathBuf,
        store: Store,
        events: EventBus,
    ) -> Self {
        let (losses, rejections) = (Arc::default(), Mutex::default());
        let inner = Inner { config, max_skew, redactor, spool_dir, store, events, losses, rejections };
        Self { inner: Arc::new(inner) }
    }

    /// Works until `stop`, then stores what has come until then, within some seconds; what the
    /// database does not take goes to the disk. Guest errors take the same way, but for the disk.
    pub async fn run(&self, mut frames: mpsc::Receiver<GuestFrame>, stop: CancellationToken) {
        let inner = &self.inner;
        let waiting = inner.waiting();
        let filled = CancellationToken::new();
        // Should this be dropped in the middle, the flusher ends as it does at a stop.
        let _filled = filled.clone().drop_guard();
        let mut flusher = tokio::spawn(inner.flusher(&waiting).run(filled.clone()));
        let mut intake = Intake::new(inner, &waiting);
        loop {
            let next = async {
                waiting.room().await;
                frames.recv().await
            };
            tokio::select! {
                () = stop.cancelled() => break,
                // Once every link is gone, the stop is all that is left to wait for.
                Some(frame) = next => intake.frame(frame),
                // It ends unasked only by a panic.
                ended = &mut flusher => return rethrow(ended),
            }
        }
        while let Ok(frame) = frames.try_recv() {
            intake.frame(frame);
        }
        filled.cancel();
        rethrow(flusher.await);
    }

    /// Readings that were given up since the controller started.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.inner.losses.snapshot()
    }

    /// What was refused of this VM.
    #[must_use]
    pub fn rejections(&self, vm: VmId) -> Rejections {
        self.inner.rejections().get(vm).copied().unwrap_or_default()
    }
}

impl Inner {
    fn rejections(&self) -> MutexGuard<'_, Remembered<Rejections>> {
        self.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Arc<Waiting> {
        let (max, batch) = (rows(self.config.buffer_rows), rows(self.config.flush_rows));
        Arc::new(Waiting::new(max, batch, Arc::clone(&self.losses)))
    }

    fn flusher(&self, waiting: &Arc<Waiting>) -> Flusher {
        let MetricsConfig { flush_interval, flush_rows, retention_days, spool_max_bytes, .. } = self.config;
        let losses = || Arc::clone(&self.losses);
        Flusher::new(
            self.store.clone(),
            Arc::clone(waiting),
            Spool::new(self.spool_dir.clone(), u64::from(spool_max_bytes), losses()),
            losses(),
            flush_interval,
            TimeDelta::days(i64::from(retention_days)),
            rows(flush_rows),
        )
    }

    /// Counts; gives all of this VM's.
    fn refuse(&self, vm: VmId, refusal: Refusal) -> Rejections {
        ::metrics::counter!("infinibay_readings_refused_total", "reason" => refusal.as_str()).increment(1);
        let mut rejections = self.rejections();
        let counted = rejections.touch(vm, Rejections::default);
        match refusal {
            Refusal::Shape => counted.shape += 1,
            Refusal::Range => counted.range += 1,
            Refusal::Skew => counted.skew += 1,
        }
        *counted
    }

    /// Counts an error over its guest's rate; gives all of this VM's.
    fn mute(&self, vm: VmId) -> u64 {
        errors_lost(ErrorReason::Rate, 1);
        let mut rejections = self.rejections();
        let counted = rejections.touch(vm, Rejections::default);
        counted.errors_muted += 1;
        counted.errors_muted
    }
}

/// A panic in a task of ours is ours.
fn rethrow(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

fn rows(configured: u32) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX)
}

/// The side that takes frames in.
struct Intake<'a> {
    inner: &'a Inner,
    waiting: &'a Waiting,
    error_rates: Remembered<TokenBucket>,
    /// As of the last valid reading; `None`: it did not tell.
    counters: Remembered<Option<Counters>>,
    refused: Throttle,
    muted: Throttle,
}

impl<'a> Intake<'a> {
    fn new(inner: &'a Inner, waiting: &'a Waiting) -> Self {
        let throttle = || Throttle::new(LOG_INTERVAL);
        Self {
            inner,
            waiting,
            error_rates: Remembered::default(),
            counters: Remembered::default(),
            refused: throttle(),
            muted: throttle(),
        }
    }

    fn frame(&mut self, frame: GuestFrame) {
        match frame {
            GuestFrame::Metrics { vm, received_at, timestamp, system } => {
                self.reading(vm, received_at, timestamp, system);
            }
            GuestFrame::Error { vm, received_at, timestamp, error, details } => {
                self.error(vm, received_at, timestamp, error, details);
            }
        }
    }

    fn reading(
        &mut self,
        vm: VmId,
        received_at: DateTime<Utc>,
        timestamp: DateTime<Utc>,
        system: SystemReading,
    ) {
        let mut readings = match validate(&system, timestamp, received_at, self.inner.max_skew) {
            Ok(readings) => readings,
            Err(refusal) => {
                let Rejections { shape, range, skew, .. } = self.inner.refuse(vm, refusal);
                if let Some(held_back) = self.refused.pass(Instant::now()) {
                    tracing::warn!(%vm, shape, range, skew, held_back, "a guest's reading is refused");
                }
                return;
            }
        };
        ::metrics::counter!("infinibay_readings_total").increment(1);
        readings.network = self.network_rates(vm, Counters::of(&system, timestamp));
        let frame = match hide_secrets_in_text(&self.inner.redactor, &system.text) {
            Cow::Borrowed(_) => FrameText::new(system.text),
            Cow::Owned(hidden) => FrameText::new(hidden),
        };
        let sample = MetricsSample {
            id: Uuid::now_v7(),
            vm,
            timestamp: truncate_to_micros(timestamp),
            received_at: truncate_to_micros(received_at),
            readings,
            frame,
        };
        let told = MetricsSample { frame: told(&sample.frame), ..sample.clone() };
        self.waiting.push_reading(sample);
        self.inner.events.publish(VmEvent::Metrics(Arc::new(told)));
    }

    /// Since the reading before this one, which takes its place.
    fn network_rates(&mut self, vm: VmId, counters: Option<Counters>) -> Option<NetworkRates> {
        let before = mem::replace(self.counters.touch(vm, || None), counters);
        counters?.rates_since(&before?)
    }

    fn error(
        &mut self,
        vm: VmId,
        received_at: DateTime<Utc>,
        timestamp: Option<DateTime<Utc>>,
        mut error: String,
        mut details: Value,
    ) {
        let now = Instant::now();
        let rate = self.error_rates.touch(vm, || TokenBucket::new(ERROR_RATE, ERROR_BURST, now));
        if !rate.allow(1.0, now) {
            let muted = self.inner.mute(vm);
            if let Some(held_back) = self.muted.pass(now) {
                tracing::warn!(%vm, muted, held_back, "a guest reports more errors than are kept");
            }
            return;
        }
        hide_secrets_of_error(&self.inner.redactor, &mut error, &mut details);
        // A clock that is off must not date an error into a time nobody looks at.
        let timestamp = timestamp
            .filter(|at| (*at - received_at).abs().to_std().is_ok_and(|skew| skew <= self.inner.max_skew))
            .unwrap_or(received_at);
        self.inner.events.publish(VmEvent::Error { vm, error: error.clone(), at: received_at });
        self.waiting.push_error(VmErrorRecord {
            id: Uuid::now_v7(),
            vm,
            error,
            details,
            timestamp: truncate_to_micros(timestamp),
            created_at: truncate_to_micros(received_at),
        });
    }
}
