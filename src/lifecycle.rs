//! What people ask of a VM: checked, stored as intent, and left to the loop.
//!
//! Whatever is accepted here can be carried out as far as the host can tell now, and is on disk
//! before it is answered. Nothing here waits for a VM.

mod adopt;
mod change;
mod clone;
mod console;
mod device;
mod power;
mod request;
mod restore;
mod snapshot;

pub use clone::CloneVm;
pub use console::{ConsoleLog, MAX_CONSOLE_BYTES};
pub use device::InsertMedium;
pub use request::{CreateVm, UnattendedRequest};
pub use restore::{NotedOwner, Places, noted_vm};

use std::sync::Arc;

use chrono::Utc;

use crate::{
    access::{Action, Actor, Denied, authorize},
    config::HypervisorConfig,
    hypervisor::{HostFacts, Hypervisor, HypervisorError},
    images::{ImageError, Images},
    reconcile::Waker,
    store::{NewVm, Store, StoreError},
    vm::{
        Base, DomainObservation, Firmware, HostId, MAX_SNAPSHOTS, NetworkAttachment, Operation, OperationId,
        Plugged, PowerKeeping, ResourceName, VmChange, VmId, VmRecord, VmSpec, WrongState,
        truncate_to_micros,
    },
};

/// Accepts requests. Clones share everything.
#[derive(Clone)]
pub struct Lifecycle {
    host: HostId,
    config: HypervisorConfig,
    store: Store,
    images: Images,
    hypervisor: Arc<dyn Hypervisor>,
    waker: Waker,
}

/// Why a request was refused. Each has a stable code at the API.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// `INVALID_INPUT`, with the field.
    #[error("{field}: {reason}")]
    Invalid {
        /// The input's field, as the API names it.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// `NAME_TAKEN`: by one of ours, or by any other domain of the host.
    #[error("a VM or domain named {0:?} exists on this host; choose another name")]
    NameTaken(String),
    /// `ID_TAKEN`.
    #[error("the id was used for another VM; leave it out, or send a new one")]
    IdTaken,
    /// `POOL_NOT_FOUND`.
    #[error("the host has no storage pool {0:?}")]
    PoolNotFound(String),
    /// `NETWORK_NOT_FOUND`.
    #[error("the host has no network {0:?}")]
    NetworkNotFound(String),
    /// `MEDIUM_NOT_FOUND`.
    #[error("pool {pool:?} has no medium {volume:?}")]
    MediumNotFound {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
    /// `MEDIUM_NOT_FOUND`.
    #[error("the library has no medium {0:?}")]
    NoSuchDisc(String),
    /// `MEDIUM_NOT_READY`.
    #[error("medium {0} is not ready; wait until its import has succeeded")]
    DiscNotReady(ResourceName),
    /// `MEDIUM_UNUSABLE`.
    #[error("medium {0} is a disk image and no disc: VMs are made of it (`createVm`)")]
    NoDisc(ResourceName),
    /// `DEVICE_NOT_FOUND`.
    #[error("the VM has no {0}")]
    DeviceNotFound(String),
    /// `TOO_MANY_DEVICES`.
    #[error("the VM has as many {0} as it can have; detach one first")]
    TooManyDevices(&'static str),
    /// `VM_NOT_FOUND`.
    #[error("there is no VM {0}")]
    NotFound(VmId),
    /// `VM_DELETING`.
    #[error("VM {0} is being deleted")]
    Deleting(VmId),
    /// `ID_TAKEN`.
    #[error("domain {0} is managed already")]
    AlreadyManaged(VmId),
    /// `DOMAIN_NOT_FOUND`.
    #[error("the host has no domain {0}")]
    DomainNotFound(VmId),
    /// `DOMAIN_NOT_ADOPTABLE`.
    #[error("the domain cannot be adopted: {0}")]
    NotAdoptable(String),
    /// `VM_ADOPTED`.
    #[error("VM {0} was made by others and adopted; give it back with `releaseDomain`")]
    Adopted(VmId),
    /// `VM_ADOPTED`.
    #[error("VM {0} was made by others and adopted: its disks are not ours to copy")]
    AdoptedSource(VmId),
    /// `WRONG_STATE`.
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// `VM_BUSY`.
    #[error("another change of the VM is under way ({stage}); wait for operation {operation} to end")]
    Busy {
        /// The other change's operation.
        operation: OperationId,
        /// What it is about.
        stage: &'static str,
    },
    /// `SNAPSHOT_EXISTS`.
    #[error("the VM has a snapshot {0:?}; choose another name")]
    SnapshotExists(String),
    /// `SNAPSHOT_NOT_FOUND`.
    #[error("the VM has no snapshot {0:?}")]
    SnapshotNotFound(String),
    /// `TOO_MANY_SNAPSHOTS`.
    #[error("the VM has {MAX_SNAPSHOTS} snapshots; delete some first")]
    TooManySnapshots,
    /// `FORBIDDEN`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// `IMAGE_NOT_FOUND`, `IMAGE_UNUSABLE`, `IMAGE_BEING_CHECKED`.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// `HYPERVISOR_UNAVAILABLE`.
    #[error("the hypervisor cannot be asked now; try again")]
    Hypervisor(#[source] HypervisorError),
    /// `INTERNAL`, with a correlation id.
    #[error("the database failed")]
    Store(#[source] StoreError),
    /// `INTERNAL`, with a correlation id.
    #[error("the console's log could not be read")]
    ConsoleLog(#[source] std::io::Error),
    /// `INTERNAL`, with a correlation id.
    #[error("the password could not be hashed")]
    Password(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LifecycleError {
    /// A refusal of `authorize`, as the caller sees it.
    #[must_use]
    pub fn denied(denied: Denied, vm: VmId) -> Self {
        match denied {
            Denied::NotFound => Self::NotFound(vm),
            Denied::Forbidden(why) => Self::Forbidden(why),
        }
    }
}

impl Lifecycle {
    /// Everything it needs.
    #[must_use]
    pub fn new(
        host: HostId,
        config: HypervisorConfig,
        store: Store,
        images: Images,
        hypervisor: Arc<dyn Hypervisor>,
        waker: Waker,
    ) -> Self {
        Self { host, config, store, images, hypervisor, waker }
    }

    /// What requests that leave something open get.
    pub(crate) fn config(&self) -> &HypervisorConfig {
        &self.config
    }

    /// Accepts a VM: intent, operation and audit row are stored before this returns.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn create(
        &self,
        actor: &Actor,
        request: CreateVm,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        authorize(actor, Action::CreateVm).map_err(|denied| match denied {
            Denied::NotFound => LifecycleError::Forbidden("VMs may not be made"),
            Denied::Forbidden(why) => LifecycleError::Forbidden(why),
        })?;
        let parsed = request.parse(&self.config)?;
        let id = parsed.id.unwrap_or_else(VmId::generate);
        // A request that is sent again finds what it made: it must not fail because the image or
        // the pool went away meanwhile. Whether it is the same request, the store decides.
        let known = match parsed.id {
            Some(id) => self.store.vm(id).await.map_err(LifecycleError::Store)?,
            None => None,
        };
        let stored = known.as_ref().map(|view| &view.record).filter(|record| record.owner == actor.user);
        let image = match stored.and_then(|record| record.spec.image()) {
            Some(image) if image.name == parsed.image => image.clone(),
            _ => self.images.get(&parsed.image).await?,
        };
        let unattended = request::unattended(request.unattended, image.os_family).await?;
        request::check_provisioning(&image, &unattended)?;
        let spec = VmSpec {
            disk_bytes: parsed.disk_bytes.unwrap_or(image.virtual_bytes),
            base: Base::Image(image),
            firmware: Firmware::default(),
            tpm: false,
            name: parsed.name,
            vcpus: parsed.vcpus,
            memory_mib: parsed.memory_mib,
            pool: parsed.pool,
            network: parsed.network,
            unattended,
            keeping: PowerKeeping::default(),
            devices: Plugged::default(),
            origin: crate::vm::Origin::Created,
        };
        spec.check().map_err(request::spec_error)?;
        if known.is_none() {
            self.check_host(parsed.id, &spec).await?;
        }
        let new = NewVm { id, host: self.host, owner: actor.user, spec };
        let created =
            self.store.create_vm(&new, OperationId::generate(), truncate_to_micros(Utc::now())).await;
        let accepted = created.map_err(|error| match error {
            StoreError::NameTaken => LifecycleError::NameTaken(new.spec.name.to_string()),
            StoreError::IdTaken => LifecycleError::IdTaken,
            StoreError::ImageGone => ImageError::NotFound(new.spec.base_name().to_string()).into(),
            other => LifecycleError::Store(other),
        })?;
        self.waker.wake(id);
        Ok(accepted)
    }

    /// Asks for the end.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn delete(&self, actor: &Actor, vm: VmId) -> Result<(VmRecord, Operation), LifecycleError> {
        self.authorize(actor, vm).await?;
        let now = truncate_to_micros(Utc::now());
        let asked = self.store.request_delete(vm, OperationId::generate(), actor.user, now).await;
        let accepted = asked.map_err(|error| changed(error, vm))?;
        self.waker.wake(vm);
        Ok(accepted)
    }

    /// Has the loop look at the VM afresh, and try again at once what waits because it failed.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn resync(&self, actor: &Actor, vm: VmId) -> Result<(), LifecycleError> {
        self.authorize(actor, vm).await?;
        self.waker.resync(vm).await;
        Ok(())
    }

    async fn authorize(&self, actor: &Actor, vm: VmId) -> Result<(), LifecycleError> {
        let found = self.store.vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = found.map(|view| view.record.owner);
        authorize(actor, Action::ControlVm { owner }).map_err(|denied| LifecycleError::denied(denied, vm))
    }

    /// What the host has to say: are name and id free among domains that others made, are pool
    /// and network there? The store has the last word on names; the loop finds out what changes
    /// later. `given` is the client's own choice of an id.
    async fn check_host(&self, given: Option<VmId>, spec: &VmSpec) -> Result<(), LifecycleError> {
        let with_id = async {
            match given {
                Some(id) => self.hypervisor.observe(id).await.map(|found| found != DomainObservation::Absent),
                None => Ok(false),
            }
        };
        let (named, taken, host) =
            tokio::join!(self.hypervisor.domain_named(spec.name.as_str()), with_id, self.hypervisor.host());
        // A VM is the domain with its id: one with the id of a stranger's domain would be that
        // domain, to be started, stopped and deleted.
        let taken = taken.map_err(LifecycleError::Hypervisor)?.then_some(LifecycleError::IdTaken);
        let named = named.map_err(LifecycleError::Hypervisor)?;
        let named = named.map(|_| LifecycleError::NameTaken(spec.name.to_string()));
        if let Some(conflict) = taken.or(named) {
            // Unless the same request has made it meanwhile.
            return match given {
                Some(id) if self.store.vm(id).await.map_err(LifecycleError::Store)?.is_some() => Ok(()),
                _ => Err(conflict),
            };
        }
        let host = host.map_err(LifecycleError::Hypervisor)?;
        check_places(&host, spec)
    }
}

/// Whether pool and network are there, and the network can be plugged into. (A pool that is not
/// active is started when a volume is made.)
fn check_places(host: &HostFacts, spec: &VmSpec) -> Result<(), LifecycleError> {
    if !host.pools.iter().any(|pool| pool.name == spec.pool.as_str()) {
        return Err(LifecycleError::PoolNotFound(spec.pool.to_string()));
    }
    match &spec.network {
        NetworkAttachment::Network(name) => check_network(host, name),
        NetworkAttachment::User | NetworkAttachment::None => Ok(()),
    }
}

/// Whether a network can be plugged into.
fn check_network(host: &HostFacts, name: &ResourceName) -> Result<(), LifecycleError> {
    match host.networks.iter().find(|network| network.name == name.as_str()) {
        Some(network) if network.active => Ok(()),
        Some(_) => Err(LifecycleError::Invalid {
            field: "network",
            reason: format!(
                "the network {name} is not active; an operator has to start it (virsh net-start {name})"
            ),
        }),
        None => Err(LifecycleError::NetworkNotFound(name.to_string())),
    }
}

#[cfg(test)]
mod tests;

fn changed(error: StoreError, vm: VmId) -> LifecycleError {
    match error {
        StoreError::NotFound => LifecycleError::NotFound(vm),
        StoreError::Deleting => LifecycleError::Deleting(vm),
        StoreError::Adopted => LifecycleError::Adopted(vm),
        StoreError::ChangeUnderWay(open) => LifecycleError::Busy {
            operation: open.id,
            stage: open.change.as_ref().map_or("waiting", VmChange::stage),
        },
        other => LifecycleError::Store(other),
    }
}
