//! From what a domain's metadata says to a VM that may be stored again. Whoever may use libvirt can
//! write such metadata, so it is checked like a stranger's request: above all, nothing in it may
//! make a later deletion remove what is not this VM's.

mod devices;

pub use devices::with_devices;

use std::path::Path;

use chrono::{DateTime, Utc};

use crate::{
    domain_xml::{FoundNote, METADATA_SCHEMA},
    hypervisor::DomainDescription,
    install,
    store::{FoundVm, NewVm},
    vm::{
        Base, DesiredPower, DomainState, HostId, Image, Installation, Milestones, NoteFacts, NotedResource,
        Origin, Plugged, Resource, ResourceKind, ResourceName, ResourceState, UserId, VmId, VmNote,
        truncate_to_micros,
    },
};

/// Longest note read, bytes.
const MAX_NOTE: usize = 1 << 20;
/// Most things made for one VM, and most cards of one.
const MAX_PARTS: usize = 256;
/// Longest description of an image, characters.
const MAX_DESCRIPTION: usize = 4096;

/// Where this controller puts its files.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Seed media.
    pub seeds_dir: &'a Path,
    /// Serial console logs.
    pub console_dir: &'a Path,
    /// Discs of the library.
    pub discs_dir: &'a Path,
}

/// Whose a VM is, as its domain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedOwner {
    /// The controller's host: another than ours where another controller made the VM, or ours did
    /// before it lost its state directory.
    pub host: HostId,
    /// The user's id.
    pub id: UserId,
    /// The user's name; unchecked, maybe empty.
    pub name: String,
}

/// The controller's host that a domain's metadata names, whatever else is in it.
#[must_use]
pub fn noted_host(note: &FoundNote) -> Option<HostId> {
    #[derive(serde::Deserialize)]
    struct Whose {
        host: HostId,
    }
    let text = Some(&note.text).filter(|text| text.len() <= MAX_NOTE)?;
    serde_json::from_str(text).ok().map(|Whose { host }| host)
}

/// A VM as its domain tells it, checked. Its owner is the noted one, who may not exist.
///
/// # Errors
/// Why it cannot be restored, for people.
pub fn noted_vm(
    id: VmId,
    domain: &DomainDescription,
    note: &FoundNote,
    host: HostId,
    places: Places<'_>,
    now: DateTime<Utc>,
) -> Result<(FoundVm, NotedOwner), String> {
    let facts = &domain.facts;
    if note.id != Some(id) || !matches!(facts.about.note, NoteFacts::Present(_)) {
        return Err("its metadata is that of another domain, of which it is a copy".to_owned());
    }
    if note.schema != METADATA_SCHEMA {
        return Err(format!("its metadata is of version {:?}, which holds no VM", note.schema));
    }
    if note.text.len() > MAX_NOTE {
        return Err(format!("its metadata is longer than {MAX_NOTE} bytes"));
    }
    if !facts.persistent {
        return Err("it is transient".to_owned());
    }
    let noted: VmNote =
        serde_json::from_str(&note.text).map_err(|error| format!("its metadata cannot be read: {error}"))?;
    let mut spec = noted.spec;
    if spec.is_adopted() != note.is_adopted() {
        return Err("its metadata contradicts itself on whether it was adopted".to_owned());
    }
    // What libvirt calls it is what it is called.
    spec.name = facts.name.parse().map_err(|error| format!("its name cannot be a VM's: {error}"))?;
    if let Origin::Adopted { macs } = &spec.origin {
        if macs.len() > MAX_PARTS || !macs.iter().all(|mac| is_mac(mac)) {
            return Err("its metadata holds what is no address of a network card".to_owned());
        }
    } else {
        spec.check().map_err(|error| error.to_string())?;
    }
    // Never noted: what is plugged in names volumes, and one named here could be anybody's, to be
    // deleted as it is unplugged. See `with_devices`.
    spec.devices = Plugged::default();
    spec.unattended = spec.unattended.without_secrets();
    install::check(&spec.unattended).map_err(|wrong| wrong.to_string())?;
    match &mut spec.base {
        Base::Image(image) => check_image(image)?,
        Base::Installation(installation) => check_installation(installation)?,
    }
    if noted.owner.uuid().is_nil() || noted.owner.uuid().is_max() {
        return Err("its owner is nobody".to_owned());
    }
    let resources = resources(id, &noted.resources, places)?;
    let power = match facts.state {
        DomainState::Unknown => return Err("its state is not known now; try again".to_owned()),
        state if state.is_active() => DesiredPower::Running,
        _ => DesiredPower::Stopped,
    };
    // A time to come would put off what is reckoned from it.
    let past = |at: DateTime<Utc>| truncate_to_micros(at.min(now));
    let created_at = past(noted.created_at);
    let installed = noted.installed_at.map(past).or(spec.is_adopted().then_some(created_at));
    // What was copied was on the disk from the beginning.
    let put_on = spec.cloned_from().map_or(installed, |_| Some(created_at));
    let has_seed = resources.iter().any(|resource| resource.kind == ResourceKind::Seed);
    let milestones = Milestones {
        disk_created: Some(created_at),
        seed_written: has_seed.then_some(created_at),
        defined: Some(created_at),
        first_started: installed,
        system_installed: put_on.filter(|_| spec.installation().is_some()),
        boot_replaced: put_on.filter(|_| spec.installation().is_some()),
        first_seen: installed.filter(|_| !spec.is_adopted()),
        installed,
        seed_scrubbed: noted.seed_scrubbed_at.map(past),
    };
    let owner = NotedOwner { host: noted.host, id: noted.owner, name: noted.owner_name };
    let vm = NewVm { id, host, owner: owner.id, spec };
    Ok((FoundVm { vm, power, milestones, created_at, resources }, owner))
}

fn check_image(image: &mut Image) -> Result<(), String> {
    let described = image.description.chars();
    if described.clone().count() > MAX_DESCRIPTION || described.clone().any(char::is_control) {
        return Err("its image's description is no line of text".to_owned());
    }
    if image.sha256.len() > 64 || !image.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("its image's digest is none".to_owned());
    }
    image.disk = std::path::PathBuf::new();
    image.kernel = None;
    Ok(())
}

/// Of an installation that is over nothing is used any more; one that is not cannot go on from what a
/// domain says of it.
fn check_installation(installation: &mut Installation) -> Result<(), String> {
    installation.disc.path = std::path::PathBuf::new();
    if let Some(drivers) = &mut installation.drivers {
        drivers.path = std::path::PathBuf::new();
    }
    installation.token = None;
    let texts = [
        installation.label.as_deref(),
        installation.mirror.as_deref(),
        installation.edition.as_deref(),
        installation.medium_language.as_deref(),
        installation.kernel.as_ref().map(|files| files.kernel.as_str()),
        installation.kernel.as_ref().map(|files| files.initrd.as_str()),
    ];
    let wrong = |text: &str| text.len() > MAX_DESCRIPTION || text.chars().any(char::is_control);
    if texts.into_iter().flatten().any(wrong) {
        return Err("what it says of its installation is no line of text".to_owned());
    }
    Ok(())
}

/// The things that deletion will remove: only such as carry the VM's id, and lie where we put them.
fn resources(id: VmId, noted: &[NotedResource], places: Places<'_>) -> Result<Vec<Resource>, String> {
    if noted.len() > MAX_PARTS {
        return Err(format!("its metadata names more than {MAX_PARTS} things"));
    }
    let check = |resource: &NotedResource| {
        let NotedResource { kind, place, name } = resource;
        let is_ours = match kind {
            ResourceKind::Volume => {
                let rest = name.strip_prefix(&format!("infinibay-{id}"));
                place.parse::<ResourceName>().is_ok()
                    && name.parse::<ResourceName>().is_ok()
                    && rest.is_some_and(|rest| rest.starts_with(['.', '-', '_']))
            }
            ResourceKind::Seed => ["iso", "kernel", "initrd"]
                .iter()
                .any(|ending| is_file(place, name, places.seeds_dir, &format!("vm-{id}.{ending}"))),
            ResourceKind::ConsoleLog => is_file(place, name, places.console_dir, &format!("vm-{id}.log")),
        };
        let (vm, kind, place, name) = (id, *kind, place.clone(), name.clone());
        let made = Resource { vm, kind, place, name, state: ResourceState::Created };
        is_ours.then_some(made).ok_or_else(|| {
            format!("its metadata claims {:?} in {:?}, which is not this VM's", resource.name, resource.place)
        })
    };
    noted.iter().map(check).collect()
}

fn is_file(place: &str, name: &str, dir: &Path, expected: &str) -> bool {
    place == dir.display().to_string() && name == expected
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<_> = text.split(':').collect();
    bytes.len() == 6
        && bytes.iter().all(|byte| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
