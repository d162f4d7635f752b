//! Our note in a domain's metadata, and domains that others made. What is read to be written again
//! is read with its secrets: without them the redefinition would lose a console's password.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use virt::{domain::Domain, sys};

use super::{
    LibvirtHypervisor, LiveChange,
    cache::XmlPart,
    channels::{change_live, live_channel},
    ffi, scan,
    session::{Call, absent_as_none},
};
use crate::{
    domain_xml::{
        METADATA_NAMESPACE, Note, adopt_domain, channel_element, find_note, gave_channel, note_element,
        read_facts, release_domain, settled_note,
    },
    failpoint::failpoint,
    hypervisor::{DomainDescription, GivenBack, HypervisorError, Identity},
    vm::VmId,
};

/// The prefix of our element.
const KEY: &str = "infinibay";
const WHOLE: u32 = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;

#[async_trait]
impl Identity for LibvirtHypervisor {
    async fn describe(&self, id: VmId) -> Result<Option<DomainDescription>, HypervisorError> {
        self.on_domain("describe", id, move |call| absent_as_none(describe(call, id))).await
    }

    async fn note(&self, id: VmId, note: Note) -> Result<(), HypervisorError> {
        self.on_domain("note the VM in", id, move |call| {
            let domain = call.domain(id)?;
            let xml = call.ask(|_| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE))?;
            let found = find_note(&xml).map_err(|error| call.invalid(error))?;
            let element = note_element(id, &note, found.as_ref());
            set_metadata(call, &domain, &element)
        })
        .await
    }

    async fn adopt(&self, id: VmId, socket: PathBuf, note: Note) -> Result<bool, HypervisorError> {
        self.on_domain("adopt", id, move |call| adopt(call, id, &socket, &note)).await
    }

    async fn release(&self, id: VmId) -> Result<GivenBack, HypervisorError> {
        self.on_domain("release", id, move |call| release(call, id)).await
    }
}

fn describe(call: &Call<'_>, id: VmId) -> Result<DomainDescription, HypervisorError> {
    let domain = call.domain(id)?;
    let persistent = call.ask(|_| domain.is_persistent())?;
    let xml = call.ask(|_| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE))?;
    let part = read_facts(&xml).map(XmlPart::from).map_err(|error| call.invalid(error))?;
    let note = find_note(&xml).map_err(|error| call.invalid(error))?;
    let raw = call.ask(|_| ffi::domain_state(&domain))?;
    let saved = !scan::state(raw).is_active() && scan::has_managed_save(call, &domain)?;
    let name = domain.name().map_err(|error| call.sort(error))?;
    Ok(DomainDescription { facts: scan::present(name, Some(raw), (persistent, saved), part), note })
}

/// In the configuration, and in the running domain: that is what a scan reads.
fn set_metadata(call: &Call<'_>, domain: &Domain, element: &str) -> Result<(), HypervisorError> {
    let flags = flags(call, domain)?;
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
    call.ask(|_| domain.set_metadata(kind, Some(element), Some(KEY), Some(METADATA_NAMESPACE), flags))
}

fn flags(call: &Call<'_>, domain: &Domain) -> Result<u32, HypervisorError> {
    let live = if is_active(call, domain)? { sys::VIR_DOMAIN_AFFECT_LIVE } else { 0 };
    let config = if call.ask(|_| domain.is_persistent())? { sys::VIR_DOMAIN_AFFECT_CONFIG } else { 0 };
    Ok(live | config)
}

fn is_active(call: &Call<'_>, domain: &Domain) -> Result<bool, HypervisorError> {
    Ok(scan::state(call.ask(|_| ffi::domain_state(domain))?).is_active())
}

fn adopt(call: &Call<'_>, id: VmId, socket: &Path, note: &Note) -> Result<bool, HypervisorError> {
    let domain = call.domain(id)?;
    if !call.ask(|_| domain.is_persistent())? {
        return Err(call.invalid("the domain is transient: it has no configuration to keep anything in"));
    }
    let whole = call.ask(|_| domain.xml_desc(WHOLE))?;
    let adopted = adopt_domain(&whole, id, socket, note).map_err(|error| call.invalid(error))?;
    if adopted.changed {
        call.ask(|conn| conn.define_domain_xml(&adopted.xml))?;
    }
    failpoint!("adopt.defined");
    let defined = call.ask(|_| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE))?;
    let settled = settled_note(&defined, id, note).map_err(|error| call.invalid(error))?;
    let element = match settled {
        Some(element) => element,
        None => {
            let found = find_note(&defined).map_err(|error| call.invalid(error))?;
            note_element(id, note, found.as_ref())
        }
    };
    set_metadata(call, &domain, &element)?;
    failpoint!("adopt.noted");
    let live = change_live(call, &domain, |current| match current {
        Some(_) => Ok(LiveChange::Unchanged),
        None => {
            let element = channel_element(socket);
            call.ask(|_| domain.attach_device_flags(&element, sys::VIR_DOMAIN_AFFECT_LIVE).map(drop))?;
            Ok(LiveChange::Changed)
        }
    })?;
    if let LiveChange::Refused(error) = &live {
        tracing::info!(vm = %id, error = crate::vm::chain(error), "the channel comes with the domain's next start");
    }
    Ok(!matches!(live, LiveChange::Refused(_)))
}

fn release(call: &Call<'_>, id: VmId) -> Result<GivenBack, HypervisorError> {
    let Some(domain) = call.find_domain(id)? else { return Ok(GivenBack::Done) };
    let whole = call.ask(|_| domain.xml_desc(WHOLE))?;
    let ours = gave_channel(&whole, id).map_err(|error| call.invalid(error))?;
    let live = change_live(call, &domain, |current| {
        let Some(path) = current.filter(|_| ours) else { return Ok(LiveChange::Unchanged) };
        let element = channel_element(&path);
        call.ask(|_| domain.detach_device_flags(&element, sys::VIR_DOMAIN_AFFECT_LIVE).map(drop))?;
        Ok(if live_channel(call, &domain)?.is_none() { LiveChange::Changed } else { LiveChange::Pending })
    })?;
    failpoint!("release.detached");
    if is_active(call, &domain)? {
        forget_live(call, &domain)?;
    }
    failpoint!("release.forgotten");
    // Last: it also takes out what says what to take out.
    if call.ask(|_| domain.is_persistent())? {
        let released = release_domain(&whole, id).map_err(|error| call.invalid(error))?;
        if released.changed {
            call.ask(|conn| conn.define_domain_xml(&released.xml))?;
        }
    }
    failpoint!("release.released");
    Ok(match live {
        LiveChange::Refused(_) | LiveChange::Pending | LiveChange::OtherPath(_) => GivenBack::AtNextStart,
        LiveChange::NotRunning | LiveChange::Unchanged | LiveChange::Changed => GivenBack::Done,
    })
}

/// Takes our element out of the running domain's metadata.
fn forget_live(call: &Call<'_>, domain: &Domain) -> Result<(), HypervisorError> {
    let xml = call.ask(|_| domain.xml_desc(0))?;
    if find_note(&xml).map_err(|error| call.invalid(error))?.is_none() {
        return Ok(());
    }
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
    call.ask(|_| {
        domain.set_metadata(kind, None, Some(KEY), Some(METADATA_NAMESPACE), sys::VIR_DOMAIN_AFFECT_LIVE)
    })
}
