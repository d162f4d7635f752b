//! What waits to be stored, shared by those who fill it and the one who empties it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::{
    buffer::Buffer,
    losses::{ErrorReason, Losses, errors_lost},
};
use crate::{
    agents::Throttle,
    store::VmErrorRecord,
    vm::{LossReason, MetricsSample},
};

/// Guest errors waiting at most.
const MAX_ERRORS: usize = 1000;

/// Those of one guest: as many as it may report at once. A noisy one pushes out its own.
const MAX_ERRORS_OF_ONE: usize = 60;

/// How often lost guest errors are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// How long taking in waits for room at most: guests' answers to commands come the same way.
const ROOM_LIMIT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    readings: Mutex<Buffer>,
    errors: Mutex<VecDeque<VmErrorRecord>>,
    lost_errors: Mutex<Throttle>,
    losses: Arc<Losses>,
    /// Enough has come for a batch.
    due: Notify,
    /// Something was taken.
    freed: Notify,
    /// Readings find their way out, so that it is worth waiting for room.
    flows: AtomicBool,
    batch_rows: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
fn tell(readings: usize) {
    ::metrics::gauge!("infinibay_readings_waiting").set(readings as f64);
}

impl Waiting {
    pub(super) fn new(max_rows: usize, batch_rows: usize, losses: Arc<Losses>) -> Self {
        Self {
            readings: Mutex::new(Buffer::new(max_rows)),
            errors: Mutex::default(),
            lost_errors: Mutex::new(Throttle::new(LOG_INTERVAL)),
            losses,
            due: Notify::new(),
            freed: Notify::new(),
            flows: AtomicBool::new(true),
            batch_rows,
        }
    }

    /// Adds a reading; the oldest make room.
    pub(super) fn push_reading(&self, sample: MetricsSample) {
        let (dropped, due) = {
            let mut readings = locked(&self.readings);
            (readings.push(sample), readings.len() >= self.batch_rows || readings.is_tight())
        };
        self.losses.add(LossReason::BufferFull, dropped);
        if due {
            self.due.notify_one();
        }
    }

    /// Waits while more than half of the room is taken and what is there is on its way out; never
    /// for long. May be dropped and asked again.
    pub(super) async fn room(&self) {
        if !self.is_tight() {
            return;
        }
        let freed = async {
            while self.is_tight() {
                self.freed.notified().await;
            }
        };
        if tokio::time::timeout(ROOM_LIMIT, freed).await.is_err() {
            // Nothing moves: the next ones need not wait to learn the same.
            self.flows.store(false, Ordering::Relaxed);
        }
    }

    fn is_tight(&self) -> bool {
        self.flows.load(Ordering::Relaxed) && self.is_half_full()
    }

    /// Whether more than half of the room is taken.
    pub(super) fn is_half_full(&self) -> bool {
        locked(&self.readings).is_tight()
    }

    /// Says whether readings find their way out.
    pub(super) fn flow(&self, flows: bool) {
        self.flows.store(flows, Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// Until there is enough for a batch.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Whether there is enough for a batch.
    pub(super) fn is_due(&self) -> bool {
        let readings = locked(&self.readings);
        readings.len() >= self.batch_rows || readings.is_tight()
    }

    /// The oldest readings, at most so many.
    pub(super) fn take(&self, max: usize) -> Vec<MetricsSample> {
        let (batch, left) = {
            let mut readings = locked(&self.readings);
            (readings.take(max), readings.len())
        };
        tell(left);
        self.freed.notify_one();
        batch
    }

    /// Puts back what could be stored nowhere, before what came meanwhile.
    pub(super) fn put_back(&self, batch: Vec<MetricsSample>) {
        let (dropped, left) = {
            let mut readings = locked(&self.readings);
            (readings.put_back(batch), readings.len())
        };
        tell(left);
        self.losses.add(LossReason::BufferFull, dropped);
    }

    pub(super) fn readings(&self) -> usize {
        locked(&self.readings).len()
    }

    pub(super) fn errors(&self) -> usize {
        locked(&self.errors).len()
    }

    /// Adds a guest's error; the oldest makes room: its own, where it has many.
    pub(super) fn push_error(&self, error: VmErrorRecord) {
        let mut errors = locked(&self.errors);
        let vm = error.vm;
        errors.push_back(error);
        let of_one = errors.iter().filter(|error| error.vm == vm).count();
        if of_one > MAX_ERRORS_OF_ONE || errors.len() > MAX_ERRORS {
            let own = errors.iter().position(|error| error.vm == vm).filter(|_| of_one > MAX_ERRORS_OF_ONE);
            errors.remove(own.unwrap_or(0));
            drop(errors);
            errors_lost(ErrorReason::QueueFull, 1);
            if let Some(held_back) = locked(&self.lost_errors).pass(Instant::now()) {
                tracing::warn!(held_back, "the database is behind: the oldest guest errors are dropped");
            }
        }
    }

    /// The oldest error, which stays.
    pub(super) fn first_error(&self) -> Option<VmErrorRecord> {
        locked(&self.errors).front().cloned()
    }

    /// Is done with this one, if it is still there: puts it behind the others or removes it.
    /// Gives whether it was there.
    pub(super) fn settle_error(&self, id: Uuid, again: bool) -> bool {
        let mut errors = locked(&self.errors);
        // The bound may have dropped it meanwhile.
        if errors.front().is_none_or(|front| front.id != id) {
            return false;
        }
        if again {
            errors.rotate_left(1);
        } else {
            errors.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::vm::{FrameText, Readings, VmId};

    fn sample() -> MetricsSample {
        MetricsSample {
            id: Uuid::now_v7(),
            vm: VmId::generate(),
            timestamp: Utc::now(),
            received_at: Utc::now(),
            readings: Readings { cpu_usage: 0.0, memory_used: 0, memory_total: 0, disk: None, network: None },
            frame: FrameText::new("{}"),
        }
    }

    fn filled(readings: usize) -> Waiting {
        let waiting = Waiting::new(10, 100, Arc::default());
        for _ in 0..readings {
            waiting.push_reading(sample());
        }
        waiting
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_at_once_up_to_the_half() {
        let start = Instant::now();
        filled(5).room().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_until_something_is_taken() {
        let waiting = filled(8);
        let start = Instant::now();
        let taker = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            waiting.take(1);
            tokio::time::sleep(Duration::from_millis(300)).await;
            waiting.take(4);
        };
        tokio::join!(waiting.room(), taker);
        assert_eq!(start.elapsed(), Duration::from_millis(600));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_moves_one_waits_for_all_and_not_for_long() {
        let waiting = filled(8);
        let start = Instant::now();
        for _ in 0..100 {
            waiting.room().await;
        }
        assert_eq!(start.elapsed(), ROOM_LIMIT);
        // As soon as it moves again, there is something to wait for.
        waiting.flow(true);
        waiting.room().await;
        assert_eq!(start.elapsed(), 2 * ROOM_LIMIT);
    }

    fn error(vm: VmId, number: usize) -> VmErrorRecord {
        VmErrorRecord {
            id: Uuid::now_v7(),
            vm,
            error: number.to_string(),
            details: serde_json::Value::Null,
            timestamp: Utc::now(),
            created_at: Utc::now(),
        }
    }

    #[test]
    fn a_noisy_guest_pushes_out_its_own_errors() {
        let waiting = filled(0);
        let (quiet, noisy) = (VmId::generate(), VmId::generate());
        waiting.push_error(error(quiet, 0));
        for number in 0..2 * MAX_ERRORS {
            waiting.push_error(error(noisy, number));
        }
        let left: Vec<_> =
            locked(&waiting.errors).iter().map(|error| (error.vm, error.error.clone())).collect();
        assert_eq!(left[0], (quiet, "0".to_owned()));
        let newest = 2 * MAX_ERRORS - MAX_ERRORS_OF_ONE..2 * MAX_ERRORS;
        assert_eq!(left[1..], newest.map(|number| (noisy, number.to_string())).collect::<Vec<_>>());
    }

    #[test]
    fn errors_of_many_guests_are_bounded_together() {
        let waiting = filled(0);
        for number in 0..MAX_ERRORS + 5 {
            waiting.push_error(error(VmId::generate(), number));
        }
        let first = waiting.first_error().map(|error| error.error);
        assert_eq!((waiting.errors(), first.as_deref()), (MAX_ERRORS, Some("5")));
    }

    #[test]
    fn what_the_bound_costs_is_counted() {
        let losses = Arc::<Losses>::default();
        let waiting = Waiting::new(10, 100, Arc::clone(&losses));
        for _ in 0..13 {
            waiting.push_reading(sample());
        }
        let lost = losses.snapshot();
        assert_eq!((lost.counts[LossReason::BufferFull], waiting.readings()), (3, 10));
        assert!(lost.since.is_some() && lost.since <= lost.last);
    }
}
