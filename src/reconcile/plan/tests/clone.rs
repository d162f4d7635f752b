//! A copy and the VM that is copied.

use super::*;
use crate::{
    hypervisor::Copying,
    reconcile::loan::Loan,
    vm::{LendChange, Origin, VmChange},
};

fn copy() -> VmBundle {
    let mut copy = bundle();
    copy.record.spec.origin = Origin::Cloned { from: VmId::generate() };
    copy.record.intent.power = DesiredPower::Stopped;
    copy.operations[0].kind = OperationKind::Clone;
    copy
}

fn look(bundle: &VmBundle, domain: DomainObservation, loan: Loan, copying: Copying) -> Plan {
    decide(bundle, &Observation { loan, copying, ..observed(domain) }, &memory())
}

#[test]
fn a_copy_waits_for_its_original_and_for_what_is_under_way() {
    let absent = || DomainObservation::Absent;
    for (loan, copying, step) in [
        (Loan::Awaited, Copying::Nothing, None),
        (Loan::Stands, Copying::Nothing, Some(Step::CopyDisks)),
        (Loan::Stands, Copying::UnderWay(Some(40)), None),
    ] {
        let decided = look(&copy(), absent(), loan, copying);
        assert_eq!(decided.step, step, "{loan:?} {copying:?}");
        assert_eq!((decided.given_up, decided.status.phase), (None, VmPhase::Provisioning));
        assert!(step.is_some() || decided.wake_at.is_some(), "it would wait for ever");
    }
    for (loan, code) in [(Loan::LenderGone, "SOURCE_DELETED"), (Loan::Withdrawn, "SOURCE_CHANGED")] {
        for copying in [Copying::Nothing, Copying::UnderWay(None)] {
            let decided = look(&copy(), absent(), loan, copying);
            assert_eq!((decided.step, decided.given_up.expect("given up").1.code.as_str()), (None, code));
        }
    }
}

#[test]
fn what_is_whole_needs_its_original_no_more() {
    let mut copy = copy();
    copy.record.milestones.pass(Milestone::DiskCreated, now());
    copy.record.milestones.pass(Milestone::SeedWritten, now());
    let decided = look(&copy, DomainObservation::Absent, Loan::None, Copying::Nothing);
    assert_eq!(decided.step, Some(Step::Define));
}

#[test]
fn progress_is_that_of_the_disks() {
    let told = |copying| {
        let decided = look(&copy(), DomainObservation::Absent, Loan::Stands, copying);
        let mut told = decided.operations.into_iter().map(|update| match update {
            OperationUpdate::Progress { progress, stage, .. } => (progress, stage),
            OperationUpdate::Finish { .. } => (-1, String::new()),
        });
        told.next().expect("it is told")
    };
    assert_eq!(told(Copying::UnderWay(Some(50))), (40, "copying the disks".to_owned()));
    assert!(told(Copying::Stalled).1.contains("look at their pools"));
}

#[test]
fn a_copy_that_is_being_made_is_not_removed_under_libvirts_hands() {
    let mut copy = copy();
    copy.record.intent.deleting = true;
    let absent = || DomainObservation::Absent;
    copy.operations[0].kind = OperationKind::Delete;
    for (copying, words) in
        [(Copying::UnderWay(None), "libvirt makes"), (Copying::Stalled, "look at its pool")]
    {
        let decided = look(&copy, absent(), Loan::Stands, copying);
        assert_eq!(decided.step, None);
        assert!(decided.wake_at.is_some(), "it would wait for ever");
        let told = |update: &OperationUpdate| matches!(update, OperationUpdate::Progress { stage, .. } if stage.contains(words));
        assert!(decided.operations.iter().any(told), "{:?}", decided.operations);
    }
    assert_eq!(look(&copy, absent(), Loan::Stands, Copying::Nothing).step, Some(Step::Forget));
}

fn lender(still: bool) -> (VmBundle, OperationId) {
    let mut lender = bundle();
    made(&mut lender);
    (lender.record.intent.power, lender.record.intent.satisfied) = (DesiredPower::Stopped, 1);
    let operation = &mut lender.operations[0];
    operation.kind = OperationKind::Lend;
    operation.change = Some(VmChange::Lend(LendChange { to: VmId::generate(), still }));
    let id = operation.id;
    (lender, id)
}

#[test]
fn a_lender_says_that_it_is_off_stays_so_and_is_free_in_the_end() {
    let off = || domain(DomainState::Shutoff);
    for (still, loan, step) in [
        (false, Loan::Stands, true),
        (true, Loan::Stands, false),
        (true, Loan::Over, true),
        (false, Loan::Over, true),
    ] {
        for power in [DesiredPower::Stopped, DesiredPower::Running, DesiredPower::ForcedOff] {
            let (mut lender, id) = lender(still);
            // Asked for meanwhile.
            (lender.record.intent.power, lender.record.intent.generation) = (power, 2);
            let wanted = if loan == Loan::Over { Step::Change(id) } else { Step::Lend(id) };
            let decided = look(&lender, off(), loan, Copying::Nothing);
            assert_eq!(decided.step, step.then_some(wanted), "{still} {loan:?} {power:?}");
            assert!(decided.wake_at.is_some(), "it would wait for ever");
        }
    }
}

#[test]
fn a_lender_that_is_not_off_is_none() {
    for state in [DomainState::Running, DomainState::Paused, DomainState::ShuttingDown] {
        for still in [false, true] {
            let (lender, id) = lender(still);
            let decided = look(&lender, domain(state), Loan::Stands, Copying::Nothing);
            let ended = decided.operations.iter().any(|update| {
                matches!(update, OperationUpdate::Finish { id: it, status: OperationStatus::Failed, error: Some(error) }
                    if *it == id && error.code == "WRONG_STATE")
            });
            assert!(ended && decided.step.is_none(), "{state:?}: {decided:?}");
        }
    }
    // What is not known is no reason to end anything.
    let (lender, _) = lender(true);
    let decided = look(&lender, DomainObservation::Unknown, Loan::Stands, Copying::Nothing);
    assert_eq!(decided.step, None);
    assert!(decided.operations.iter().all(|update| matches!(update, OperationUpdate::Progress { .. })));
}
