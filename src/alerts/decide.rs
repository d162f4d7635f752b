//! What a look changes: pure, but for a memory of how long something has been so.
//!
//! What must last counts once it has lasted, and what was wrong is over once it has been right for
//! as long, so that a guest that comes and goes is one alert and not one per coming and going. The
//! memory is not stored: after a restart the waiting begins anew, which can only delay.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::verdict::{Alarm, Verdict, verdicts};
use crate::{
    store::{AlertChanges, AlertLook, NewAlert, OpenAlert},
    vm::{AlertKind, AlertSeverity, LossCounts, VmId},
};

/// What an alert about a condition is about: at most one of each is open.
type Subject = (Option<VmId>, AlertKind);

/// How it has been lately.
#[derive(Debug, Clone, Copy)]
enum Lately {
    Wrong { since: DateTime<Utc> },
    Right { since: DateTime<Utc> },
}

/// How long things have been as they are.
#[derive(Debug, Default)]
pub(super) struct Memory {
    lately: HashMap<Subject, Lately>,
    /// Lost readings that were told.
    lost: u64,
}

/// When a look is judged, and by what measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) now: DateTime<Utc>,
    /// How long something must last.
    pub(super) lasting: TimeDelta,
}

/// What to do after a look.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) changes: AlertChanges,
    /// When something will have lasted long enough, if nothing else happens.
    pub(super) wake_at: Option<DateTime<Utc>>,
}

impl Measure {
    /// Whether what has been so `since` has lasted; else when to look again is noted.
    fn lasted(self, since: DateTime<Utc>, decision: &mut Decision) -> bool {
        let end = since.checked_add_signed(self.lasting).unwrap_or(DateTime::<Utc>::MAX_UTC);
        // A clock that was set back must not make a wait endless.
        if self.now >= end || self.now < since {
            return true;
        }
        decision.wake_at = Some(decision.wake_at.map_or(end, |before| before.min(end)));
        false
    }
}

impl Memory {
    /// Compares what is with what is open. `lost` are the readings lost so far.
    pub(super) fn decide(&mut self, look: &AlertLook, lost: &LossCounts, measure: Measure) -> Decision {
        let open: HashMap<Subject, &OpenAlert> =
            look.open.iter().map(|alert| ((alert.vm, alert.kind), alert)).collect();
        let host = ((None, AlertKind::ReadingsLost), None, readings_lost(lost, self.lost));
        let of_vms = look.vms.iter().flat_map(|vm| {
            verdicts(vm)
                .into_iter()
                .map(move |(kind, verdict)| ((Some(vm.id), kind), Some(vm.name.as_str()), verdict))
        });
        let mut decision = Decision::default();
        let mut seen: HashSet<Subject> = HashSet::new();
        for (subject, name, verdict) in of_vms.chain([host]) {
            seen.insert(subject);
            let open = open.get(&subject).copied();
            match verdict {
                Verdict::Firing(alarm) => self.wrong(subject, name, open, alarm, measure, &mut decision),
                Verdict::Clear => self.right(subject, open, measure, &mut decision),
                Verdict::Unknown => {
                    self.lately.remove(&subject);
                }
            }
        }
        // Of a VM that is gone, nothing is to be done.
        let gone = open.iter().filter(|(subject, _)| !seen.contains(subject));
        decision.changes.resolved.extend(gone.map(|(_, alert)| alert.id));
        self.lately.retain(|subject, _| seen.contains(subject));
        decision
    }

    /// The changes are stored: what was lost until then is told.
    pub(super) fn stored(&mut self, lost: u64) {
        self.lost = lost;
    }

    fn wrong(
        &mut self,
        subject: Subject,
        name: Option<&str>,
        open: Option<&OpenAlert>,
        alarm: Alarm,
        measure: Measure,
        decision: &mut Decision,
    ) {
        let before = self.lately.get(&subject).copied();
        let since = if let Some(Lately::Wrong { since }) = before { since } else { measure.now };
        self.lately.insert(subject, Lately::Wrong { since });
        let came_back = matches!(before, Some(Lately::Right { .. }));
        match open {
            None if !alarm.must_last || measure.lasted(since, decision) => {
                decision.changes.opened.push(new_alert(subject, name, alarm));
            }
            Some(open) if came_back || open.summary != alarm.summary || open.severity < alarm.severity => {
                decision.changes.again.push((open.id, new_alert(subject, name, alarm)));
            }
            _ => {}
        }
    }

    fn right(
        &mut self,
        subject: Subject,
        open: Option<&OpenAlert>,
        measure: Measure,
        decision: &mut Decision,
    ) {
        let Some(open) = open else {
            self.lately.remove(&subject);
            return;
        };
        let before = self.lately.get(&subject).copied();
        let since = if let Some(Lately::Right { since }) = before { since } else { measure.now };
        self.lately.insert(subject, Lately::Right { since });
        if measure.lasted(since, decision) {
            decision.changes.resolved.push(open.id);
        }
    }
}

fn new_alert((vm, kind): Subject, name: Option<&str>, alarm: Alarm) -> NewAlert {
    let Alarm { severity, summary, details, must_last: _ } = alarm;
    NewAlert { kind, vm: vm.map(|vm| (vm, name.unwrap_or_default().to_owned())), severity, summary, details }
}

/// All that were lost since the start are named, told before or not: an operator who reads only
/// the newest message sees the whole.
fn readings_lost(lost: &LossCounts, told: u64) -> Verdict {
    let total = lost.total();
    if total <= told {
        return Verdict::Clear;
    }
    let causes: Vec<String> =
        lost.causes().map(|(reason, readings)| format!("{readings} ({})", reason.phrase())).collect();
    let by_reason: Map<String, Value> =
        lost.causes().map(|(reason, readings)| (reason.word().to_owned(), json!(readings))).collect();
    Verdict::Firing(Alarm {
        severity: AlertSeverity::Critical,
        summary: format!("{total} readings are lost since the controller started: {}.", causes.join(", ")),
        details: json!({ "lostSinceStart": total, "byReason": by_reason }),
        must_last: false,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        store::WatchedVm,
        vm::{AgentConnectivity, LossReason, VmPhase, VmStatus, alert_summary},
    };

    const LASTING: i64 = 120;

    /// A VM, the alerts that are open about it, and the memory, in simulated time.
    struct Trial {
        memory: Memory,
        vm: WatchedVm,
        open: Vec<OpenAlert>,
        now: DateTime<Utc>,
        /// What happened: `+` opened, `=` again, `-` resolved.
        told: String,
        wake_in: Option<i64>,
    }

    impl Trial {
        fn new() -> Self {
            let vm = WatchedVm { id: VmId::generate(), name: "web".to_owned(), status: None };
            let now = DateTime::UNIX_EPOCH;
            let (memory, open, told) = (Memory::default(), Vec::new(), String::new());
            Self { memory, vm, open, now, told, wake_in: None }
        }

        fn look(&mut self, after: i64, phase: VmPhase, agent: AgentConnectivity) -> &str {
            let conditions = Vec::new();
            self.vm.status =
                Some(VmStatus { phase, agent, last_seen: None, agent_version: None, conditions });
            self.decide(after, true, 0)
        }

        fn decide(&mut self, after: i64, exists: bool, lost: u64) -> &str {
            self.now += TimeDelta::seconds(after);
            let vms = if exists { vec![self.vm.clone()] } else { Vec::new() };
            let look = AlertLook { vms, open: self.open.clone() };
            let measure = Measure { now: self.now, lasting: TimeDelta::seconds(LASTING) };
            let mut counts = LossCounts::default();
            counts.add(LossReason::Refused, lost);
            let Decision { changes, wake_at } = self.memory.decide(&look, &counts, measure);
            self.memory.stored(lost);
            self.wake_in = wake_at.map(|at| (at - self.now).num_seconds());
            self.told.clear();
            for new in changes.opened {
                self.told.push('+');
                let (kind, vm) = (new.kind, new.vm.map(|(vm, _)| vm));
                let (severity, summary) = (new.severity, new.summary);
                self.open.push(OpenAlert { id: Uuid::now_v7(), kind, vm, severity, summary });
            }
            for (id, new) in changes.again {
                self.told.push('=');
                let open = self.open.iter_mut().find(|open| open.id == id).expect("it is open");
                (open.severity, open.summary) = (open.severity.max(new.severity), new.summary);
            }
            for id in changes.resolved {
                self.told.push('-');
                self.open.retain(|open| open.id != id);
            }
            &self.told
        }
    }

    use AgentConnectivity::{Offline, Online, Unknown};
    use VmPhase::{Crashed, Missing, Paused, Running};

    #[test]
    fn offline_counts_once_it_lasts_and_is_over_once_that_lasts() {
        let mut trial = Trial::new();
        assert_eq!(trial.look(0, Running, Offline), "");
        assert_eq!(trial.wake_in, Some(LASTING));
        assert_eq!(trial.look(LASTING - 1, Running, Offline), "");
        assert_eq!(trial.wake_in, Some(1));
        assert_eq!(trial.look(1, Running, Offline), "+");
        assert_eq!(trial.look(15, Running, Offline), "", "what is open is not opened again");
        assert_eq!(trial.look(15, Running, Online), "");
        assert_eq!(trial.look(LASTING, Running, Online), "-");
        assert_eq!(trial.look(15, Running, Online), "");
        assert_eq!(trial.wake_in, None);
    }

    #[test]
    fn short_silence_is_no_alert() {
        let mut trial = Trial::new();
        for _ in 0..10 {
            assert_eq!(trial.look(LASTING - 1, Running, Offline), "");
            assert_eq!(trial.look(1, Running, Online), "");
        }
    }

    #[test]
    fn coming_and_going_is_one_alert() {
        let mut trial = Trial::new();
        assert_eq!(trial.look(0, Crashed, Offline), "+");
        for _ in 0..10 {
            assert_eq!(trial.look(1, Running, Online), "");
            assert_eq!(trial.look(LASTING - 1, Running, Online), "");
            assert_eq!(trial.look(1, Crashed, Offline), "=");
        }
    }

    #[test]
    fn getting_worse_is_said_and_getting_unknown_is_not() {
        let mut trial = Trial::new();
        trial.look(0, Running, Offline);
        assert_eq!(trial.look(LASTING, Running, Offline), "+");
        assert_eq!(trial.look(15, Missing, Offline), "=");
        assert_eq!(trial.open[0].severity, AlertSeverity::Critical);
        assert_eq!(trial.look(15, VmPhase::Unknown, Unknown), "");
        assert_eq!(trial.look(100 * LASTING, VmPhase::Unknown, Unknown), "", "what is unknown is not over");
        assert_eq!(trial.look(15, Running, Online), "");
        assert_eq!(trial.look(LASTING, Running, Online), "-");
    }

    #[test]
    fn a_restart_alarms_about_nothing() {
        let mut trial = Trial::new();
        for _ in 0..10 {
            assert_eq!(trial.look(LASTING, VmPhase::Unknown, Unknown), "");
            assert_eq!(trial.look(LASTING, Running, Unknown), "");
            assert_eq!(trial.look(LASTING, Paused, Offline), "");
        }
    }

    #[test]
    fn what_is_open_about_a_vm_that_is_gone_is_over_at_once() {
        let mut trial = Trial::new();
        assert_eq!(trial.look(0, Crashed, Offline), "+");
        assert_eq!(trial.decide(1, false, 0), "-");
        assert!(trial.memory.lately.is_empty());
    }

    #[test]
    fn lost_readings_are_told_while_more_are_lost() {
        let mut trial = Trial::new();
        assert_eq!(trial.decide(15, true, 0), "");
        assert_eq!(trial.decide(15, true, 7), "+");
        assert_eq!(trial.decide(15, true, 7), "");
        assert_eq!(trial.decide(15, true, 9), "=");
        assert_eq!(trial.decide(15, true, 9), "");
        assert_eq!(trial.decide(LASTING, true, 9), "-");
    }

    #[test]
    fn lost_readings_are_told_with_their_reasons() {
        let of = |counts: &LossCounts| match readings_lost(counts, 0) {
            Verdict::Firing(alarm) => (alarm.summary, alarm.details),
            other => panic!("{other:?}"),
        };
        let mut counts = LossCounts::default();
        counts.add(LossReason::Refused, 2);
        let (summary, details) = of(&counts);
        assert_eq!(
            summary,
            "2 readings are lost since the controller started: 2 (the database refused them)."
        );
        assert_eq!(details, json!({ "lostSinceStart": 2, "byReason": { "refused": 2 } }));
        for reason in LossReason::ALL {
            counts.add(reason, 1_000_000_000);
        }
        let (summary, details) = of(&counts);
        assert_eq!(alert_summary(&summary), summary, "not all of it fits");
        for reason in LossReason::ALL {
            assert!(summary.contains(reason.phrase()), "{summary}");
            assert_eq!(details["byReason"][reason.word()], counts[reason]);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_delays_nothing_for_ever() {
        let mut trial = Trial::new();
        trial.look(1_000_000, Running, Offline);
        assert_eq!(trial.look(-1_000_000, Running, Offline), "+");
    }
}
