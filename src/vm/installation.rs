//! Systems that are installed from a disc, by its own installer.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{FirstBootSecret, KernelBoot, OsFamily, ResourceName};

/// Which Windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowsRelease {
    /// 10.
    Windows10,
    /// 11, which wants UEFI, secure boot and a TPM.
    Windows11,
    /// Server 2019.
    Server2019,
    /// Server 2022.
    Server2022,
    /// Server 2025.
    Server2025,
}

impl WindowsRelease {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Windows10, Self::Windows11, Self::Server2019, Self::Server2022, Self::Server2025];
}

/// Whose installer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallFamily {
    /// Ubuntu's live server: autoinstall.
    Ubuntu,
    /// Debian: preseed.
    Debian,
    /// Fedora, RHEL and what is made from it: kickstart.
    RedHat,
    /// Windows: autounattend.
    Windows(WindowsRelease),
}

impl InstallFamily {
    /// Selects the domain template.
    #[must_use]
    pub fn os_family(self) -> OsFamily {
        match self {
            Self::Ubuntu | Self::Debian | Self::RedHat => OsFamily::Linux,
            Self::Windows(_) => OsFamily::Windows,
        }
    }

    /// Whether its installer boots the machine anew by itself, and goes on from the disk; others are
    /// switched off at their end.
    #[must_use]
    pub fn reboots_by_itself(self) -> bool {
        matches!(self, Self::Windows(_))
    }
}

/// A disc of the library, as it was when the VM was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disc {
    /// The medium's name.
    pub medium: ResourceName,
    /// Absolute path of its file. Never shown to clients.
    pub path: PathBuf,
}

/// What an installer boots from: files of its disc, by their paths on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallerKernel {
    /// As in `casper/vmlinuz`.
    pub kernel: String,
    /// As in `casper/initrd`.
    pub initrd: String,
}

/// An installation to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// The disc that is installed from.
    pub disc: Disc,
    /// Whose installer is on it.
    pub family: InstallFamily,
    /// The disc's volume label.
    pub label: Option<String>,
    /// Absent where the firmware boots the disc, as for Windows.
    pub kernel: Option<InstallerKernel>,
    /// Windows' drivers for virtio.
    pub drivers: Option<Disc>,
    /// Where packages come from; the installer's own choice when absent.
    pub mirror: Option<String>,
    /// The edition on Windows' medium; the first when absent.
    pub edition: Option<String>,
    /// The language of Windows' medium; `en-US` when absent.
    pub medium_language: Option<String>,
    /// Whether our agent is installed with it.
    pub agent: bool,
    /// What the installer proves itself with when it reports how far it is. Good until the
    /// installation has ended, and gone from the store with the medium's other secrets.
    pub token: Option<FirstBootSecret>,
}

/// What a machine boots with while a system is installed on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallerBoot {
    /// Absent where the firmware boots the first disc.
    pub kernel: Option<KernelBoot>,
    /// What is in its drives: absolute paths, the disc that is installed from first.
    pub discs: Vec<PathBuf>,
}

/// How far an installer says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallReport {
    /// Its last word, `[a-z0-9-]`, at most 64 characters.
    pub stage: String,
    /// When it came, by our clock.
    pub at: DateTime<Utc>,
}

impl InstallReport {
    /// The system is on the disk; what is left is ours.
    pub const INSTALLED: &str = "installed";
    /// The installer met an error that it cannot get over.
    pub const FAILED: &str = "failed";
    /// The installer has nothing left to do.
    pub const FINISHED: &str = "finished";
}
