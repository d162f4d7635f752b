//! Looking: at everything with a constant number of calls, or at one domain afresh. Both end in
//! the same [`present`], so that what an event shows and what a scan shows cannot differ.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use virt::{domain::Domain, error::Error, sys};

use super::{
    LibvirtHypervisor,
    cache::XmlPart,
    error::is_unsupported,
    ffi::{self, RawState, StateRecord},
    gate::Lane,
    session::{Call, absent_as_none},
};
use crate::{
    domain_xml::{read_facts, read_hardware, waiting},
    hypervisor::{HostObservation, HypervisorError},
    vm::{DomainFacts, DomainObservation, DomainState, VmId},
};

/// libvirt's `virDomainPausedReason`.
const PAUSED_UNKNOWN: i32 = sys::VIR_DOMAIN_PAUSED_UNKNOWN.cast_signed();
const PAUSED_BY_IO_ERROR: i32 = sys::VIR_DOMAIN_PAUSED_IOERROR.cast_signed();

/// A domain as the bulk calls show it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    name: String,
    persistent: bool,
    managed_save: bool,
    state: Option<RawState>,
}

/// What reading one domain's XML came to.
enum Read {
    Kept,
    Gone,
    Failed(HypervisorError),
}

impl LibvirtHypervisor {
    pub(super) async fn scan(&self) -> Result<HostObservation, HypervisorError> {
        let listed = self.call("list all domains".to_owned(), None, Lane::Scan, list).await?;
        let seen = listed.iter().map(|(id, listed)| (*id, listed.state.map(|raw| raw.state))).collect();
        let reads = self.cache.to_read(&seen).into_iter().filter(|id| !self.gate.is_busy(*id)).collect();
        let unread = self.read_all(reads, &seen).await?;

        let mut domains = HashMap::with_capacity(listed.len());
        for (id, listed) in listed {
            let doubtful = match unread.get(&id) {
                Some(Unread::Gone) => continue,
                Some(Unread::Failed) => true,
                None => self.gate.is_busy(id),
            };
            let part = self.cache.get(id);
            let state = if doubtful || part.is_none() { None } else { listed.state };
            let Listed { name, persistent, managed_save, .. } = listed;
            domains.insert(id, present(name, state, (persistent, managed_save), part.unwrap_or_default()));
        }
        Ok(HostObservation { domains })
    }

    /// Reads the XML of these domains into the cache; gives those it could not read. Takes no
    /// longer than one call may, whatever hangs: who is not read by then is read next time.
    async fn read_all(
        &self,
        ids: Vec<VmId>,
        seen: &HashMap<VmId, Option<i32>>,
    ) -> Result<HashMap<VmId, Unread>, HypervisorError> {
        let mut unread: HashMap<VmId, Unread> = ids.iter().map(|id| (*id, Unread::Failed)).collect();
        let width = usize::try_from(self.config.max_calls).unwrap_or(1).max(1);
        let mut reading = stream::iter(ids)
            .map(|id| async move { (id, self.read_one(id, seen.get(&id).copied().flatten()).await) })
            .buffer_unordered(width);
        let deadline = tokio::time::Instant::now() + self.config.call_timeout;
        while let Ok(Some((id, read))) = tokio::time::timeout_at(deadline, reading.next()).await {
            match read {
                Read::Kept => drop(unread.remove(&id)),
                Read::Gone => drop(unread.insert(id, Unread::Gone)),
                Read::Failed(error) => {
                    if matches!(error, HypervisorError::Unreachable { .. }) && !self.is_connected() {
                        return Err(error);
                    }
                    tracing::warn!(vm = %id, error = %chain(&error), "cannot read the domain's XML");
                }
            }
        }
        drop(reading);
        for id in unread.keys() {
            self.cache.failed(*id);
        }
        Ok(unread)
    }

    async fn read_one(&self, id: VmId, state: Option<i32>) -> Read {
        let cache = Arc::clone(&self.cache);
        let outcome = self
            .on_domain("read the XML of", id, move |call| {
                cache.about_to_read(id);
                let Some(part) = absent_as_none(read_part(call, id, state))? else { return Ok(false) };
                cache.keep(id, state, part);
                Ok(true)
            })
            .await;
        match outcome {
            Ok(true) => Read::Kept,
            Ok(false) => Read::Gone,
            Err(error) => Read::Failed(error),
        }
    }

    pub(super) async fn look_at(&self, id: VmId) -> Result<DomainObservation, HypervisorError> {
        let cache = Arc::clone(&self.cache);
        let outcome = self
            .on_domain("observe", id, move |call| {
                cache.about_to_read(id);
                let looked = absent_as_none(look(call, id)).inspect_err(|_| cache.failed(id))?;
                Ok(looked.map(|(facts, raw, part)| {
                    cache.keep(id, Some(raw.state), part);
                    facts
                }))
            })
            .await?;
        Ok(outcome.map_or(DomainObservation::Absent, DomainObservation::Present))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Gone,
    Failed,
}

/// Every domain, by four calls. What is saved is asked for after the states: it is there before its
/// domain is off.
fn list(call: &Call<'_>) -> Result<HashMap<VmId, Listed>, HypervisorError> {
    let all = names(call, 0)?;
    let states = call.bulk_states()?;
    let persistent = names(call, sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
    let saved = match names_raw(call, sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE) {
        Err(error) if is_unsupported(&error) => HashMap::new(),
        outcome => outcome.map_err(|error| call.sort(error))?,
    };
    Ok(merge(all, states, &persistent, &saved))
}

fn names(call: &Call<'_>, flags: u32) -> Result<HashMap<VmId, String>, HypervisorError> {
    names_raw(call, flags).map_err(|error| call.sort(error))
}

fn names_raw(call: &Call<'_>, flags: u32) -> Result<HashMap<VmId, String>, Error> {
    let domains = call.ask_raw(|conn| conn.list_all_domains(flags))?;
    // Name and UUID come with the list; asking for them sends nothing.
    let named = |domain: Domain| Ok((VmId(domain.uuid()?), domain.name()?));
    domains.into_iter().map(named).collect()
}

/// A domain counts as seen if either list has it: one that is missing here would be taken for
/// gone. Without a state it is `Unknown`.
fn merge(
    all: HashMap<VmId, String>,
    states: Vec<StateRecord>,
    persistent: &HashMap<VmId, String>,
    saved: &HashMap<VmId, String>,
) -> HashMap<VmId, Listed> {
    let listed = |id: VmId, name, state| {
        let (persistent, managed_save) = (persistent.contains_key(&id), saved.contains_key(&id));
        (id, Listed { name, persistent, managed_save, state })
    };
    let mut merged: HashMap<VmId, Listed> =
        all.into_iter().map(|(id, name)| listed(id, name, None)).collect();
    merged.extend(states.into_iter().map(|record| listed(VmId(record.id), record.name, record.state)));
    merged
}

fn read_part(call: &Call<'_>, id: VmId, raw: Option<i32>) -> Result<XmlPart, HypervisorError> {
    let domain = call.domain(id)?;
    let xml = call.ask(|_| domain.xml_desc(0))?;
    let seen = raw.map_or(DomainState::Unknown, |raw| state(RawState { state: raw, reason: 0 }));
    let mut part = parse(call, &domain, &xml, seen.is_active())?;
    if seen == DomainState::Paused {
        part.disk_failed = disk_failed(call, &domain, call.ask(|_| ffi::domain_state(&domain))?)?;
    }
    Ok(part)
}

/// Of a guest that fails on a disk again as soon as it goes on, libvirt says that it is halted and
/// not for what.
fn disk_failed(call: &Call<'_>, domain: &Domain, raw: RawState) -> Result<bool, HypervisorError> {
    if state(raw) != DomainState::Paused || raw.reason != PAUSED_UNKNOWN {
        return Ok(false);
    }
    match call.ask(|_| ffi::has_disk_error(domain)) {
        // It goes on by now, or the driver does not know.
        Err(HypervisorError::Refused { source, .. }) => {
            tracing::debug!(error = %source, "the errors of a domain's disks cannot be asked");
            Ok(false)
        }
        outcome => outcome,
    }
}

/// What a domain's XML tells. Of one that is `active` the configuration is read, too.
fn parse(call: &Call<'_>, domain: &Domain, xml: &str, active: bool) -> Result<XmlPart, HypervisorError> {
    let facts = read_facts(xml).map_err(|error| call.invalid(error))?;
    let mut part = XmlPart::from(facts);
    if active {
        let config = call.ask(|_| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE))?;
        // Domains of others may be odd in what is only told; they are seen all the same.
        match (read_hardware(xml), read_hardware(&config)) {
            (Ok(live), Ok(config)) => part.waiting = waiting(&live, &config),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "size and devices of a domain cannot be read");
            }
        }
    }
    Ok(part)
}

fn look(call: &Call<'_>, id: VmId) -> Result<(DomainFacts, RawState, XmlPart), HypervisorError> {
    let domain = call.domain(id)?;
    let active = call.ask(|_| domain.is_active())?;
    let xml = call.ask(|_| domain.xml_desc(0))?;
    let mut part = parse(call, &domain, &xml, active)?;
    let persistent = call.ask(|_| domain.is_persistent())?;
    // So late that it is not older than the rest.
    let raw = call.ask(|_| ffi::domain_state(&domain))?;
    part.disk_failed = disk_failed(call, &domain, raw)?;
    // What is saved is there before its domain is off, and gone before it runs again.
    let saved = !state(raw).is_active() && has_managed_save(call, &domain)?;
    let name = domain.name().map_err(|error| call.sort(error))?;
    Ok((present(name, Some(raw), (persistent, saved), part.clone()), raw, part))
}

/// Not where the driver cannot save at all.
pub(super) fn has_managed_save(call: &Call<'_>, domain: &Domain) -> Result<bool, HypervisorError> {
    match call.ask_raw(|_| domain.has_managed_save(0)) {
        Err(error) if is_unsupported(&error) => Ok(false),
        outcome => outcome.map_err(|error| call.sort(error)),
    }
}

/// The facts of a domain that exists.
pub(super) fn present(
    name: String,
    raw: Option<RawState>,
    (persistent, managed_save): (bool, bool),
    part: XmlPart,
) -> DomainFacts {
    let state = raw.map_or(DomainState::Unknown, state);
    let reason = raw.map_or(0, |raw| raw.reason);
    let on_io_error = state == DomainState::Paused && reason == PAUSED_UNKNOWN && part.disk_failed;
    DomainFacts {
        name,
        state,
        reason: if on_io_error { PAUSED_BY_IO_ERROR } else { reason },
        persistent,
        managed_save,
        channel: part.channel,
        interfaces: part.interfaces,
        waiting: part.waiting,
        about: part.about,
    }
}

/// libvirt's numbers as a state. What a later libvirt may add is `Unknown`. A domain whose process
/// died is "shut off", with the crash as the reason: there is nothing left to destroy. "Crashed" is
/// only one whose remains were kept.
pub(super) fn state(raw: RawState) -> DomainState {
    match u32::try_from(raw.state).unwrap_or(sys::VIR_DOMAIN_NOSTATE) {
        sys::VIR_DOMAIN_RUNNING => DomainState::Running,
        sys::VIR_DOMAIN_BLOCKED => DomainState::Blocked,
        sys::VIR_DOMAIN_PAUSED => DomainState::Paused,
        sys::VIR_DOMAIN_SHUTDOWN => DomainState::ShuttingDown,
        sys::VIR_DOMAIN_SHUTOFF => DomainState::Shutoff,
        sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
        sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Suspended,
        _ => DomainState::Unknown,
    }
}

fn chain(error: &HypervisorError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: VmId, state: Option<RawState>) -> StateRecord {
        StateRecord { id: id.uuid(), name: "a".to_owned(), state }
    }

    #[test]
    fn nobody_is_lost_between_two_lists() {
        let [both, only_listed, only_stated, stateless] = std::array::from_fn(|_| VmId::generate());
        let running = Some(RawState { state: 1, reason: 2 });
        let all = [both, only_listed, stateless].into_iter().map(|id| (id, "a".to_owned())).collect();
        let states = vec![record(both, running), record(only_stated, running), record(stateless, None)];
        let persistent = HashMap::from([(both, "a".to_owned())]);
        let merged = merge(all, states, &persistent, &HashMap::from([(stateless, "a".to_owned())]));
        let of = |id| merged.get(&id).map(|listed: &Listed| (listed.state, listed.persistent));
        assert_eq!(of(both), Some((running, true)));
        assert_eq!(of(only_listed), Some((None, false)));
        assert_eq!(of(only_stated), Some((running, false)));
        assert_eq!(of(stateless), Some((None, false)));
        assert!(merged[&stateless].managed_save && !merged[&both].managed_save);
    }

    #[test]
    fn a_halt_without_a_reason_has_one_where_a_disk_fails() {
        let reason = |state, reason, disk_failed| {
            let part = XmlPart { disk_failed, ..XmlPart::default() };
            present("a".to_owned(), Some(RawState { state, reason }), (true, false), part).reason
        };
        assert_eq!(reason(3, 0, true), 5);
        assert_eq!(reason(3, 0, false), 0);
        assert_eq!(reason(3, 1, true), 1, "somebody halted it");
        assert_eq!(reason(1, 0, true), 0, "it goes on by now");
    }

    #[test]
    fn states_are_libvirts() {
        let expected = [
            DomainState::Unknown,
            DomainState::Running,
            DomainState::Blocked,
            DomainState::Paused,
            DomainState::ShuttingDown,
            DomainState::Shutoff,
            DomainState::Crashed,
            DomainState::Suspended,
            DomainState::Unknown,
        ];
        for (number, expected) in (0..).zip(expected) {
            assert_eq!(state(RawState { state: number, reason: 1 }), expected, "{number}");
        }
        assert_eq!(state(RawState { state: -1, reason: 0 }), DomainState::Unknown);
        assert_eq!(state(RawState { state: 5, reason: 3 }), DomainState::Shutoff, "its process died");
    }
}
