//! A VM that was asked to run, ran, and is off: its policy says whether it stays so.
//!
//! What is started again is started at most so often in a while; then it is a boot loop, and waits
//! for somebody to ask. The counts are the worker's: a controller that starts anew begins to count
//! anew.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Look, OFF_GRACE, Step, after, course::Course, installing};
use crate::{
    reconcile::memory::backoff,
    vm::{DomainFacts, DomainState, OnCrash, OnPowerOff},
};

/// The wait before a VM that crashed is started again; doubles with each time.
const RESTART_BASE: Duration = Duration::from_secs(1);
/// The longest such wait.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// libvirt's `virDomainShutoffReason`.
mod shutoff {
    pub(super) const SHUTDOWN: i32 = 1;
    pub(super) const DESTROYED: i32 = 2;
    pub(super) const CRASHED: i32 = 3;
    pub(super) const SAVED: i32 = 5;
    pub(super) const FAILED: i32 = 6;
    pub(super) const FROM_SNAPSHOT: i32 = 7;
    pub(super) const DAEMON: i32 = 8;
}

/// How a VM went off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Off {
    /// The guest did it, or somebody asked it to.
    ByItself,
    /// Somebody pulled its plug, saved it or reverted it.
    Outside,
    /// By a fault.
    Crashed,
    /// It was not seen: the host or libvirt began anew, or it was moved away.
    Unseen,
}

pub(super) fn how(facts: &DomainFacts) -> Option<Off> {
    use shutoff::{CRASHED, DAEMON, DESTROYED, FAILED, FROM_SNAPSHOT, SAVED, SHUTDOWN};
    match (facts.state, facts.reason) {
        (DomainState::Crashed, _) | (DomainState::Shutoff, CRASHED | FAILED | DAEMON) => Some(Off::Crashed),
        (DomainState::Shutoff, SHUTDOWN) => Some(Off::ByItself),
        (DomainState::Shutoff, DESTROYED | SAVED | FROM_SNAPSHOT) => Some(Off::Outside),
        (DomainState::Shutoff, _) => Some(Off::Unseen),
        _ => None,
    }
}

/// What is to become of a VM that is off although it was asked to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Left(Off),
    /// It is started again then.
    Back(DateTime<Utc>),
    /// It was started again too often.
    Looping,
}

/// `None`: it is as it was asked for, or the request is not over.
pub(super) fn fate(look: &Look<'_>, facts: &DomainFacts) -> Option<Fate> {
    let (record, memory) = (&look.bundle.record, look.memory);
    // What its end means is not for the policy to say.
    if installing::is_under_way(look) {
        return None;
    }
    if record.intent.is_open() || record.intent.is_given_up() || !record.intent.power.is_on() {
        return None;
    }
    let off = how(facts)?;
    let restarts = record.spec.keeping.on_crash == OnCrash::Restart;
    let corrects = record.spec.keeping.on_power_off == OnPowerOff::Correct;
    let wanted = match off {
        // One that could not be started was not started for nothing.
        Off::Crashed => restarts || (corrects && facts.reason == shutoff::FAILED),
        Off::ByItself | Off::Outside => corrects,
        // After a boot of the host, those start that are to start with it.
        Off::Unseen => false,
    };
    if !wanted {
        return Some(Fate::Left(off));
    }
    if memory.boot_loop {
        return Some(Fate::Looping);
    }
    let times = u32::try_from(memory.restarts_before(look.now)).unwrap_or(u32::MAX);
    let wait = backoff(times.saturating_add(1), RESTART_BASE, RESTART_MAX);
    let wait = if off == Off::Crashed { wait } else { wait.max(OFF_GRACE) };
    Some(Fate::Back(after(memory.off_since.unwrap_or(look.now), wait)))
}

pub(super) fn next(look: &Look<'_>, facts: &DomainFacts) -> Course {
    match fate(look, facts) {
        Some(Fate::Back(at)) if at <= look.now => Course::step(Step::Restart),
        Some(Fate::Back(at)) => Course::wait_until(at),
        Some(Fate::Left(_) | Fate::Looping) | None => Course::default(),
    }
}
