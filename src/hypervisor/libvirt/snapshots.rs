//! Snapshots inside a domain's qcow2 disks. No file is made beside them: what deletes the disk
//! deletes its snapshots.

use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use quick_xml::{
    Writer,
    events::{BytesStart, BytesText, Event},
};
use virt::{domain::Domain, domain_snapshot::DomainSnapshot, sys};

use super::{
    LibvirtHypervisor,
    error::is_unsupported,
    gate::{Lane, Subject},
    session::{Call, absent_as_none},
};
use crate::{
    domain_xml::document::Document,
    failpoint::failpoint,
    hypervisor::{HypervisorError, RevertTo, SnapshotRequest, Snapshots},
    vm::{Snapshot, SnapshotName, SnapshotState, SnapshotTag, VmId},
};

/// Most snapshots that are listed. Others may have made more than we would.
const MAX_LISTED: usize = 1024;

#[async_trait]
impl Snapshots for LibvirtHypervisor {
    async fn snapshots(&self, id: VmId) -> Result<Vec<Snapshot>, HypervisorError> {
        let operation = format!("list the snapshots of domain {id}");
        self.call(operation, Some(Subject::Snapshots(id)), Lane::Ask, move |call| list(call, id)).await
    }

    async fn snapshot_names(&self, id: VmId) -> Result<Vec<String>, HypervisorError> {
        let operation = format!("name the snapshots of domain {id}");
        self.call(operation, Some(Subject::Snapshots(id)), Lane::Work, move |call| names(call, id)).await
    }

    async fn snapshot(&self, id: VmId, name: &SnapshotName) -> Result<Option<Snapshot>, HypervisorError> {
        let (operation, name) = (format!("look up snapshot {name:?} of domain {id}"), name.clone());
        self.call(operation, Some(Subject::Snapshots(id)), Lane::Work, move |call| find(call, id, &name))
            .await
    }

    async fn create_snapshot(&self, id: VmId, request: SnapshotRequest) -> Result<(), HypervisorError> {
        self.on_domain("take a snapshot of", id, move |call| create(call, id, &request)).await
    }

    async fn revert_snapshot(
        &self,
        id: VmId,
        name: &SnapshotName,
        to: RevertTo,
    ) -> Result<(), HypervisorError> {
        let name = name.clone();
        self.on_domain("put back", id, move |call| revert(call, id, &name, to)).await
    }

    async fn delete_snapshot(
        &self,
        id: VmId,
        name: &SnapshotName,
        children: bool,
    ) -> Result<(), HypervisorError> {
        let name = name.clone();
        self.on_domain("delete a snapshot of", id, move |call| delete(call, id, &name, children)).await
    }

    async fn instance(&self, id: VmId) -> Result<Option<u32>, HypervisorError> {
        // The number comes with the handle.
        self.on_domain("look up", id, move |call| Ok(call.domain(id)?.id())).await
    }
}

fn list(call: &Call<'_>, id: VmId) -> Result<Vec<Snapshot>, HypervisorError> {
    let domain = call.domain(id)?;
    let found = call.ask(|_| domain.list_all_snapshots(0))?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    if found.len() > MAX_LISTED {
        return Err(
            call.invalid(format_args!("there are {} snapshots, more than can be listed", found.len()))
        );
    }
    let current = absent_as_none(call.ask(|_| domain.current_snapshot(0)))?;
    let current = current.map(|current| current.name()).transpose().map_err(|error| call.sort(error))?;
    let mut snapshots = Vec::with_capacity(found.len());
    for handle in &found {
        // One that was deleted meanwhile is not there.
        if let Some(snapshot) = absent_as_none(read(call, handle, current.as_deref()))? {
            snapshots.push(snapshot);
        }
    }
    snapshots.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    Ok(snapshots)
}

fn names(call: &Call<'_>, id: VmId) -> Result<Vec<String>, HypervisorError> {
    let domain = call.domain(id)?;
    let found = call.ask(|_| domain.list_all_snapshots(0))?;
    // A name comes with its handle.
    let names: Result<_, _> = found.iter().map(DomainSnapshot::name).collect();
    names.map_err(|error| call.sort(error))
}

fn find(call: &Call<'_>, id: VmId, name: &SnapshotName) -> Result<Option<Snapshot>, HypervisorError> {
    let domain = call.domain(id)?;
    // libvirt lists a snapshot from when it begins to take it.
    if is_at_work(call, &domain)? {
        let operation = format!("{} (a job of the domain is under way)", call.operation());
        return Err(HypervisorError::Deadline { operation, limit: Duration::ZERO });
    }
    let Some(handle) = lookup(call, &domain, name)? else { return Ok(None) };
    let current = absent_as_none(call.ask(|_| domain.current_snapshot(0)))?;
    let current = current.map(|current| current.name()).transpose().map_err(|error| call.sort(error))?;
    absent_as_none(read(call, &handle, current.as_deref()))
}

/// Whether a job of the domain is under way: ours of before a crash, or anybody's.
fn is_at_work(call: &Call<'_>, domain: &Domain) -> Result<bool, HypervisorError> {
    let none = i32::try_from(sys::VIR_DOMAIN_JOB_NONE).unwrap_or(0);
    match call.ask_raw(|_| domain.job_info()) {
        Ok(job) => Ok(job.r#type != none),
        // A driver without jobs, or a domain that is off and has none.
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => match call.sort(error) {
            error if super::error::is_wrong_state(&error) => Ok(false),
            error => Err(error),
        },
    }
}

fn lookup(
    call: &Call<'_>,
    domain: &Domain,
    name: &SnapshotName,
) -> Result<Option<DomainSnapshot>, HypervisorError> {
    absent_as_none(call.ask(|_| Domain::lookup_snapshot_by_name(domain, name.as_str(), 0)))
}

fn create(call: &Call<'_>, id: VmId, request: &SnapshotRequest) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    let xml = snapshot_xml(request).map_err(|error| call.invalid(error))?;
    call.ask(|_| domain.create_snapshot_xml(&xml, 0).map(drop))
}

fn revert(call: &Call<'_>, id: VmId, name: &SnapshotName, to: RevertTo) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    let handle = call.ask(|_| Domain::lookup_snapshot_by_name(&domain, name.as_str(), 0))?;
    let snapshot = read(call, &handle, None)?;
    let kept_running = snapshot.state != SnapshotState::Shutoff;
    // Forced: where the machine looks different now, its process is replaced; that is what is wanted.
    let flags = sys::VIR_DOMAIN_SNAPSHOT_REVERT_FORCE
        | match (to, kept_running) {
            (RevertTo::Running, _) => sys::VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING,
            // Not a moment of that guest's life: it may stand with frozen file systems.
            (RevertTo::Off, true) => sys::VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED,
            (RevertTo::Off, false) => 0,
        };
    call.ask(|_| handle.revert(flags))?;
    if to == RevertTo::Off && kept_running {
        failpoint!("revert-snapshot.paused");
        super::power::destroy(call, id)?;
    }
    Ok(())
}

fn delete(call: &Call<'_>, id: VmId, name: &SnapshotName, children: bool) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    let Some(handle) = lookup(call, &domain, name)? else { return Ok(()) };
    let flags = if children { sys::VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN } else { 0 };
    absent_as_none(call.ask(|_| handle.delete(flags))).map(drop)
}

fn read(
    call: &Call<'_>,
    handle: &DomainSnapshot,
    current: Option<&str>,
) -> Result<Snapshot, HypervisorError> {
    let xml = call.ask(|_| handle.xml_desc(0))?;
    parse(&xml, current).map_err(|error| call.invalid(error))
}

fn parse(xml: &str, current: Option<&str>) -> Result<Snapshot, String> {
    let document = Document::parse(xml).map_err(|error| error.to_string())?;
    let root = document.root();
    let text = |parent, name| {
        let element = document.children(parent, name).next();
        element.map(|element| document.text_of(element)).transpose().map_err(|error| error.to_string())
    };
    let name = text(root, "name")?.ok_or("the snapshot has no name")?;
    let parent = match document.children(root, "parent").next() {
        Some(parent) => text(parent, "name")?,
        None => None,
    };
    let kept = text(root, "description")?.unwrap_or_default();
    let (description, tag) = SnapshotTag::split(&kept);
    let seconds = text(root, "creationTime")?.and_then(|seconds| seconds.trim().parse().ok());
    let created_at = seconds
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .ok_or("the snapshot does not say when it was taken")?;
    let state = match text(root, "state")?.as_deref() {
        Some("running" | "blocked" | "paused") if tag.is_none_or(|tag| tag.memory) => SnapshotState::Running,
        Some("running" | "blocked" | "paused" | "disk-snapshot") => SnapshotState::Disk,
        _ => SnapshotState::Shutoff,
    };
    Ok(Snapshot {
        current: current == Some(name.as_str()),
        name,
        parent,
        description: description.to_owned(),
        created_at,
        state,
        tag,
    })
}

/// The XML of a snapshot to be taken.
///
/// # Errors
/// Why it cannot be written.
pub fn snapshot_xml(request: &SnapshotRequest) -> Result<String, String> {
    let description = request.tag.append_to(&request.description);
    let mut writer = Writer::new(Vec::new());
    let mut write = || -> std::io::Result<()> {
        let root = BytesStart::new("domainsnapshot");
        writer.write_event(Event::Start(root.borrow()))?;
        for (name, content) in [("name", request.name.as_str()), ("description", &description)] {
            let start = BytesStart::new(name);
            writer.write_event(Event::Start(start.borrow()))?;
            writer.write_event(Event::Text(BytesText::new(content)))?;
            writer.write_event(Event::End(start.to_end()))?;
        }
        writer.write_event(Event::End(root.to_end()))
    };
    write().map_err(|error| error.to_string())?;
    String::from_utf8(writer.into_inner()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{OperationId, Quiesced};

    fn request(description: &str, memory: bool) -> SnapshotRequest {
        SnapshotRequest {
            name: "before".parse().unwrap(),
            description: description.to_owned(),
            tag: SnapshotTag { operation: OperationId::generate(), memory, quiesced: Quiesced::Yes },
        }
    }

    /// As libvirt gives it back.
    fn kept(request: &SnapshotRequest, state: &str) -> String {
        let facts = format!(
            "<state>{state}</state><parent><name>first</name></parent><creationTime>1700000000</creationTime>\
             <domain><name>inner</name><description>inner</description></domain></domainsnapshot>"
        );
        snapshot_xml(request).unwrap().replace("</domainsnapshot>", &facts)
    }

    #[test]
    fn what_people_write_comes_back_as_it_was() {
        for words in ["", "a < b & \"c\"", "</description><name>x</name>", "]]>", "one\ntwo\n", "&amp;"] {
            let request = request(words, true);
            let snapshot = parse(&kept(&request, "running"), Some("before")).unwrap();
            assert_eq!(snapshot.description, words);
            assert_eq!(snapshot.tag, Some(request.tag));
            assert_eq!(snapshot.parent.as_deref(), Some("first"));
            assert!(snapshot.current);
        }
    }

    #[test]
    fn the_state_is_where_a_revert_leads() {
        let of = |memory, state: &str| parse(&kept(&request("", memory), state), None).unwrap().state;
        assert_eq!(of(true, "running"), SnapshotState::Running);
        assert_eq!(of(false, "running"), SnapshotState::Disk);
        assert_eq!(of(false, "shutoff"), SnapshotState::Shutoff);
        let others = "<domainsnapshot><name>x y/z</name><state>running</state>\
                      <creationTime>1</creationTime></domainsnapshot>";
        let others = parse(others, None).unwrap();
        assert_eq!((others.state, others.tag, others.current), (SnapshotState::Running, None, false));
        assert!(parse("<domainsnapshot><name>x</name>", None).is_err());
        assert!(parse("<domainsnapshot><name>x</name></domainsnapshot>", None).is_err());
    }
}
