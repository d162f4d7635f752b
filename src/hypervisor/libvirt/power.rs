//! Defining domains and changing their power state. Each is idempotent: libvirt is told first,
//! and only if it objects is it asked whether what was wanted is already so. That is one call in
//! the common case, and leaves no gap between a look and an act.

use virt::{domain::Domain, error::Error, sys};

use super::{
    error::{is_unsupported, is_wrong_state},
    ffi,
    scan::state,
    session::Call,
};
use crate::{
    domain_xml::read_facts,
    hypervisor::HypervisorError,
    vm::{DomainState, VmId},
};

pub(super) fn define(call: &Call<'_>, id: VmId, xml: &str) -> Result<(), HypervisorError> {
    let facts = read_facts(xml).map_err(|error| call.invalid(error))?;
    if facts.id != id {
        // Otherwise a mistake here would redefine somebody else's domain.
        return Err(call.invalid(format_args!("the XML is of domain {}", facts.id)));
    }
    call.ask(|conn| conn.define_domain_xml(xml)).map(drop)
}

pub(super) fn start(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    unless(call, &domain, call.ask(|_| domain.create()), DomainState::is_active)
}

pub(super) fn request_shutdown(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let Some(domain) = call.find_domain(id)? else { return Ok(()) };
    // Asked for by name: without the flag libvirt may prefer the guest's QEMU agent, and wait
    // for it.
    let outcome = match call.ask_raw(|_| domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)) {
        Err(error) if is_unsupported(&error) => call.ask(|_| domain.shutdown().map(drop)),
        outcome => outcome.map_err(|error| call.sort(error)),
    };
    gone_or(unless(call, &domain, outcome, |state| !state.is_active()))
}

pub(super) fn resume(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    let raw = call.ask(|_| ffi::domain_state(&domain))?;
    let outcome = if state(raw) == DomainState::Suspended {
        // Suspended by the guest itself: libvirt knows another verb for that.
        call.ask(|_| domain.pm_wakeup(0).map(drop))
    } else {
        call.ask(|_| domain.resume().map(drop))
    };
    unless(call, &domain, outcome, |state| state == DomainState::Running)
}

pub(super) fn destroy(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let Some(domain) = call.find_domain(id)? else { return Ok(()) };
    let outcome = call.ask(|_| domain.destroy().map(drop));
    gone_or(unless(call, &domain, outcome, |state| !state.is_active()))
}

pub(super) fn undefine(call: &Call<'_>, id: VmId) -> Result<(), HypervisorError> {
    let Some(domain) = call.find_domain(id)? else { return Ok(()) };
    let outcome = undefine_as_far_as_known(call, &domain).map_err(|error| call.sort(error));
    if let Err(error) = &outcome
        && is_wrong_state(error)
        && !call.ask(|_| domain.is_persistent())?
    {
        // A transient domain has no configuration to remove.
        return Ok(());
    }
    gone_or(outcome)
}

/// With everything that belongs to the domain; drivers and older libvirts refuse flags they do
/// not know, so it is tried with fewer, down to none.
fn undefine_as_far_as_known(call: &Call<'_>, domain: &Domain) -> Result<(), Error> {
    const SAVED: u32 = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    const NVRAM: u32 = SAVED | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    const CHECKPOINTS: u32 = NVRAM | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    const TPM: u32 = CHECKPOINTS | sys::VIR_DOMAIN_UNDEFINE_TPM;
    for flags in [TPM, CHECKPOINTS, NVRAM, SAVED] {
        match call.ask_raw(|_| domain.undefine_flags(flags)) {
            Err(error) if is_unsupported(&error) => {}
            outcome => return outcome,
        }
    }
    call.ask_raw(|_| domain.undefine())
}

/// Success, too, if the domain is already in the state that was wanted. Drivers refuse that with
/// different codes, so every refusal is reason to look.
pub(super) fn unless(
    call: &Call<'_>,
    domain: &Domain,
    outcome: Result<(), HypervisorError>,
    already: impl Fn(DomainState) -> bool,
) -> Result<(), HypervisorError> {
    match outcome {
        Err(error @ HypervisorError::Refused { .. }) => {
            let raw = call.ask(|_| ffi::domain_state(domain))?;
            if already(state(raw)) { Ok(()) } else { Err(error) }
        }
        outcome => outcome,
    }
}

/// Success, too, if the domain vanished meanwhile.
fn gone_or(outcome: Result<(), HypervisorError>) -> Result<(), HypervisorError> {
    match outcome {
        Err(HypervisorError::NotFound { .. }) => Ok(()),
        outcome => outcome,
    }
}
