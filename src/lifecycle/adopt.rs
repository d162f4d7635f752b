//! Domains that others made: seen, taken under management, given back.

use std::path::PathBuf;

use chrono::Utc;

use super::{Lifecycle, LifecycleError};
use crate::{
    access::{Action, Actor, Denied, authorize},
    hypervisor::DomainDescription,
    store::{FoundVm, NewVm, Page, PageOf, StoreError},
    vm::{
        Base, DesiredPower, DomainFacts, DomainState, Firmware, IdentityChange, Image, ImageFormat,
        Milestones, NetworkAttachment, NoteFacts, Operation, OperationId, Origin, OsFamily, Plugged,
        PowerKeeping, Provisioning, ResourceName, Unattended, UserId, VmChange, VmId, VmRecord, VmSpec,
        truncate_to_micros,
    },
};

impl Lifecycle {
    /// The host's domains that are no VMs of any controller in this database, in the order of their
    /// UUIDs: one look at everything, and one statement.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn unmanaged(
        &self,
        actor: &Actor,
        page: Page,
    ) -> Result<PageOf<(VmId, DomainFacts)>, LifecycleError> {
        admins_only(actor)?;
        let seen = self.hypervisor.observe_all().await.map_err(LifecycleError::Hypervisor)?;
        let ids: Vec<VmId> = seen.domains.keys().copied().collect();
        // After the look: what became a VM meanwhile is none of theirs.
        let known = self.store.known_vms(&ids).await.map_err(LifecycleError::Store)?;
        let after = page.after.map(VmId);
        let mut nodes: Vec<_> = seen
            .domains
            .into_iter()
            .filter(|(id, _)| !known.contains(id) && after.is_none_or(|after| id.uuid() > after.uuid()))
            .collect();
        nodes.sort_by_key(|(id, _)| id.uuid());
        let first = usize::try_from(page.first).unwrap_or(usize::MAX);
        let has_next = nodes.len() > first;
        nodes.truncate(first);
        Ok(PageOf { nodes, has_next })
    }

    /// Takes a domain that others made under management, for `owner` or for who asks.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn adopt(
        &self,
        actor: &Actor,
        id: VmId,
        owner: Option<UserId>,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        admins_only(actor)?;
        let owner = owner.unwrap_or(actor.user);
        if self.store.user(owner).await.map_err(LifecycleError::Store)?.is_none() {
            return Err(LifecycleError::Invalid {
                field: "ownerId",
                reason: "there is no such user".to_owned(),
            });
        }
        let known = self.store.known_vms(&[id]).await.map_err(LifecycleError::Store)?;
        if !known.is_empty() {
            return Err(LifecycleError::AlreadyManaged(id));
        }
        let described = self.hypervisor.describe(id).await.map_err(LifecycleError::Hypervisor)?;
        let domain = described.ok_or(LifecycleError::DomainNotFound(id))?;
        let default_pool = &self.config.default_pool;
        let (spec, power) = adoptable(id, &domain, default_pool).map_err(LifecycleError::NotAdoptable)?;
        let now = truncate_to_micros(Utc::now());
        // Nothing of it is ours to make or to install.
        let milestones = Milestones {
            disk_created: Some(now),
            seed_written: None,
            defined: Some(now),
            first_started: Some(now),
            system_installed: None,
            boot_replaced: None,
            first_seen: None,
            installed: Some(now),
            seed_scrubbed: Some(now),
        };
        let vm = NewVm { id, host: self.host, owner, spec };
        let found = FoundVm { vm, power, milestones, created_at: now, resources: Vec::new() };
        let stored = self.store.adopt_vm(&found, OperationId::generate(), actor.user, now).await;
        let accepted = stored.map_err(|error| match error {
            StoreError::NameTaken => LifecycleError::NameTaken(found.vm.spec.name.to_string()),
            StoreError::IdTaken => LifecycleError::AlreadyManaged(id),
            other => LifecycleError::Store(other),
        })?;
        self.waker.wake(id);
        Ok(accepted)
    }

    /// Gives an adopted domain back: what it was given is taken from it, and the VM is forgotten.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn release(&self, actor: &Actor, vm: VmId) -> Result<(VmRecord, Operation), LifecycleError> {
        self.authorize(actor, vm, Action::ControlVm).await?;
        admins_only(actor)?;
        self.change(actor, vm, VmChange::Identity(IdentityChange::Release)).await
    }
}

fn admins_only(actor: &Actor) -> Result<(), LifecycleError> {
    authorize(actor, Action::OthersDomains).map_err(|denied| match denied {
        Denied::NotFound => LifecycleError::Forbidden("this is for admins"),
        Denied::Forbidden(why) => LifecycleError::Forbidden(why),
    })
}

/// What a domain is as a VM, and the power it is in; or why it cannot be one.
fn adoptable(id: VmId, domain: &DomainDescription, pool: &str) -> Result<(VmSpec, DesiredPower), String> {
    let facts = &domain.facts;
    if !facts.persistent {
        return Err(
            "it is transient: its configuration ends with it; define it first (virsh define)".to_owned()
        );
    }
    if let Some(note) = &domain.note {
        return Err(if note.id.is_some() && matches!(facts.about.note, NoteFacts::Present(_)) {
            "it carries this controller's metadata; restore it with `infinibayd db rebuild`".to_owned()
        } else {
            "it carries the metadata of another VM, of which it is a copy; remove that first \
             (virsh metadata DOMAIN --uri urn:infinibay:domain --remove --config)"
                .to_owned()
        });
    }
    let socket = facts.channel.as_ref().and_then(|channel| channel.path.file_name()?.to_str());
    if socket.and_then(VmId::from_socket_name).is_some_and(|named| named != id) {
        return Err(
            "its agent channel's socket is another VM's, of whose domain it may be a copy; take the \
                    channel out first (`infinibayd channel remove`)"
                .to_owned(),
        );
    }
    let name = facts
        .name
        .parse()
        .map_err(|error| format!("its name cannot be a VM's ({error}); rename it first (virsh domrename)"))?;
    let power = match facts.state {
        DomainState::Unknown => return Err("its state is not known now; try again".to_owned()),
        state if state.is_active() => DesiredPower::Running,
        _ => DesiredPower::Stopped,
    };
    let (Some(vcpus), Some(memory_kib)) = (facts.about.vcpus, facts.about.memory_kib) else {
        return Err("its processors or its memory cannot be read".to_owned());
    };
    let network = facts.interfaces.iter().find_map(|interface| interface.network.as_deref());
    let network = network.and_then(|name| name.parse().ok());
    let placeholder = |text: &str| -> Result<ResourceName, String> {
        text.parse().map_err(|error| format!("{text:?} is no name: {error}"))
    };
    let spec = VmSpec {
        devices: Plugged::default(),
        keeping: PowerKeeping::default(),
        name,
        firmware: Firmware::Bios,
        tpm: false,
        base: Base::Image(Image {
            name: placeholder("adopted")?,
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::None,
            disk: PathBuf::new(),
            format: ImageFormat::Raw,
            virtual_bytes: 0,
            sha256: String::new(),
            kernel: None,
        }),
        vcpus,
        memory_mib: memory_kib / 1024,
        disk_bytes: 0,
        pool: placeholder(pool)?,
        network: network.map_or(NetworkAttachment::None, NetworkAttachment::Network),
        unattended: Unattended::default(),
        origin: Origin::Adopted { macs: facts.interfaces.iter().map(|card| card.mac.clone()).collect() },
    };
    Ok((spec, power))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain_xml::find_note,
        vm::{ChannelFacts, DomainAbout, InterfaceFacts},
    };

    fn domain() -> DomainDescription {
        let card = |mac: &str, network: Option<&str>| InterfaceFacts {
            mac: mac.to_owned(),
            network: network.map(str::to_owned),
        };
        let facts = DomainFacts {
            managed_save: false,
            waiting: Vec::new(),
            name: "theirs".to_owned(),
            state: DomainState::Running,
            reason: 1,
            persistent: true,
            channel: None,
            interfaces: vec![card("52:54:00:00:00:01", None), card("52:54:00:00:00:02", Some("lan"))],
            about: DomainAbout { memory_kib: Some(2048), vcpus: Some(2), note: NoteFacts::Absent },
        };
        DomainDescription { facts, note: None }
    }

    #[test]
    fn a_domain_is_taken_as_it_is() {
        let (spec, power) = adoptable(VmId::generate(), &domain(), "default").unwrap();
        assert_eq!(power, DesiredPower::Running);
        assert_eq!((spec.vcpus, spec.memory_mib, spec.disk_bytes), (2, 2, 0));
        assert_eq!(spec.network, NetworkAttachment::Network("lan".parse().unwrap()));
        let macs = vec!["52:54:00:00:00:01".to_owned(), "52:54:00:00:00:02".to_owned()];
        assert_eq!(spec.origin, Origin::Adopted { macs });
        let mut off = domain();
        off.facts.state = DomainState::Shutoff;
        assert_eq!(adoptable(VmId::generate(), &off, "default").unwrap().1, DesiredPower::Stopped);
    }

    #[test]
    fn a_socket_of_another_vm_is_not_taken_with_a_copy_of_its_domain() {
        let (id, original) = (VmId::generate(), VmId::generate());
        let with = |name: &str| {
            let mut domain = domain();
            let path = std::path::Path::new("/run/../run/infinibay").join(name);
            domain.facts.channel = Some(ChannelFacts { path, guest_connected: None });
            adoptable(id, &domain, "default")
        };
        assert!(with(&original.socket_name()).unwrap_err().contains("another VM's"));
        assert!(with(&id.socket_name()).is_ok() && with("theirs.sock").is_ok());
    }

    #[test]
    fn what_cannot_be_a_vm_is_refused_with_the_reason() {
        let refused = |change: fn(&mut DomainDescription)| {
            let mut domain = domain();
            change(&mut domain);
            adoptable(VmId::generate(), &domain, "default").unwrap_err()
        };
        assert!(refused(|domain| domain.facts.persistent = false).contains("transient"));
        assert!(refused(|domain| domain.facts.name = "a b".to_owned()).contains("rename"));
        assert!(refused(|domain| domain.facts.state = DomainState::Unknown).contains("not known"));
        assert!(refused(|domain| domain.facts.about.vcpus = None).contains("cannot be read"));
        let element = "<domain><uuid>018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d</uuid><metadata><vm xmlns='urn:infinibay:domain' id='018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d'/></metadata></domain>";
        let noted = |note: NoteFacts| {
            let mut domain = domain();
            domain.note = find_note(element).unwrap();
            domain.facts.about.note = note;
            adoptable(VmId::generate(), &domain, "default").unwrap_err()
        };
        assert!(noted(NoteFacts::Present(String::new())).contains("db rebuild"));
        assert!(noted(NoteFacts::Absent).contains("copy"));
    }
}
