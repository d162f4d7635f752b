//! What people ask of a VM: checked, stored as intent, and left to the loop.
//!
//! Whatever is accepted here can be carried out as far as the host can tell now, and is on disk
//! before it is answered. Nothing here waits for a VM.

mod adopt;
mod change;
mod clone;
mod console;
mod create;
mod device;
mod install;
mod power;
mod request;
mod restore;
mod snapshot;

pub use clone::CloneVm;
pub use console::{ConsoleFollower, ConsoleLog, ConsolePiece, MAX_CONSOLE_BYTES};
pub use device::InsertMedium;
pub use install::{InstallRequest, Installers};
pub use request::{CreateVm, UnattendedRequest};
pub use restore::{NotedOwner, Places, noted_host, noted_vm, with_devices};

use std::sync::Arc;

use chrono::Utc;

use crate::{
    access::{Action, Actor, Denied, Target, authorize},
    config::HypervisorConfig,
    hypervisor::{HostFacts, Hypervisor, HypervisorError},
    images::{ImageError, Images},
    media::MediaError,
    reconcile::Waker,
    store::{Store, StoreError},
    vm::{
        HostId, Lacking, MAX_SNAPSHOTS, NetworkAttachment, Operation, OperationId, OsFamily, ResourceName,
        Unfit, VmChange, VmId, VmRecord, VmSpec, WrongState, truncate_to_micros,
    },
};

/// Accepts requests. Clones share everything.
#[derive(Clone)]
pub struct Lifecycle {
    host: HostId,
    config: HypervisorConfig,
    store: Store,
    images: Images,
    installers: Installers,
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
    /// `NOT_SUPPORTED`: by the host, as it is now.
    #[error(transparent)]
    NotSupported(#[from] Lacking),
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
    /// `MEDIUM_UNUSABLE`.
    #[error("medium {0} is a disk image and no disc: VMs are made of it (`createVm`)")]
    NoDisc(ResourceName),
    /// `MEDIUM_NOT_FOUND`: of the library, or not for the caller to know.
    #[error("the library has no installation medium {0:?}")]
    NoMedium(String),
    /// `MEDIUM_NOT_READY`.
    #[error("the medium {0:?} {1}")]
    MediumNotReady(String, &'static str),
    /// `MEDIUM_NOT_INSTALLABLE`.
    #[error("nothing can be installed from the medium {medium:?}: {reason}")]
    MediumNotInstallable {
        /// Its name.
        medium: String,
        /// Why.
        reason: String,
    },
    /// `AGENT_BINARY_MISSING`.
    #[error(
        "this host has no agent for {0} guests that could be installed; an operator has to put it there, or \
         ask for none"
    )]
    AgentBinaryMissing(OsFamily),
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
    /// `SNAPSHOT_UNSUPPORTED`.
    #[error("{0}")]
    SnapshotUnsupported(&'static str),
    /// `TOO_MANY_SNAPSHOTS`.
    #[error("the VM has {MAX_SNAPSHOTS} snapshots; delete some first")]
    TooManySnapshots,
    /// `FORBIDDEN`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// `IMAGE_NOT_FOUND`, `IMAGE_UNUSABLE`, `IMAGE_BEING_CHECKED`.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Of the library of media.
    #[error(transparent)]
    Media(MediaError),
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
    /// `INTERNAL`, with a correlation id.
    #[error("the installer's answers could not be written")]
    Answers(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// `INTERNAL`, with a correlation id.
    #[error("no random token could be made")]
    Randomness(#[source] std::io::Error),
}

impl From<Unfit> for LifecycleError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::WrongState(why) => Self::WrongState(why),
            Unfit::SnapshotUnsupported(why) => Self::SnapshotUnsupported(why),
        }
    }
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
        installers: Installers,
        hypervisor: Arc<dyn Hypervisor>,
        waker: Waker,
    ) -> Self {
        Self { host, config, store, images, installers, hypervisor, waker }
    }

    /// What requests that leave something open get.
    pub(crate) fn config(&self) -> &HypervisorConfig {
        &self.config
    }

    /// Asks for the end.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn delete(&self, actor: &Actor, vm: VmId) -> Result<(VmRecord, Operation), LifecycleError> {
        self.authorize(actor, vm, Action::OwnVm).await?;
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
        self.authorize(actor, vm, Action::ControlVm).await?;
        // Nothing of it is stored but that it was asked for.
        self.store.record_asked(actor.user, "vm.resync", vm).await.map_err(LifecycleError::Store)?;
        self.waker.resync(vm).await;
        Ok(())
    }

    async fn authorize(
        &self,
        actor: &Actor,
        vm: VmId,
        action: fn(Target) -> Action,
    ) -> Result<(), LifecycleError> {
        let found = self.store.vm(vm).await.map_err(LifecycleError::Store)?;
        let owner = found.map(|view| view.record.owner);
        authorize(actor, action(Target { vm, owner })).map_err(|denied| LifecycleError::denied(denied, vm))
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
