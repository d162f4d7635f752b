//! A request for a VM, from what a client wrote to what is valid.

use std::{fmt, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    LifecycleError,
    install::{AskedInstall, InstallRequest},
};
use crate::{
    config::HypervisorConfig,
    install::{self, PasswordError},
    vm::{
        Firmware, FirstBootSecret, Image, NetworkAttachment, OsFamily, Provisioning, ResourceName, SpecError,
        Unattended, VmId, VmName, VmSpec,
    },
};

/// A request for a VM, as a client wrote it: nothing checked yet.
#[derive(Debug, Clone, Default)]
pub struct CreateVm {
    /// Makes a retry safe.
    pub id: Option<Uuid>,
    /// See [`VmName`].
    pub name: String,
    /// The image's name; this or `install`.
    pub image: Option<String>,
    /// What is installed on an empty disk; this or `image`.
    pub install: Option<InstallRequest>,
    /// At least 1.
    pub vcpus: i64,
    /// MiB.
    pub memory_mib: i64,
    /// GiB; the image's own size when absent. Needed where a system is installed.
    pub disk_gib: Option<i64>,
    /// The configured default when absent.
    pub pool: Option<String>,
    /// A libvirt network; `user` (where allowed) or `none`; the configured default when absent.
    pub network: Option<String>,
    /// What it boots with.
    pub firmware: Firmware,
    /// Whether it has a TPM 2.0.
    pub tpm: bool,
    /// First-boot settings; refused where the image's provisioning is none.
    pub unattended: Option<UnattendedRequest>,
}

/// First-boot settings, as a client wrote them.
#[derive(Clone, Default)]
pub struct UnattendedRequest {
    /// The account to make.
    pub user: Option<String>,
    /// Plain; hashed before it is stored, except for Windows, whose installer knows no hashes.
    pub password: Option<SecretString>,
    /// `authorized_keys` lines.
    pub ssh_keys: Vec<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
    /// As in `es_ES.UTF-8`.
    pub locale: Option<String>,
    /// XKB layout, as in `de(nodeadkeys)`.
    pub keyboard: Option<String>,
    /// Windows only.
    pub product_key: Option<SecretString>,
    /// Package names.
    pub packages: Vec<String>,
    /// Shell lines.
    pub first_boot_commands: Vec<String>,
}

impl fmt::Debug for UnattendedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords and first-boot commands stay out of logs.
        f.debug_struct("UnattendedRequest")
            .field("user", &self.user)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// What the VM's disk is to be made of.
pub(super) enum AskedBase {
    Image(ResourceName),
    Install { asked: AskedInstall, disk_bytes: u64 },
}

/// What could be checked without asking anybody.
pub(super) struct Parsed {
    pub(super) id: Option<VmId>,
    pub(super) name: VmName,
    pub(super) base: AskedBase,
    pub(super) vcpus: u32,
    pub(super) memory_mib: u64,
    pub(super) disk_bytes: Option<u64>,
    pub(super) pool: ResourceName,
    pub(super) network: NetworkAttachment,
    pub(super) firmware: Firmware,
    pub(super) tpm: bool,
}

pub(super) fn invalid(field: &'static str, reason: impl fmt::Display) -> LifecycleError {
    LifecycleError::Invalid { field, reason: reason.to_string() }
}

pub(super) fn name<T: FromStr<Err: fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, LifecycleError> {
    text.parse().map_err(|error: T::Err| invalid(field, error))
}

impl CreateVm {
    pub(super) fn parse(&self, config: &HypervisorConfig) -> Result<Parsed, LifecycleError> {
        let disk_bytes = self
            .disk_gib
            .map(|gib| {
                let bytes = u64::try_from(gib).ok().and_then(|gib| gib.checked_mul(1 << 30));
                bytes.filter(|bytes| (1..=VmSpec::MAX_DISK_BYTES).contains(bytes)).ok_or_else(|| {
                    invalid("diskGib", format_args!("must be between 1 and {}", VmSpec::MAX_DISK_BYTES >> 30))
                })
            })
            .transpose()?;
        let vcpus = u32::try_from(self.vcpus)
            .map_err(|_| spec_error(SpecError::Vcpus { max: VmSpec::MAX_VCPUS, given: self.vcpus }))?;
        let memory_mib = u64::try_from(self.memory_mib).map_err(|_| {
            spec_error(SpecError::Memory {
                min: VmSpec::MIN_MEMORY_MIB,
                max: VmSpec::MAX_MEMORY_MIB,
                given: self.memory_mib,
            })
        })?;
        let network = network(config, self.network.as_deref().unwrap_or(&config.default_network))?;
        let base = match (&self.image, &self.install) {
            (Some(image), None) => AskedBase::Image(name("image", image)?),
            (None, Some(install)) => AskedBase::Install {
                asked: install.parse()?,
                disk_bytes: disk_bytes
                    .ok_or_else(|| invalid("diskGib", "an installation needs the size of its disk"))?,
            },
            (None, None) => return Err(invalid("image", "give either image or install")),
            (Some(_), Some(_)) => return Err(invalid("install", "give either image or install, not both")),
        };
        Ok(Parsed {
            id: given_id(self.id)?,
            name: name("name", &self.name)?,
            base,
            vcpus,
            memory_mib,
            disk_bytes,
            pool: name("pool", self.pool.as_deref().unwrap_or(&config.default_pool))?,
            network,
            firmware: self.firmware,
            tpm: self.tpm,
        })
    }
}

/// A network's name, `none`, or `user` where that is allowed.
pub(super) fn network(config: &HypervisorConfig, text: &str) -> Result<NetworkAttachment, LifecycleError> {
    match text {
        "none" => Ok(NetworkAttachment::None),
        "user" if config.allow_user_network => Ok(NetworkAttachment::User),
        "user" => Err(invalid(
            "network",
            "user-mode networking lets a guest reach the host's loopback; hypervisor.allow_user_network forbids it",
        )),
        other => Ok(NetworkAttachment::Network(name("network", other)?)),
    }
}

/// A client's own choice of an id.
pub(super) fn given_id(id: Option<Uuid>) -> Result<Option<VmId>, LifecycleError> {
    // The nil UUID stands for "none" in too many programs to be anybody's name.
    if id.is_some_and(|id| id.is_nil() || id.is_max()) {
        return Err(invalid("id", "is not a UUID that can be given to anything"));
    }
    Ok(id.map(VmId))
}

/// The API's name of the field that a broken rule is about.
pub(super) fn spec_error(error: SpecError) -> LifecycleError {
    let field = match &error {
        SpecError::Vcpus { .. } => "vcpus",
        SpecError::Memory { .. } => "memoryMib",
        SpecError::DiskTooSmall { .. } | SpecError::DiskTooLarge { .. } => "diskGib",
    };
    invalid(field, error)
}

/// Settings that nothing in the image would read must not be accepted as if they were followed.
pub(super) fn check_provisioning(image: &Image, settings: &Unattended) -> Result<(), LifecycleError> {
    match image.provisioning {
        Provisioning::None if *settings != Unattended::default() => Err(invalid(
            "unattended",
            format_args!("image {} has no first boot that reads settings; leave them out", image.name),
        )),
        Provisioning::CloudInit | Provisioning::None => Ok(()),
    }
}

/// First-boot settings, checked. The password goes no further than here in plain, except to
/// Windows, which knows no hashes: it is kept until the first boot is finished, and no longer.
pub(super) async fn unattended(
    request: Option<UnattendedRequest>,
    family: OsFamily,
) -> Result<Unattended, LifecycleError> {
    let Some(request) = request else { return Ok(Unattended::default()) };
    let mut settings = Unattended {
        user: request.user,
        password_hash: None,
        password: None,
        ssh_keys: request.ssh_keys,
        hostname: request.hostname,
        timezone: request.timezone,
        locale: request.locale,
        keyboard: request.keyboard,
        product_key: request.product_key.map(|key| FirstBootSecret::new(key.expose_secret().to_owned())),
        packages: request.packages,
        first_boot_commands: request.first_boot_commands,
    };
    install::check(&settings).map_err(|wrong| invalid(wrong.field, wrong.reason))?;
    if settings.product_key.is_some() && family != OsFamily::Windows {
        return Err(invalid("unattended.productKey", "only Windows has product keys"));
    }
    if let Some(password) = request.password {
        if settings.user.is_none() {
            return Err(invalid("unattended.password", "needs unattended.user"));
        }
        if family == OsFamily::Windows {
            let wrong = |wrong: install::InvalidSetting| invalid(wrong.field, wrong.reason);
            install::check_password(password.expose_secret()).map_err(wrong)?;
            settings.password = Some(FirstBootSecret::new(password.expose_secret().to_owned()));
            return Ok(settings);
        }
        let hashed = tokio::task::spawn_blocking(move || install::hash_password(&password)).await;
        let hashed = hashed.map_err(|error| LifecycleError::Password(error.into()))?;
        settings.password_hash = Some(hashed.map_err(|error| match error {
            PasswordError::Refused(wrong) => invalid(wrong.field, wrong.reason),
            failed @ PasswordError::Hash(_) => LifecycleError::Password(failed.into()),
        })?);
    }
    Ok(settings)
}
