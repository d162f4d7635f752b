//! Carrying a change out. Like every step it is idempotent: done again after a crash, it finds
//! what is done already and does the rest.

mod device;
mod guest;
mod identity;
mod setting;
mod size;
mod snapshot;

use super::{apply::Hands, ports::FilesError};
use crate::{
    hypervisor::HypervisorError,
    store::{ChangeOutcome, StoreError, VmBundle},
    vm::{Effect, VmChange},
};

/// Why a change was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    /// It never can be, as things are: the operation ends with this.
    #[error("{message}")]
    Refused {
        /// Stable, for programs.
        code: &'static str,
        /// For people; says what to do.
        message: String,
    },
    /// Somebody else has his part to do, a guest mostly: it is looked at again until the change's
    /// budget ends.
    #[error("{0}")]
    Waiting(String),
    #[error(transparent)]
    Hypervisor(HypervisorError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl From<HypervisorError> for ChangeError {
    /// What cannot be as the domain is made is not tried again.
    fn from(error: HypervisorError) -> Self {
        match error {
            HypervisorError::Unfit { reason, .. } => refused("NOT_SUPPORTED", reason),
            error => Self::Hypervisor(error),
        }
    }
}

pub(in crate::reconcile) use snapshot::thaw;

/// Gives a domain back the name that its VM still has.
pub(super) async fn take_name_back(hands: &Hands, bundle: &VmBundle) -> Result<(), ChangeError> {
    Ok(hands.hypervisor.rename(bundle.record.id, &bundle.record.spec.name).await?)
}

fn refused(code: &'static str, message: String) -> ChangeError {
    ChangeError::Refused { code, message }
}

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: &VmChange,
) -> Result<ChangeOutcome, ChangeError> {
    match change {
        VmChange::Guest(change) => guest::carry_out(hands, bundle, *change).await,
        VmChange::Setting(change) => setting::carry_out(hands, bundle, change).await,
        VmChange::Size(change) => size::carry_out(hands, bundle, change).await,
        VmChange::Device(change) => device::carry_out(hands, bundle, change).await,
        VmChange::Snapshot(change) => snapshot::carry_out(hands, bundle, change).await,
        VmChange::Identity(change) => identity::carry_out(hands, bundle, *change).await,
        // Planned when the copy needs the VM no more.
        VmChange::Lend(_) => Ok(ChangeOutcome { effect: Some(Effect::Live), ..ChangeOutcome::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_domain_is_not_made_for_ends_the_change_with_the_reason() {
        let (operation, reason) = ("resize".to_owned(), "its <numa> is laid out".to_owned());
        let error = ChangeError::from(HypervisorError::Unfit { operation, reason: reason.clone() });
        let ChangeError::Refused { code, message } = error else { panic!("{error:?} would be tried again") };
        assert_eq!((code, message), ("NOT_SUPPORTED", reason));
        let (operation, reason) = (String::new(), String::new());
        let error = ChangeError::from(HypervisorError::Invalid { operation, reason });
        assert!(matches!(error, ChangeError::Hypervisor(_)), "{error:?}");
    }
}
