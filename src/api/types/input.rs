//! What clients write. Shapes only; rules are checked where they live.

use std::collections::BTreeMap;

use async_graphql::{Enum, InputObject, OneofObject};
use uuid::Uuid;

use crate::{
    api::error::ApiError,
    lifecycle::{CreateVm, UnattendedRequest},
    vm::{GuestCommand, SafeAction, ServiceOperation, UnsafeCommand},
};

/// First-boot settings.
#[derive(InputObject)]
pub(crate) struct UnattendedInput {
    /// The account to make, with sudo.
    user: Option<String>,
    /// Its password; stored only as a hash, and only until the first boot is finished.
    password: Option<String>,
    /// `authorized_keys` lines.
    #[graphql(default)]
    ssh_keys: Vec<String>,
    /// The VM's name when absent.
    hostname: Option<String>,
    /// An IANA name, as in `Europe/Madrid`.
    timezone: Option<String>,
    /// Packages of the guest's distribution.
    #[graphql(default)]
    packages: Vec<String>,
    /// Shell lines, run once as root after the packages.
    #[graphql(default)]
    first_boot_commands: Vec<String>,
}

/// A VM to be made.
#[derive(InputObject)]
pub(crate) struct CreateVmInput {
    /// Given by the client, a request can be sent again without making a second VM.
    id: Option<Uuid>,
    /// 1 to 63 letters, digits, `-`, `_`, `.`; unique on the host.
    name: String,
    /// The name of an image.
    image: String,
    /// Virtual processors.
    vcpus: i32,
    /// MiB.
    memory_mib: i32,
    /// GiB; the image's own size when absent.
    disk_gib: Option<i32>,
    /// A storage pool of the host.
    pool: Option<String>,
    /// A libvirt network of the host, or `none`.
    network: Option<String>,
    /// First-boot settings; refused where the image's `provisioning` is `NONE`.
    unattended: Option<UnattendedInput>,
}

impl From<CreateVmInput> for CreateVm {
    fn from(input: CreateVmInput) -> Self {
        Self {
            id: input.id,
            name: input.name,
            image: input.image,
            vcpus: input.vcpus.into(),
            memory_mib: input.memory_mib.into(),
            disk_gib: input.disk_gib.map(Into::into),
            pool: input.pool,
            network: input.network,
            unattended: input.unattended.map(|settings| UnattendedRequest {
                user: settings.user,
                password: settings.password.map(Into::into),
                ssh_keys: settings.ssh_keys,
                hostname: settings.hostname,
                timezone: settings.timezone,
                packages: settings.packages,
                first_boot_commands: settings.first_boot_commands,
            }),
        }
    }
}

/// Which VMs.
#[derive(InputObject)]
pub(crate) struct VmFilter {
    /// Of this user.
    pub(crate) owner_id: Option<Uuid>,
}

/// An action that needs no shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum SafeActionName {
    /// No parameters.
    ServiceList,
    /// `service`, `operation`.
    ServiceControl,
    /// No parameters.
    PackageList,
    /// `package`.
    PackageInstall,
    /// `package`.
    PackageRemove,
    /// `package`.
    PackageUpdate,
    /// `query`.
    PackageSearch,
    /// `limit`, optional.
    ProcessList,
    /// `pid`; `force`, optional.
    ProcessKill,
    /// `limit` and `sortBy`, optional.
    ProcessTop,
    /// No parameters.
    SystemInfo,
    /// No parameters.
    OsInfo,
    /// `warningThreshold` and `criticalThreshold`, optional.
    CheckDiskSpace,
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "ServiceOperation", name = "ServiceOperation")]
pub(crate) enum ServiceOperationName {
    /// Start it now.
    Start,
    /// Stop it now.
    Stop,
    /// Stop and start.
    Restart,
    /// Start it at boot.
    Enable,
    /// Do not start it at boot.
    Disable,
    /// Tell its state.
    Status,
}

/// The order of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "agent_protocol::SortBy", name = "SortBy")]
pub(crate) enum SortByName {
    /// Processor use.
    Cpu,
    /// Memory use.
    Memory,
}

/// An action with its parameters: exactly those that the action names.
#[derive(Debug, InputObject)]
pub(crate) struct SafeCommandInput {
    /// The action.
    action: SafeActionName,
    /// A service's name.
    service: Option<String>,
    /// What to do with the service.
    operation: Option<ServiceOperationName>,
    /// A package's name.
    package: Option<String>,
    /// Words to search for.
    query: Option<String>,
    /// At most this many.
    limit: Option<i32>,
    /// A process id.
    pid: Option<i32>,
    /// Without a chance to clean up.
    force: Option<bool>,
    /// Busiest in what.
    sort_by: Option<SortByName>,
    /// Per cent.
    warning_threshold: Option<f64>,
    /// Per cent.
    critical_threshold: Option<f64>,
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

fn need<T>(field: &'static str, value: &mut Option<T>) -> Result<T, ApiError> {
    value.take().ok_or_else(|| ApiError::invalid(field, "this action needs it"))
}

fn whole(field: &'static str, value: Option<i32>) -> Result<Option<u32>, ApiError> {
    value.map(|n| u32::try_from(n).map_err(|_| ApiError::invalid(field, "must not be negative"))).transpose()
}

impl SafeCommandInput {
    fn into_action(mut self) -> Result<SafeAction, ApiError> {
        use SafeActionName as Name;
        let action = match self.action {
            Name::ServiceList => SafeAction::ServiceList,
            Name::ServiceControl => SafeAction::ServiceControl {
                service: need("service", &mut self.service)?,
                operation: need("operation", &mut self.operation)?.into(),
            },
            Name::PackageList => SafeAction::PackageList,
            Name::PackageInstall => {
                SafeAction::PackageInstall { package: need("package", &mut self.package)? }
            }
            Name::PackageRemove => SafeAction::PackageRemove { package: need("package", &mut self.package)? },
            Name::PackageUpdate => SafeAction::PackageUpdate { package: need("package", &mut self.package)? },
            Name::PackageSearch => SafeAction::PackageSearch { query: need("query", &mut self.query)? },
            Name::ProcessList => SafeAction::ProcessList { limit: whole("limit", self.limit.take())? },
            Name::ProcessKill => SafeAction::ProcessKill {
                pid: whole("pid", Some(need("pid", &mut self.pid)?))?.unwrap_or_default(),
                force: self.force.take(),
            },
            Name::ProcessTop => SafeAction::ProcessTop {
                limit: whole("limit", self.limit.take())?,
                sort_by: self.sort_by.take().map(Into::into),
            },
            Name::SystemInfo => SafeAction::SystemInfo,
            Name::OsInfo => SafeAction::OsInfo,
            Name::CheckDiskSpace => SafeAction::CheckDiskSpace(agent_protocol::DiskThresholds {
                warning_threshold: self.warning_threshold.take(),
                critical_threshold: self.critical_threshold.take(),
            }),
        };
        match self.left_over() {
            Some(field) => Err(ApiError::invalid(field, "this action does not take it")),
            None => Ok(action),
        }
    }

    /// A parameter that the action did not take.
    fn left_over(&self) -> Option<&'static str> {
        let Self {
            action: _,
            service,
            operation,
            package,
            query,
            limit,
            pid,
            force,
            sort_by,
            warning_threshold,
            critical_threshold,
        } = self;
        [
            ("service", service.is_some()),
            ("operation", operation.is_some()),
            ("package", package.is_some()),
            ("query", query.is_some()),
            ("limit", limit.is_some()),
            ("pid", pid.is_some()),
            ("force", force.is_some()),
            ("sortBy", sort_by.is_some()),
            ("warningThreshold", warning_threshold.is_some()),
            ("criticalThreshold", critical_threshold.is_some()),
        ]
        .into_iter()
        .find_map(|(field, given)| given.then_some(field))
    }
}
