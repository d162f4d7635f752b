//! What is plugged into a VM.

use super::ChangeError;
use crate::{
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::DeviceChange,
};

#[expect(clippy::unused_async, reason = "what there will be to do is asked of the hypervisor")]
pub(super) async fn carry_out(
    _hands: &Hands,
    _bundle: &VmBundle,
    change: &DeviceChange,
) -> Result<ChangeOutcome, ChangeError> {
    match *change {}
}
