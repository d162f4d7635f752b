//! What is done to a running guest.

use super::ChangeError;
use crate::{
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::{Effect, GuestChange},
};

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: GuestChange,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    match change {
        // A polite reboot comes here when its grace is over: the plan asks, and waits.
        //
        // Nothing tells whether a guest was reset before a crash: it is reset once more then,
        // which leaves it as one reset does.
        GuestChange::Reset | GuestChange::Reboot { .. } => hands.hypervisor.reset(id).await?,
    }
    Ok(ChangeOutcome { effect: Some(Effect::Live), ..ChangeOutcome::default() })
}
