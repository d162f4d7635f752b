//! How the loan between a VM and its copy stands. Two tasks are party to it, and each writes of its own
//! VM alone: what the other one did it sees in the store.

use super::apply::Hands;
use crate::{
    hypervisor::Copying,
    store::VmBundle,
    vm::{LendChange, Milestone, Operation, OperationKind, VmChange, chain},
};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loan {
    /// The VM is no party to one.
    #[default]
    None,
    /// The lender is not known to be off yet, or cannot be asked about.
    Awaited,
    /// The lender is off, and its copy needs it.
    Stands,
    /// The lender is needed no more.
    Over,
    /// The lender is gone, or on its way out.
    LenderGone,
    /// The lender is there, and lends itself no more.
    Withdrawn,
}

/// The loan of a lender.
fn lent(bundle: &VmBundle) -> Option<LendChange> {
    bundle.operations.iter().find_map(|operation| match operation.change {
        Some(VmChange::Lend(loan)) if !operation.status.is_final() => Some(loan),
        _ => None,
    })
}

/// Whether a VM that is made as a copy still has something to copy.
fn is_copying(copy: &VmBundle) -> bool {
    let record = &copy.record;
    let asked =
        |operation: &Operation| operation.kind == OperationKind::Clone && !operation.status.is_final();
    !record.intent.deleting
        && record.milestones.at(Milestone::DiskCreated).is_none()
        && copy.operations.iter().any(asked)
}

/// Whether a copy's disks are not there by now, either. The lender was looked at later than the copy:
/// that it lends itself no more may be because a write that gave no answer has said since that all of it
/// is copied.
async fn is_unmade(hands: &Hands, bundle: &VmBundle) -> bool {
    match hands.store.load_vm(bundle.record.id).await {
        Ok(now) => now.is_some_and(|now| now.record.milestones.at(Milestone::DiskCreated).is_none()),
        Err(error) => {
            tracing::debug!(vm = %bundle.record.id, error = chain(&error), "it is not known whether a copy is made");
            false
        }
    }
}

/// How the VM's loan stands, and its copying.
pub(super) async fn look(hands: &Hands, bundle: &VmBundle) -> (Loan, Copying) {
    let record = &bundle.record;
    if let Some(loan) = lent(bundle) {
        let copy = hands.store.load_vm(loan.to).await;
        if let Err(error) = &copy {
            tracing::debug!(vm = %record.id, error = chain(error), "it is not known whether a loan is over");
        }
        let needed = copy.map_or(true, |copy| copy.is_some_and(|copy| is_copying(&copy)));
        // A copy that nobody needs any more is still read until it ends, if it was begun.
        if !needed {
            hands.hypervisor.withdraw_copy(loan.to).await;
        }
        let read = needed || hands.hypervisor.copying(loan.to).await != Copying::Nothing;
        return (if read { Loan::Stands } else { Loan::Over }, Copying::Nothing);
    }
    let made = record.milestones.at(Milestone::DiskCreated).is_some();
    let Some(from) = record.spec.cloned_from().filter(|_| !made) else { return Default::default() };
    let loan = match hands.store.load_vm(from).await {
        Ok(None) => Loan::LenderGone,
        Ok(Some(lender)) if lender.record.intent.deleting => Loan::LenderGone,
        Ok(Some(lender)) => match lent(&lender) {
            Some(loan) if loan.to == record.id && loan.still => Loan::Stands,
            Some(loan) if loan.to == record.id => Loan::Awaited,
            _ => Loan::Withdrawn,
        },
        Err(error) => {
            tracing::debug!(vm = %record.id, error = chain(&error), "the VM that is copied is not known");
            Loan::Awaited
        }
    };
    let loan = match loan {
        Loan::LenderGone | Loan::Withdrawn if !is_unmade(hands, bundle).await => Loan::Awaited,
        loan => loan,
    };
    if !is_copying(bundle) || matches!(loan, Loan::LenderGone | Loan::Withdrawn) {
        hands.hypervisor.withdraw_copy(record.id).await;
    }
    (loan, hands.hypervisor.copying(record.id).await)
}
