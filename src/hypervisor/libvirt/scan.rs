//! Looking: at everything with a constant number of calls, or at one domain afresh. Both end in
//! the same [`present`], so that what an event shows and what a scan shows cannot differ.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use virt::{error::Error, sys};

use super::{
    LibvirtHypervisor,
    cache::XmlPart,
    ffi::{self, RawState, StateRecord},
    gate::Lane,
    session::{Call, absent_as_none},
};
use crate::{
    domain_xml::read_facts,
    hypervisor::{HostObservation, HypervisorError},
    vm::{DomainFacts, DomainObservation, DomainState, VmId},
};

/// A domain as the bulk calls show it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    name: String,
    persistent: bool,
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
            domains.insert(id, present(listed.name, state, listed.persistent, part.unwrap_or_default()));
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
                let Some(xml) = absent_as_none(read_xml(call, id))? else { return Ok(false) };
                cache.keep(id, state, parse(call, &xml)?);
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

/// Every domain, by three calls.
fn list(call: &Call<'_>) -> Result<HashMap<VmId, Listed>, HypervisorError> {
    let all = names(call, 0)?;
    let states = call.bulk_states()?;
    let persistent = names(call, sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
    Ok(merge(all, states, &persistent))
}

fn names(call: &Call<'_>, flags: u32) -> Result<HashMap<VmId, String>, HypervisorError> {
    let domains = call.ask(|conn| conn.list_all_domains(flags))?;
    // Name and UUID come with the list; asking for them sends nothing.
    let named = |domain: virt::domain::Domain| Ok((VmId(domain.uuid()?), domain.name()?));
    domains.into_iter().map(named).collect::<Result<_, Error>>().map_err(|error| call.sort(error))
}

/// A domain counts as seen if either list has it: one that is missing here would be taken for
/// gone. Without a state it is `Unknown`.
fn merge(
    all: HashMap<VmId, String>,
    states: Vec<StateRecord>,
    persistent: &HashMap<VmId, String>,
) -> HashMap<VmId, Listed> {
    let listed =
        |id: VmId, name, state| (id, Listed { name, persistent: persistent.contains_key(&id), state });
    let mut merged: HashMap<VmId, Listed> =
        all.into_iter().map(|(id, name)| listed(id, name, None)).collect();
    merged.extend(states.into_iter().map(|record| listed(VmId(record.id), record.name, record.state)));
    merged
}

fn read_xml(call: &Call<'_>, id: VmId) -> Result<String, HypervisorError> {
    let domain = call.domain(id)?;
    call.ask(|_| domain.xml_desc(0))
}

fn parse(call: &Call<'_>, xml: &str) -> Result<XmlPart, HypervisorError> {
    read_facts(xml).map(XmlPart::from).map_err(|error| call.invalid(error))
}

fn look(call: &Call<'_>, id: VmId) -> Result<(DomainFacts, RawState, XmlPart), HypervisorError> {
    let domain = call.domain(id)?;
    let xml = call.ask(|_| domain.xml_desc(0))?;
    let part = parse(call, &xml)?;
    let persistent = call.ask(|_| domain.is_persistent())?;
    // Last, so that it is not older than the rest.
    let raw = call.ask(|_| ffi::domain_state(&domain))?;
    let name = domain.name().map_err(|error| call.sort(error))?;
    Ok((present(name, Some(raw), persistent, part.clone()), raw, part))
}

/// The facts of a domain that exists.
pub(super) fn present(name: String, raw: Option<RawState>, persistent: bool, part: XmlPart) -> DomainFacts {
    DomainFacts {
        name,
        state: raw.map_or(DomainState::Unknown, state),
        reason: raw.map_or(0, |raw| raw.reason),
        persistent,
        channel: part.channel,
        interfaces: part.interfaces,
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
        let merged = merge(all, states, &persistent);
        let of = |id| merged.get(&id).map(|listed: &Listed| (listed.state, listed.persistent));
        assert_eq!(of(both), Some((running, true)));
        assert_eq!(of(only_listed), Some((None, false)));
        assert_eq!(of(only_stated), Some((running, false)));
        assert_eq!(of(stateless), Some((None, false)));
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
