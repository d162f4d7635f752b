//! What clients write. Shapes only; rules are checked where they live.

mod safe;

use std::collections::BTreeMap;

use async_graphql::{InputObject, OneofObject};
use uuid::Uuid;

use super::host::FirmwareName;
use crate::{
    api::error::ApiError,
    lifecycle::{CloneVm, CreateVm, InstallRequest, UnattendedRequest},
    vm::{GuestCommand, UnsafeCommand},
};
pub(super) use safe::SafeActionName;
use safe::SafeCommandInput;

/// First-boot settings.
#[derive(InputObject)]
pub(crate) struct UnattendedInput {
    /// The account to make, with sudo.
    user: Option<String>,
    /// Its password; stored only as a hash (for Windows, which knows none, as it is), and only
    /// until the first boot is finished.
    password: Option<String>,
    /// `authorized_keys` lines.
    #[graphql(default)]
    ssh_keys: Vec<String>,
    /// The VM's name when absent.
    hostname: Option<String>,
    /// An IANA name, as in `Europe/Madrid`.
    timezone: Option<String>,
    /// A locale, as in `es_ES.UTF-8`; the image's own when absent.
    locale: Option<String>,
    /// An XKB layout with an optional variant, as in `es` or `de(nodeadkeys)`.
    keyboard: Option<String>,
    /// Windows' product key, `XXXXX-XXXXX-XXXXX-XXXXX-XXXXX`; kept only until the first boot is
    /// finished.
    product_key: Option<String>,
    /// Packages of the guest's distribution.
    #[graphql(default)]
    packages: Vec<String>,
    /// Shell lines, run once as root after the packages.
    #[graphql(default)]
    first_boot_commands: Vec<String>,
}

/// A system to be installed by its own installer, on an empty disk.
#[derive(InputObject)]
pub(crate) struct InstallInput {
    /// The name of an installation medium that is ready.
    medium: String,
    /// Windows: the name of the edition on the medium, as in `Windows 11 Pro`; the first when absent.
    edition: Option<String>,
    /// Windows: the language of the medium, as in `en-US`, which is the default.
    medium_language: Option<String>,
    /// Windows: the name of the medium with its drivers for virtio; needed for the agent.
    drivers: Option<String>,
    /// Where packages come from, as in `http://deb.debian.org/debian`; the installer's own choice when
    /// absent. Not for Windows.
    mirror: Option<String>,
    /// Whether our agent is installed with it.
    #[graphql(default = true)]
    agent: bool,
}

impl From<InstallInput> for InstallRequest {
    fn from(input: InstallInput) -> Self {
        let InstallInput { medium, edition, medium_language, drivers, mirror, agent } = input;
        Self { medium, edition, medium_language, drivers, mirror, agent }
    }
}

/// A VM to be made.
#[derive(InputObject)]
pub(crate) struct CreateVmInput {
    /// Given by the client, a request can be sent again without making a second VM.
    id: Option<Uuid>,
    /// 1 to 63 letters, digits, `-`, `_`, `.`; unique on the host.
    name: String,
    /// The name of an image; this or `install`.
    image: Option<String>,
    /// A system to be installed; this or `image`.
    install: Option<InstallInput>,
    /// Virtual processors.
    vcpus: i32,
    /// MiB.
    memory_mib: i32,
    /// GiB; the image's own size when absent. With `install` it has to be given.
    disk_gib: Option<i32>,
    /// A storage pool of the host.
    pool: Option<String>,
    /// A libvirt network of the host, or `none`.
    network: Option<String>,
    /// What it boots with; one of `host.firmware`.
    #[graphql(default_with = "FirmwareName::Bios")]
    firmware: FirmwareName,
    /// Whether it has a TPM 2.0; where `host.tpm` says that it can.
    #[graphql(default)]
    tpm: bool,
    /// First-boot settings; refused where the image's `provisioning` is `NONE`.
    unattended: Option<UnattendedInput>,
}

impl From<CreateVmInput> for CreateVm {
    fn from(input: CreateVmInput) -> Self {
        Self {
            id: input.id,
            name: input.name,
            image: input.image,
            install: input.install.map(Into::into),
            vcpus: input.vcpus.into(),
            memory_mib: input.memory_mib.into(),
            disk_gib: input.disk_gib.map(Into::into),
            pool: input.pool,
            network: input.network,
            firmware: input.firmware.into(),
            tpm: input.tpm,
            unattended: input.unattended.map(|settings| UnattendedRequest {
                user: settings.user,
                password: settings.password.map(Into::into),
                ssh_keys: settings.ssh_keys,
                hostname: settings.hostname,
                timezone: settings.timezone,
                locale: settings.locale,
                keyboard: settings.keyboard,
                product_key: settings.product_key.map(Into::into),
                packages: settings.packages,
                first_boot_commands: settings.first_boot_commands,
            }),
        }
    }
}

/// A full copy of a VM to be made.
#[derive(InputObject)]
pub(crate) struct CloneVmInput {
    /// Given by the client, a request can be sent again without making a second copy.
    id: Option<Uuid>,
    /// 1 to 63 letters, digits, `-`, `_`, `.`; unique on the host.
    name: String,
    /// A libvirt network of the host, or `none`, for the first network card; the copied VM's when
    /// absent.
    network: Option<String>,
    /// The guest's host name; made of `name` when absent. Refused where the image's `provisioning` is
    /// `NONE`, and of a system that was installed from a disc.
    hostname: Option<String>,
    /// Whether the copy is started once it is made.
    #[graphql(default)]
    start: bool,
}

impl From<CloneVmInput> for CloneVm {
    fn from(input: CloneVmInput) -> Self {
        let CloneVmInput { id, name, network, hostname, start } = input;
        Self { id, name, network, hostname, start }
    }
}

/// One variable of the environment.
#[derive(InputObject)]
pub(crate) struct EnvVarInput {
    /// Its name.
    name: String,
    /// Its value; never logged.
    value: String,
}

/// A shell line.
#[derive(InputObject)]
pub(crate) struct UnsafeCommandInput {
    /// The line.
    raw_command: String,
    /// The shell to run it with.
    shell: Option<String>,
    /// Where to run it.
    working_dir: Option<String>,
    /// Added to its environment.
    #[graphql(default)]
    env_vars: Vec<EnvVarInput>,
}

/// A command: one of the two.
#[derive(OneofObject)]
pub(crate) enum CommandInput {
    /// One of a fixed list.
    Safe(SafeCommandInput),
    /// Anything; needs the permission `unsafe_commands`.
    Unsafe(UnsafeCommandInput),
}

impl CommandInput {
    pub(crate) fn is_unsafe(&self) -> bool {
        matches!(self, Self::Unsafe(_))
    }

    /// # Errors
    /// `INVALID_INPUT`, naming the parameter.
    pub(crate) fn into_command(self) -> Result<GuestCommand, ApiError> {
        match self {
            Self::Safe(input) => input.into_action().map(GuestCommand::Safe),
            Self::Unsafe(input) => {
                let mut env_vars = BTreeMap::new();
                for EnvVarInput { name, value } in input.env_vars {
                    if env_vars.insert(name, value).is_some() {
                        return Err(ApiError::invalid("envVars", "a name is given twice"));
                    }
                }
                Ok(GuestCommand::Unsafe(UnsafeCommand {
                    raw_command: input.raw_command,
                    shell: input.shell,
                    working_dir: input.working_dir,
                    env_vars,
                }))
            }
        }
    }
}
