//! What people ask of a VM: checked, stored as intent, and left to the loop.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    access::{Actor, Denied},
    config::HypervisorConfig,
    hypervisor::{Hypervisor, HypervisorError},
    images::{ImageError, Images},
    reconcile::Waker,
    store::{Store, StoreError},
    vm::{HostId, Operation, VmId, VmRecord},
};

/// Accepts requests. Clones share everything.
#[derive(Clone)]
pub struct Lifecycle {}

/// A request for a VM, as a client wrote it: nothing checked yet.
#[derive(Debug, Clone, Default)]
pub struct CreateVm {
    /// Makes a retry safe.
    pub id: Option<Uuid>,
    /// See [`crate::vm::VmName`].
    pub name: String,
    /// The image's name.
    pub image: String,
    /// At least 1.
    pub vcpus: i64,
    /// MiB.
    pub memory_mib: i64,
    /// GiB; the image's own size when absent.
    pub disk_gib: Option<i64>,
    /// The configured default when absent.
    pub pool: Option<String>,
    /// A libvirt network; `user` (where allowed) or `none`; the configured default when absent.
    pub network: Option<String>,
    /// First-boot settings.
    pub unattended: Option<UnattendedRequest>,
}

/// First-boot settings, as a client wrote them.
#[derive(Clone, Default)]
pub struct UnattendedRequest {
    /// The account to make.
    pub user: Option<String>,
    /// Plain; hashed before it is stored.
    pub password: Option<secrecy::SecretString>,
    /// `authorized_keys` lines.
    pub ssh_keys: Vec<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
    /// Package names.
    pub packages: Vec<String>,
    /// Shell lines.
    pub first_boot_commands: Vec<String>,
}

impl std::fmt::Debug for UnattendedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnattendedRequest")
            .field("user", &self.user)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
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
    #[error("a VM or domain named {0:?} exists on this host")]
    NameTaken(String),
    /// `ID_TAKEN`.
    #[error("the id was used for another VM")]
    IdTaken,
    /// `VM_NOT_FOUND`.
    #[error("there is no VM {0}")]
    NotFound(VmId),
    /// `VM_DELETING`.
    #[error("VM {0} is being deleted")]
    Deleting(VmId),
    /// `FORBIDDEN`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// `IMAGE_NOT_FOUND`, `IMAGE_UNUSABLE`.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// `HYPERVISOR_UNAVAILABLE`.
    #[error("the hypervisor cannot be asked")]
    Hypervisor(#[source] HypervisorError),
    /// `INTERNAL`, with a correlation id.
    #[error("the database failed")]
    Store(#[source] StoreError),
}

impl Lifecycle {
    /// Everything it needs.
    #[must_use]
    pub fn new(
        _host: HostId,
        _config: HypervisorConfig,
        _store: Store,
        _images: Images,
        _hypervisor: Arc<dyn Hypervisor>,
        _waker: Waker,
    ) -> Self {
        todo!()
    }

    /// Accepts a VM.
    pub async fn create(
        &self,
        _actor: &Actor,
        _request: CreateVm,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        todo!()
    }

    /// Asks for power.
    pub async fn start(&self, _actor: &Actor, _vm: VmId) -> Result<(VmRecord, Operation), LifecycleError> {
        todo!()
    }

    /// Asks for no power.
    pub async fn stop(
        &self,
        _actor: &Actor,
        _vm: VmId,
        _force: bool,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        todo!()
    }

    /// Asks for the end.
    pub async fn delete(&self, _actor: &Actor, _vm: VmId) -> Result<(VmRecord, Operation), LifecycleError> {
        todo!()
    }
}

/// Turns a refusal of `authorize` into the error a client sees.
impl LifecycleError {
    /// For this VM.
    #[must_use]
    pub fn denied(denied: Denied, vm: VmId) -> Self {
        match denied {
            Denied::NotFound => Self::NotFound(vm),
            Denied::Forbidden(why) => Self::Forbidden(why),
        }
    }
}
