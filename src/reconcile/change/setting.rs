//! How a VM is called and treated.

use super::ChangeError;
use crate::{
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::{Effect, SettingChange},
};

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: &SettingChange,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    match change {
        SettingChange::Autostart(on) => hands.hypervisor.set_autostart(id, *on).await?,
    }
    Ok(ChangeOutcome { effect: Some(Effect::Live), ..ChangeOutcome::default() })
}
