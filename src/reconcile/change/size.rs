//! Processors, memory, the size of a disk.

use super::ChangeError;
use crate::{
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::SizeChange,
};

#[expect(clippy::unused_async, reason = "what there will be to do is asked of the hypervisor")]
pub(super) async fn carry_out(
    _hands: &Hands,
    _bundle: &VmBundle,
    change: &SizeChange,
) -> Result<ChangeOutcome, ChangeError> {
    match *change {}
}
