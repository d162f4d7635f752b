//! A guest that is halted while its file systems may be frozen.

use super::*;
use crate::vm::{Frost, NewSnapshot, Quiesce, SnapshotChange};

/// Halted, with a snapshot under way that was asked for so long ago.
fn halted(power: DesiredPower, is_open: bool, reason: i32, ago: i64) -> (VmBundle, Observation) {
    let mut vm = bundle();
    made(&mut vm);
    vm.record.intent.power = power;
    vm.record.intent.satisfied = if is_open { 0 } else { 1 };
    let frost = Frost { may_be_frozen: true, ..Frost::default() };
    let new = NewSnapshot {
        name: "s".parse().unwrap(),
        description: String::new(),
        memory: None,
        quiesce: Quiesce::IfPossible,
        frost,
    };
    let change = VmChange::Snapshot(SnapshotChange::Create(new));
    let operation = &mut vm.operations[0];
    operation.kind = change.kind();
    operation.change = Some(change);
    operation.created_at = now() - TimeDelta::seconds(ago);
    let DomainObservation::Present(facts) = domain(DomainState::Paused) else { unreachable!() };
    (vm, observed(DomainObservation::Present(DomainFacts { reason, ..facts })))
}

#[test]
fn it_goes_on_where_what_is_asked_of_its_power_needs_it_thawed() {
    use DesiredPower::{ColdRunning, ForcedOff, Paused, Running, Saved, Stopped};
    // libvirt's words for why it is halted: somebody asked, or it is at work on a snapshot.
    const ASKED: i32 = 1;
    const SNAPSHOT: i32 = 9;
    for (power, is_open, reason, step, satisfied) in [
        (Running, true, ASKED, Some(Step::Resume), None),
        (ColdRunning, true, ASKED, Some(Step::Resume), None),
        (Saved, true, ASKED, Some(Step::Resume), None),
        (Saved, true, SNAPSHOT, None, None),
        (Running, false, ASKED, None, None),
        (ForcedOff, true, ASKED, Some(Step::Destroy), None),
        (Stopped, true, ASKED, Some(Step::Resume), None),
        (Paused, true, ASKED, None, Some(1)),
    ] {
        let (vm, seen) = halted(power, is_open, reason, 5);
        let plan = decide(&vm, &seen, &memory());
        assert_eq!((plan.step, plan.satisfied), (step, satisfied), "{power:?}, open: {is_open}");
    }
}

#[test]
fn nothing_ends_it_before_it_was_thawed() {
    let codes = |ago, failed: u32| {
        let (vm, seen) = halted(DesiredPower::Running, false, 1, ago);
        let mut memory = memory();
        memory.failure = Some(Failure {
            step: crate::reconcile::step::CHANGE,
            attempts: failed,
            message: String::new(),
            retry_at: now(),
        });
        let updates = decide(&vm, &seen, &memory).operations;
        let ends = updates.into_iter().filter_map(|update| match update {
            OperationUpdate::Finish { error, .. } => error.map(|error| error.code),
            OperationUpdate::Progress { .. } => None,
        });
        ends.collect::<Vec<_>>()
    };
    assert_eq!(codes(60, 99), Vec::<String>::new(), "neither its failures");
    assert_eq!(codes(3601, 0), Vec::<String>::new(), "nor its time");
}
