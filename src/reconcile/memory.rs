//! What a worker remembers between looks. Losing it (a crash) costs time, never truth.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{note::Digested, progress::Progress, step::Step, times::Times};
use crate::vm::{AgentConnectivity, OperationId, Resource, ResourceKind, ResourceState};

/// Times that a VM is started again without being asked, within [`RESTARTS_WITHIN`].
pub const MAX_RESTARTS: usize = 5;
/// See [`MAX_RESTARTS`].
pub const RESTARTS_WITHIN: TimeDelta = TimeDelta::minutes(10);

/// A step that failed, and when to try again.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub step: &'static str,
    /// How often in a row. Failures that say nothing about the VM (no connection, a deadline)
    /// are retried, but not counted.
    pub attempts: u32,
    /// The whole chain of causes.
    pub message: String,
    /// Not before.
    pub retry_at: DateTime<Utc>,
}

/// How long to wait after a failure.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// After the first one.
    pub base: Duration,
    /// At most, before chance is added.
    pub max: Duration,
    /// Within 0..1; spreads retries over half a delay.
    pub jitter: f64,
}

/// A worker's memory.
#[derive(Debug, Clone)]
pub struct Memory {
    /// When this controller began; the clock of "known from before, not heard yet".
    pub started_at: DateTime<Utc>,
    /// The request that `failure` and `shutdown_asked_at` belong to: a generation, and the change
    /// that is under way.
    request: (i64, Option<OperationId>),
    /// Since when the domain has been gone unasked.
    pub missing_since: Option<DateTime<Utc>>,
    /// Since when a polite stop has been tried: the grace counts from there, not from the request,
    /// so that a guest that was never asked is not cut off.
    pub stopping_since: Option<DateTime<Utc>>,
    /// The last step that ended well, if nothing else happened since.
    pub last_done: Option<Step>,
    /// When the guest was last asked to power off.
    pub shutdown_asked_at: Option<DateTime<Utc>>,
    /// When the guest was last asked to boot anew, and by which operation.
    pub reboot_asked: Option<(OperationId, DateTime<Utc>)>,
    /// Since when the domain has been seen off.
    pub off_since: Option<DateTime<Utc>>,
    /// When it was started again without being asked, of late.
    restarts: Vec<DateTime<Utc>>,
    /// It was started again too often; over until somebody asks.
    pub boot_loop: bool,
    /// The last failure, until a step succeeds.
    pub failure: Option<Failure>,
    /// The last judgement on the agent; `None` until the first look.
    pub agent: Option<AgentConnectivity>,
    /// What the VM's note was last found to be.
    pub note: Digested,
    /// What others noted by the clock on the wall.
    pub times: Times,
    /// When an installation last showed anything new.
    pub install: Progress,
    /// Volumes of the VM's that were whole at the last look.
    whole: usize,
}

impl Memory {
    /// Nothing remembered.
    #[must_use]
    pub fn new(started_at: DateTime<Utc>) -> Self {
        Self {
            started_at,
            request: (0, None),
            missing_since: None,
            stopping_since: None,
            last_done: None,
            shutdown_asked_at: None,
            reboot_asked: None,
            off_since: None,
            restarts: Vec::new(),
            boot_loop: false,
            failure: None,
            agent: None,
            note: Digested::default(),
            times: Times::default(),
            install: Progress::default(),
            whole: 0,
        }
    }

    /// The clock on the wall was set: what is remembered moves along, so that no wait becomes longer
    /// and no grace shorter than it is.
    pub fn shift(&mut self, by: TimeDelta) {
        let shifted = |at: DateTime<Utc>| at.checked_add_signed(by).unwrap_or(at);
        self.started_at = shifted(self.started_at);
        self.missing_since = self.missing_since.map(shifted);
        self.stopping_since = self.stopping_since.map(shifted);
        self.shutdown_asked_at = self.shutdown_asked_at.map(shifted);
        self.reboot_asked = self.reboot_asked.map(|(operation, at)| (operation, shifted(at)));
        self.off_since = self.off_since.map(shifted);
        self.times.shift(by);
        self.restarts.iter_mut().for_each(|at| *at = shifted(*at));
        self.install.shift(shifted);
        if let Some(failure) = &mut self.failure {
            failure.retry_at = shifted(failure.retry_at);
        }
    }

    /// A new request wipes the slate: what failed for the last one may work for this one.
    pub fn enter(&mut self, generation: i64, change: Option<OperationId>) {
        if self.request.0 != generation {
            self.restarts.clear();
            self.boot_loop = false;
        }
        if self.request != (generation, change) {
            self.request = (generation, change);
            self.stopping_since = None;
            self.last_done = None;
            self.shutdown_asked_at = None;
            self.failure = None;
        }
    }

    /// Whether this step was just done, and is wanted again: it has no lasting effect, as when a
    /// hypervisor dies as soon as it is started. Asking a guest again is no such case, and starting it
    /// again has a bound of its own. A copy is begun and taken down by the same step.
    #[must_use]
    pub fn is_in_vain(&self, step: &Step) -> bool {
        !matches!(step, Step::RequestShutdown | Step::Restart | Step::PressKey | Step::CopyDisks)
            && self.last_done.as_ref() == Some(step)
    }

    /// Notes that what was asked for is reached: what failed on the way is past.
    pub fn reached(&mut self) {
        self.failure = None;
        self.last_done = None;
    }

    /// Notes that the domain was seen, and whether it was off.
    pub fn seen(&mut self, off: bool, now: DateTime<Utc>) {
        if off {
            self.off_since.get_or_insert(now);
            self.boot_loop |= self.restarts_before(now) >= MAX_RESTARTS;
        } else {
            self.off_since = None;
        }
    }

    /// How often it was started again without being asked, of late.
    #[must_use]
    pub fn restarts_before(&self, now: DateTime<Utc>) -> usize {
        self.restarts.iter().filter(|at| now - **at < RESTARTS_WITHIN).count()
    }

    /// Notes that a step is about to be taken.
    pub fn attempting(&mut self, step: &Step, now: DateTime<Utc>) {
        if matches!(step, Step::Restart) {
            self.restarts.retain(|at| now - *at < RESTARTS_WITHIN);
            self.restarts.push(now);
        }
    }

    /// Notes that the guest was asked to boot anew; `begun` is from before it was: what it does
    /// then is done because it was asked.
    pub fn asked_to_reboot(&mut self, operation: OperationId, begun: DateTime<Utc>) {
        self.reboot_asked = Some((operation, begun));
    }

    /// Notes that a step ended well.
    pub fn succeeded(&mut self, step: &Step, now: DateTime<Utc>) {
        // That a copy was begun again says nothing about how it will end.
        if !matches!(step, Step::CopyDisks) {
            self.failure = None;
        }
        self.last_done = Some(step.clone());
        match step {
            Step::RequestShutdown => self.shutdown_asked_at = Some(now),
            Step::Start => self.install.begin(now),
            Step::PressKey => self.install.pressed = Some(now),
            _ => {}
        }
    }

    /// Looks at what was made. A copy that became whole is what its failures waited for: those of the
    /// next one are counted anew.
    pub fn made(&mut self, resources: &[Resource]) {
        let is_whole = |it: &&Resource| it.kind == ResourceKind::Volume && it.state == ResourceState::Created;
        let whole = resources.iter().filter(is_whole).count();
        if std::mem::replace(&mut self.whole, whole) < whole {
            let copying = Step::CopyDisks.name();
            self.failure = self.failure.take().filter(|failure| failure.step != copying);
        }
    }

    /// Ends the wait after a failure; how often it failed still counts.
    pub fn retry_now(&mut self, now: DateTime<Utc>) {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = failure.retry_at.min(now);
        }
    }

    /// Notes that a step failed.
    pub fn failed(&mut self, step: &Step, counted: bool, message: String, now: DateTime<Utc>, wait: Wait) {
        let same = self.failure.as_ref().filter(|failure| failure.step == step.name());
        let before = same.map_or(0, |failure| failure.attempts);
        let attempts = before + u32::from(counted);
        let delay =
            backoff(attempts.max(1), wait.base, wait.max).mul_f64(1.0 + wait.jitter.clamp(0.0, 1.0) / 2.0);
        let retry_at = now + TimeDelta::from_std(delay).unwrap_or(TimeDelta::MAX);
        self.failure = Some(Failure { step: step.name(), attempts, message, retry_at });
    }
}

/// `base`, doubled for every attempt after the first, up to `max`.
pub fn backoff(attempts: u32, base: Duration, max: Duration) -> Duration {
    base.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_loop_is_one_that_goes_on_after_the_last_restart() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut memory = Memory::new(start);
        memory.enter(1, None);
        for n in 0..5 {
            let at = start + TimeDelta::seconds(100 * n);
            memory.seen(true, at);
            assert!(!memory.boot_loop, "after {n} restarts");
            memory.attempting(&Step::Restart, at);
            memory.seen(false, at + TimeDelta::seconds(1));
        }
        let mut later = memory.clone();
        later.seen(true, start + TimeDelta::seconds(601));
        assert!(!later.boot_loop, "the first one is past");
        memory.seen(true, start + TimeDelta::seconds(599));
        assert!(memory.boot_loop);
        memory.enter(1, Some(OperationId::generate()));
        assert!(memory.boot_loop, "a change is no request to run");
        memory.enter(2, None);
        assert!(!memory.boot_loop && memory.restarts_before(start) == 0);
    }

    #[test]
    fn what_is_remembered_moves_with_the_clock() {
        let start = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let (wait, hour) =
            (Wait { base: Duration::from_secs(2), max: Duration::MAX, jitter: 0.0 }, TimeDelta::hours(1));
        let mut memory = Memory::new(start);
        memory.missing_since = Some(start);
        memory.stopping_since = Some(start);
        memory.failed(&Step::Start, true, String::new(), start, wait);
        memory.shift(-hour);
        assert_eq!(memory.failure.as_ref().map(|it| it.retry_at), Some(start - hour + TimeDelta::seconds(2)));
        assert_eq!((memory.missing_since, memory.stopping_since), (Some(start - hour), Some(start - hour)));
        memory.shift(TimeDelta::MAX);
        assert_eq!(memory.missing_since, Some(start - hour), "a clock beyond all time moves nothing");
    }

    #[test]
    fn failures_of_a_copy_are_its_own() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let wait = Wait { base: Duration::from_secs(2), max: Duration::MAX, jitter: 0.0 };
        let volume = |name: &str, state| Resource {
            vm: crate::vm::VmId::generate(),
            kind: ResourceKind::Volume,
            place: "p".to_owned(),
            name: name.to_owned(),
            state,
        };
        let attempts = |memory: &Memory| memory.failure.as_ref().map_or(0, |failure| failure.attempts);
        let mut memory = Memory::new(start);
        let mut disks = vec![volume("a", ResourceState::Creating)];
        for name in ["b", "c", "d"] {
            memory.made(&disks);
            for _ in 0..2 {
                memory.failed(&Step::CopyDisks, true, String::new(), start, wait);
                memory.succeeded(&Step::CopyDisks, start);
                memory.made(&disks);
            }
            assert_eq!(attempts(&memory), 2, "that it is begun again says nothing");
            disks.last_mut().unwrap().state = ResourceState::Created;
            disks.push(volume(name, ResourceState::Creating));
            memory.made(&disks);
            assert_eq!(attempts(&memory), 0, "a disk became whole");
        }
        memory.failed(&Step::Define, true, String::new(), start, wait);
        disks.last_mut().unwrap().state = ResourceState::Created;
        memory.made(&disks);
        assert_eq!(attempts(&memory), 1, "another step's failure is none of a copy");
    }

    #[test]
    fn waits_double_up_to_the_bound() {
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<u64> = (1..=8).map(|n| backoff(n, base, max).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(u32::MAX, base, max), max);
    }
}
