//! How a VM is called and treated.

use super::ChangeError;
use crate::{
    reconcile::apply::Hands,
    store::{ChangeOutcome, VmBundle},
    vm::{DomainObservation, Effect, PowerKeeping, SettingChange, VmName, VmSpec},
};

pub(super) async fn carry_out(
    hands: &Hands,
    bundle: &VmBundle,
    change: &SettingChange,
) -> Result<ChangeOutcome, ChangeError> {
    let record = &bundle.record;
    let keeping = record.spec.keeping;
    let spec = match change {
        SettingChange::Autostart(on) => {
            hands.hypervisor.set_autostart(record.id, *on).await?;
            VmSpec { keeping: PowerKeeping { autostart: *on, ..keeping }, ..record.spec.clone() }
        }
        SettingChange::Rename(name) => {
            rename(hands, bundle, name).await?;
            VmSpec { name: name.clone(), ..record.spec.clone() }
        }
        SettingChange::Policy { on_power_off, on_crash } => {
            let keeping = PowerKeeping { on_power_off: *on_power_off, on_crash: *on_crash, ..keeping };
            VmSpec { keeping, ..record.spec.clone() }
        }
    };
    Ok(ChangeOutcome { effect: Some(Effect::Live), spec: Some(spec), ..ChangeOutcome::default() })
}

/// The domain first, by whose name it is seen whether that was done already; then the store, with
/// the end of the operation.
async fn rename(hands: &Hands, bundle: &VmBundle, name: &VmName) -> Result<(), ChangeError> {
    let id = bundle.record.id;
    let refused = |code, words: &str| Err(ChangeError::Refused { code, message: words.to_owned() });
    match hands.hypervisor.observe(id).await? {
        DomainObservation::Present(facts) if facts.name == name.as_str() => return Ok(()),
        DomainObservation::Present(facts) if facts.state.is_active() => {
            return refused("WRONG_STATE", "the VM is not off; stop it with `stopVm`");
        }
        DomainObservation::Present(facts) if facts.managed_save => {
            return refused(
                "WRONG_STATE",
                "what was saved of the VM belongs to its name; start it and stop it before it is renamed",
            );
        }
        DomainObservation::Present(_) | DomainObservation::Absent | DomainObservation::Unknown => {}
    }
    if hands.hypervisor.domain_named(name.as_str()).await?.is_some_and(|other| other != id) {
        return refused("NAME_TAKEN", "a domain of this host has that name; choose another name");
    }
    Ok(hands.hypervisor.rename(id, name).await?)
}
