//! A VM's snapshots.

use super::ChangeError;
use crate::{
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::SnapshotChange,
};

#[expect(clippy::unused_async, reason = "what there will be to do is asked of the hypervisor")]
pub(super) async fn carry_out(
    _hands: &Hands,
    _bundle: &VmBundle,
    change: &SnapshotChange,
) -> Result<ChangeOutcome, ChangeError> {
    match *change {}
}
