//! Giving the agent channel to domains that others made, and taking it back: in the persistent
//! configuration always, in the running domain where the hypervisor can.

use std::path::{Path, PathBuf};

use virt::{domain::Domain, sys};

use super::{LibvirtHypervisor, ffi, scan::state, session::Call};
use crate::{
    domain_xml::{Injection, channel_element, inject_channel, read_facts, remove_channel},
    hypervisor::HypervisorError,
    vm::VmId,
};

/// What happened to the configuration that survives the domain's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigChange {
    /// It was changed.
    Changed,
    /// It was already as asked.
    Unchanged,
    /// The domain is transient: there is none.
    None,
}

/// What happened to the running domain.
#[derive(Debug)]
pub enum LiveChange {
    /// It does not run.
    NotRunning,
    /// It was already as asked.
    Unchanged,
    /// It was changed.
    Changed,
    /// It was asked to change and has not done so yet.
    Pending,
    /// It runs with a channel at another path, which stays until its next start.
    OtherPath(PathBuf),
    /// The hypervisor refused; what was done to the configuration takes effect at the next start.
    Refused(HypervisorError),
}

/// What adding or removing the channel did.
#[derive(Debug)]
pub struct ChannelChange {
    /// See [`ConfigChange`].
    pub config: ConfigChange,
    /// See [`LiveChange`].
    pub live: LiveChange,
}

impl LibvirtHypervisor {
    /// Gives a domain the agent channel, with this path for its socket. Idempotent.
    ///
    /// # Errors
    /// If the persistent configuration could not be changed, or the domain not be looked at. A
    /// refused live change is no error; see [`LiveChange`].
    pub async fn add_channel(&self, id: VmId, socket: PathBuf) -> Result<ChannelChange, HypervisorError> {
        self.on_domain("add the channel to", id, move |call| add(call, id, &socket)).await
    }

    /// Takes the agent channel from a domain. Idempotent.
    ///
    /// # Errors
    /// As with [`LibvirtHypervisor::add_channel`].
    pub async fn remove_channel(&self, id: VmId) -> Result<ChannelChange, HypervisorError> {
        self.on_domain("remove the channel from", id, move |call| remove(call, id)).await
    }
}

fn add(call: &Call<'_>, id: VmId, socket: &Path) -> Result<ChannelChange, HypervisorError> {
    let domain = call.domain(id)?;
    let config =
        edit_config(call, &domain, |xml| inject_channel(xml, id, socket).map_err(|e| call.invalid(e)))?;
    let live = change_live(call, &domain, |current| match current {
        Some(path) if path == socket => Ok(LiveChange::Unchanged),
        Some(path) => Ok(LiveChange::OtherPath(path)),
        None => {
            let element = channel_element(socket);
            call.ask(|_| domain.attach_device_flags(&element, sys::VIR_DOMAIN_AFFECT_LIVE).map(drop))?;
            Ok(LiveChange::Changed)
        }
    })?;
    Ok(ChannelChange { config, live })
}

fn remove(call: &Call<'_>, id: VmId) -> Result<ChannelChange, HypervisorError> {
    let domain = call.domain(id)?;
    let config = edit_config(call, &domain, |xml| remove_channel(xml).map_err(|e| call.invalid(e)))?;
    let live = change_live(call, &domain, |current| {
        let Some(path) = current else { return Ok(LiveChange::Unchanged) };
        let element = channel_element(&path);
        call.ask(|_| domain.detach_device_flags(&element, sys::VIR_DOMAIN_AFFECT_LIVE).map(drop))?;
        // The guest has a say in this; libvirt waits a few seconds for it and then answers anyway.
        Ok(if live_channel(call, &domain)?.is_none() { LiveChange::Changed } else { LiveChange::Pending })
    })?;
    Ok(ChannelChange { config, live })
}

/// Redefines the domain from its inactive XML, if the edit changes it. The XML is read with its
/// secrets: without them the redefinition would lose a console's password.
fn edit_config(
    call: &Call<'_>,
    domain: &Domain,
    edit: impl FnOnce(&str) -> Result<Injection, HypervisorError>,
) -> Result<ConfigChange, HypervisorError> {
    if !call.ask(|_| domain.is_persistent())? {
        // Nothing to keep; but the edit also checks what the live change will use.
        edit(&call.ask(|_| domain.xml_desc(0))?)?;
        return Ok(ConfigChange::None);
    }
    let xml = call.ask(|_| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE))?;
    let edited = edit(&xml)?;
    if !edited.changed {
        return Ok(ConfigChange::Unchanged);
    }
    call.ask(|conn| conn.define_domain_xml(&edited.xml))?;
    Ok(ConfigChange::Changed)
}

/// Changes the running domain, given the path of the channel it has now. What the hypervisor
/// refuses is told, not raised: the configuration was changed already.
pub(super) fn change_live(
    call: &Call<'_>,
    domain: &Domain,
    change: impl FnOnce(Option<PathBuf>) -> Result<LiveChange, HypervisorError>,
) -> Result<LiveChange, HypervisorError> {
    let raw = call.ask(|_| ffi::domain_state(domain))?;
    if !state(raw).is_active() {
        return Ok(LiveChange::NotRunning);
    }
    let current = live_channel(call, domain)?;
    match change(current) {
        Err(error @ HypervisorError::Refused { .. }) => Ok(LiveChange::Refused(error)),
        outcome => outcome,
    }
}

pub(super) fn live_channel(call: &Call<'_>, domain: &Domain) -> Result<Option<PathBuf>, HypervisorError> {
    let xml = call.ask(|_| domain.xml_desc(0))?;
    let facts = read_facts(&xml).map_err(|error| call.invalid(error))?;
    Ok(facts.channel.map(|channel| channel.path))
}
