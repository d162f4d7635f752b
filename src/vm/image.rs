//! Images: the disks that VMs are made from.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::ResourceName;

/// The family of operating systems, which selects the domain template and the install recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OsFamily {
    /// Any Linux distribution.
    Linux,
    /// Windows 10, 11 and Server.
    Windows,
}

impl OsFamily {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Linux, Self::Windows];
}

impl fmt::Display for OsFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
        })
    }
}

/// How a VM made from the image learns who it is on its first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provisioning {
    /// cloud-init's NoCloud data source, on a medium labelled `cidata`.
    CloudInit,
    /// The image carries everything, its agent included.
    None,
}

/// The container format of an image's disk. Declared by the manifest, never probed: a probed
/// raw disk lets the guest choose the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU copy-on-write, version 2 or 3.
    Qcow2,
    /// A plain sequence of sectors.
    Raw,
}

/// Direct kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBoot {
    /// Absolute path of the kernel.
    pub kernel: PathBuf,
    /// Absolute path of the initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// An image of the library, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name clients use.
    pub name: ResourceName,
    /// One line for people.
    pub description: String,
    /// Selects template and recipe.
    pub os_family: OsFamily,
    /// How the first boot is configured.
    pub provisioning: Provisioning,
    /// Absolute path of the disk. Never shown to clients.
    pub disk: PathBuf,
    /// The disk's declared format.
    pub format: ImageFormat,
    /// The size a guest sees, in bytes.
    pub virtual_bytes: u64,
    /// SHA-256 of the disk file, lower-case hexadecimal.
    pub sha256: String,
    /// Present where the image boots without a boot loader.
    pub kernel: Option<KernelBoot>,
}
