//! Network cards.

use super::{done, effect, kept};
use crate::{
    domain_xml::{DeviceName, InterfaceSource, NewDevice, extra_mac_address, mac_address},
    hypervisor::Unplugged,
    reconcile::{
        apply::Hands,
        change::{ChangeError, refused, size::unsupported},
    },
    store::{ChangeOutcome, VmBundle},
    vm::{Effect, NetworkAttachment, NicSource, PluggedInterface},
};

pub(super) async fn attach(
    hands: &Hands,
    bundle: &VmBundle,
    source: &NicSource,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let mut spec = bundle.record.spec.clone();
    // By what is stored: a card that was plugged in before a crash has this very address.
    let known = &spec.devices.interfaces;
    let mut macs = (1..).map(|number| extra_mac_address(id, number));
    let mac = macs.find(|mac| *mac != mac_address(id) && known.iter().all(|card| card.mac != *mac));
    let Some(mac) = mac else {
        return Err(refused("TOO_MANY_DEVICES", "no hardware address is left".to_owned()));
    };
    let plugged_into = match source {
        NicSource::Network(name) => InterfaceSource::Network(name.to_string()),
        NicSource::Bridge(name) => InterfaceSource::Bridge(name.to_string()),
    };
    let now = hands.hypervisor.hardware(id).await?;
    let new = NewDevice::Interface { mac: mac.clone(), source: plugged_into };
    let live = hands.hypervisor.plug(id, new).await?;
    spec.devices.interfaces.push(PluggedInterface { mac, source: source.clone() });
    Ok(done(effect(&live, now.saved), spec))
}

pub(super) async fn detach(
    hands: &Hands,
    bundle: &VmBundle,
    mac: &str,
) -> Result<ChangeOutcome, ChangeError> {
    let id = bundle.record.id;
    let now = hands.hypervisor.hardware(id).await?;
    if now.saved {
        let words = "the VM's memory is saved with this card in use; start the VM first";
        return Err(refused("WRONG_STATE", words.to_owned()));
    }
    let name = DeviceName::Interface(mac.to_owned());
    let unplugged = hands.hypervisor.unplug(id, name).await;
    match unplugged.map_err(|error| unsupported(error, "unplug a network card"))? {
        Unplugged::Gone => {}
        Unplugged::Kept(words) => return Err(kept(&format!("network card {mac}"), words.as_deref())),
    }
    let mut spec = bundle.record.spec.clone();
    spec.devices.interfaces.retain(|card| card.mac != mac);
    if mac == mac_address(id) {
        spec.network = NetworkAttachment::None;
    }
    Ok(done(Effect::Live, spec))
}
