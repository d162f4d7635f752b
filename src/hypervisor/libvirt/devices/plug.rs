//! Devices that come and go.

use std::path::{Path, PathBuf};

use virt::{domain::Domain, sys};

use super::{config_xml, edit_config, is_active, live_xml};
use crate::{
    domain_xml::{
        self, DeviceName, HardwareError, NewDevice, add_device, device_element, drives_with, remove_device,
        set_medium,
    },
    failpoint::failpoint,
    hypervisor::{HypervisorError, Live, Unplugged, libvirt::session::Call},
    vm::VmId,
};

pub(super) fn plug(call: &Call<'_>, id: VmId, device: &NewDevice) -> Result<Live, HypervisorError> {
    let domain = call.domain(id)?;
    edit_config(call, &domain, |xml| add_device(xml, device))?;
    failpoint!("plug.configured");
    if !is_active(call, &domain)? || element(call, &live_xml(call, &domain)?, &device.name())?.is_some() {
        return Ok(Live::Done);
    }
    let new = device.element().map_err(|error| call.invalid(error))?;
    told(call.ask(|_| domain.attach_device_flags(&new, sys::VIR_DOMAIN_AFFECT_LIVE)))
}

pub(super) fn unplug(call: &Call<'_>, id: VmId, device: &DeviceName) -> Result<Unplugged, HypervisorError> {
    let domain = call.domain(id)?;
    if is_active(call, &domain)? {
        let Some(old) = element(call, &live_xml(call, &domain)?, device)? else {
            return unplug_config(call, &domain, device);
        };
        // The guest has a say in this: libvirt asks it, waits a few seconds and answers anyway. To
        // ask again while it thinks is refused.
        let words = match call.ask(|_| domain.detach_device_flags(&old, sys::VIR_DOMAIN_AFFECT_LIVE)) {
            Ok(()) => None,
            Err(error @ HypervisorError::Refused { .. }) if error.is_unsupported() => return Err(error),
            Err(HypervisorError::Refused { source, .. }) => Some(source.to_string()),
            Err(error) => return Err(error),
        };
        if is_active(call, &domain)? && element(call, &live_xml(call, &domain)?, device)?.is_some() {
            return Ok(Unplugged::Kept(words));
        }
        failpoint!("unplug.unplugged");
    }
    unplug_config(call, &domain, device)
}

fn unplug_config(
    call: &Call<'_>,
    domain: &Domain,
    device: &DeviceName,
) -> Result<Unplugged, HypervisorError> {
    edit_config(call, domain, |xml| remove_device(xml, device))?;
    Ok(Unplugged::Gone)
}

pub(super) fn change_medium(
    call: &Call<'_>,
    id: VmId,
    target: &str,
    medium: Option<&Path>,
) -> Result<Live, HypervisorError> {
    let domain = call.domain(id)?;
    edit_config(call, &domain, |xml| set_medium(xml, target, medium))?;
    failpoint!("change-medium.configured");
    if !is_active(call, &domain)? {
        return Ok(Live::Done);
    }
    let drive = DeviceName::Disk(target.to_owned());
    let running = live_xml(call, &domain)?;
    let changed = match set_medium(&running, target, medium) {
        Ok(changed) if !changed.changed => return Ok(Live::Done),
        Ok(changed) => element(call, &changed.xml, &drive)?,
        // The drive itself waits for the next start, unless it can be plugged in now.
        Err(HardwareError::NoDrive(_)) => None,
        Err(error) => return Err(call.invalid(error)),
    };
    match changed {
        Some(changed) => {
            told(call.ask(|_| domain.update_device_flags(&changed, sys::VIR_DOMAIN_AFFECT_LIVE)))
        }
        None => {
            let Some(new) = element(call, &config_xml(call, &domain)?, &drive)? else {
                return Ok(Live::Done);
            };
            told(call.ask(|_| domain.attach_device_flags(&new, sys::VIR_DOMAIN_AFFECT_LIVE)))
        }
    }
}

/// The running domain first: what is out of its configuration is looked for no more.
pub(super) fn boot_from_disk(call: &Call<'_>, id: VmId, media: &[PathBuf]) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    if is_active(call, &domain)? {
        let running = live_xml(call, &domain)?;
        for target in drives_with(&running, media).map_err(|error| call.invalid(error))? {
            let emptied = set_medium(&running, &target, None).map_err(|error| call.invalid(error))?;
            if let Some(drive) = element(call, &emptied.xml, &DeviceName::Disk(target))? {
                told(call.ask(|_| domain.update_device_flags(&drive, sys::VIR_DOMAIN_AFFECT_LIVE)))?;
            }
        }
    }
    failpoint!("replace-boot.ejected");
    edit_config(call, &domain, |xml| domain_xml::boot_from_disk(xml, media))
}

fn element(call: &Call<'_>, xml: &str, device: &DeviceName) -> Result<Option<String>, HypervisorError> {
    device_element(xml, device).map_err(|error| call.invalid(error))
}

/// What a running domain refuses, its next start brings.
fn told<T>(outcome: Result<T, HypervisorError>) -> Result<Live, HypervisorError> {
    match outcome {
        Ok(_) => Ok(Live::Done),
        Err(HypervisorError::Refused { operation, source }) => {
            tracing::info!(operation, error = %source, "refused live; it waits for the next start");
            Ok(Live::Refused(source.to_string()))
        }
        Err(error) => Err(error),
    }
}
