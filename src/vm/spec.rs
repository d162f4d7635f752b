//! What a VM is to be made of.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Image, Installation, OsFamily, Plugged, Provisioning, ResourceName, VmId, VmName};

/// Where the VM's one network card is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAttachment {
    /// A libvirt network, by name.
    Network(ResourceName),
    /// QEMU's user-mode networking, which lets the guest reach the host's loopback: for tests.
    User,
    /// No card at all.
    None,
}

/// A text that must not outlive the first boot, and that no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FirstBootSecret(String);

impl FirstBootSecret {
    /// Takes it in.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the medium that carries it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FirstBootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What the first boot is told. Values are data: escaping them for the format they travel in is
/// the `install` room's work.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unattended {
    /// The account to make; none when absent.
    pub user: Option<String>,
    /// Its password, already hashed for `crypt(3)` (SHA-512, `$6$…`); never the plain text.
    pub password_hash: Option<String>,
    /// The password itself, only for families whose installers know no hashes (Windows); then
    /// there is no `password_hash`. Gone from the store when the seed is scrubbed.
    pub password: Option<FirstBootSecret>,
    /// Public keys, one `authorized_keys` line each.
    pub ssh_keys: Vec<String>,
    /// The host name; the VM's name when absent.
    pub hostname: Option<String>,
    /// An IANA name such as `Europe/Madrid`.
    pub timezone: Option<String>,
    /// A locale as glibc names it, such as `es_ES.UTF-8`.
    pub locale: Option<String>,
    /// An XKB layout with an optional variant, such as `es` or `de(nodeadkeys)`.
    pub keyboard: Option<String>,
    /// Windows' product key, `XXXXX-XXXXX-XXXXX-XXXXX-XXXXX`.
    pub product_key: Option<FirstBootSecret>,
    /// Packages of the guest's distribution.
    pub packages: Vec<String>,
    /// Shell commands run once, as root, after the packages.
    pub first_boot_commands: Vec<String>,
}

impl Unattended {
    /// The same settings without anything that should not outlive the first boot.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self {
            password_hash: None,
            password: None,
            product_key: None,
            first_boot_commands: Vec::new(),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Unattended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // First-boot commands are secret too: people put tokens in them.
        f.debug_struct("Unattended")
            .field("user", &self.user)
            .field("password_hash", &self.password_hash.as_ref().map(|_| "…"))
            .field("password", &self.password)
            .field("ssh_keys", &self.ssh_keys.len())
            .field("hostname", &self.hostname)
            .field("timezone", &self.timezone)
            .field("locale", &self.locale)
            .field("keyboard", &self.keyboard)
            .field("product_key", &self.product_key)
            .field("packages", &self.packages)
            .field("first_boot_commands", &self.first_boot_commands.len())
            .finish()
    }
}

/// How a VM came to be ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// We made its domain and its disk.
    #[default]
    Created,
    /// Others made its domain; neither that nor its disks are ours. Its `image`, `pool` and
    /// `disk_bytes` mean nothing.
    Adopted {
        /// The addresses of its network cards when it was adopted; lower-case, colon separated.
        macs: Vec<String>,
    },
    /// We made its domain; its disks are full copies of another VM's.
    Cloned {
        /// Whose. That VM may be gone.
        from: VmId,
    },
}

/// What is on a new VM's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// An image, as it was when the VM was asked for, so that a later change of the library does
    /// not change what a half-made VM becomes.
    Image(Image),
    /// Nothing yet: a system is installed on it.
    Installation(Box<Installation>),
}

/// What the machine boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// The old one.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
    /// UEFI that boots only what is signed by those it was delivered to trust.
    UefiSecureBoot,
}

impl Firmware {
    /// Whether it is UEFI of either kind.
    #[must_use]
    pub fn is_uefi(self) -> bool {
        matches!(self, Self::Uefi | Self::UefiSecureBoot)
    }
}

/// Why a specification was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Outside the allowed number of virtual processors.
    #[error("vcpus must be between 1 and {max}, not {given}")]
    Vcpus {
        /// Upper bound.
        max: u32,
        /// What was asked.
        given: i64,
    },
    /// Outside the allowed amount of memory.
    #[error("memoryMib must be between {min} and {max}, not {given}")]
    Memory {
        /// Lower bound, MiB.
        min: u64,
        /// Upper bound, MiB.
        max: u64,
        /// What was asked, MiB.
        given: i64,
    },
    /// Smaller than the disk it is made from.
    #[error("a disk of {given} bytes cannot hold image {image:?} of {needed} bytes")]
    DiskTooSmall {
        /// The image.
        image: String,
        /// Its size, bytes.
        needed: u64,
        /// What was asked, bytes.
        given: u64,
    },
    /// Larger than any disk we make.
    #[error("a disk has at most {max} bytes, not {given}")]
    DiskTooLarge {
        /// Upper bound, bytes.
        max: u64,
        /// What was asked, bytes.
        given: u64,
    },
}

/// A VM's specification, valid by construction of its parts and [`VmSpec::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Also the domain's name.
    pub name: VmName,
    /// What its disk is made of.
    #[serde(flatten)]
    pub base: Base,
    /// What it boots with.
    #[serde(default)]
    pub firmware: Firmware,
    /// Whether it has a TPM 2.0.
    #[serde(default)]
    pub tpm: bool,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, bytes.
    pub disk_bytes: u64,
    /// The libvirt storage pool of the disk.
    pub pool: ResourceName,
    /// The network card.
    pub network: NetworkAttachment,
    /// First-boot settings.
    pub unattended: Unattended,
    /// How it came to be ours.
    #[serde(default)]
    pub origin: Origin,
    /// What was plugged in since.
    #[serde(default)]
    pub devices: Plugged,
    /// How its power is kept.
    #[serde(default)]
    pub keeping: PowerKeeping,
}

/// How a VM's power is kept when nobody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PowerKeeping {
    /// Whether the host starts it when it boots itself, as last asked for here.
    pub autostart: bool,
    /// What to do when it is off although it was asked to run.
    pub on_power_off: OnPowerOff,
    /// What to do when it was ended by a fault although it was asked to run.
    pub on_crash: OnCrash,
}

/// What to do with a VM that was powered off, by its guest or behind this controller's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPowerOff {
    /// It stays off.
    #[default]
    Follow,
    /// It is started again.
    Correct,
}

/// What to do with a VM that crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    /// It stays as it is.
    #[default]
    Stay,
    /// It is started again.
    Restart,
}

impl VmSpec {
    /// Most virtual processors of one VM: what QEMU's q35 machine takes without an IOMMU.
    pub const MAX_VCPUS: u32 = 255;
    /// Least memory, MiB: below it no supported kernel unpacks its initial RAM disk.
    pub const MIN_MEMORY_MIB: u64 = 64;
    /// Most memory, MiB (16 TiB).
    pub const MAX_MEMORY_MIB: u64 = 16 * 1024 * 1024;
    /// Largest disk, bytes (64 TiB).
    pub const MAX_DISK_BYTES: u64 = 64 << 40;

    /// The image it is made from, if it is made from one.
    #[must_use]
    pub fn image(&self) -> Option<&Image> {
        match &self.base {
            Base::Image(image) => Some(image),
            Base::Installation(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn image_mut(&mut self) -> Option<&mut Image> {
        match &mut self.base {
            Base::Image(image) => Some(image),
            Base::Installation(_) => None,
        }
    }

    /// The installation that it is made by, if it is.
    #[must_use]
    pub fn installation(&self) -> Option<&Installation> {
        match &self.base {
            Base::Image(_) => None,
            Base::Installation(installation) => Some(installation),
        }
    }

    /// The name of the image, or of the medium that is installed from.
    #[must_use]
    pub fn base_name(&self) -> &ResourceName {
        match &self.base {
            Base::Image(image) => &image.name,
            Base::Installation(installation) => &installation.disc.medium,
        }
    }

    /// Selects the domain template.
    #[must_use]
    pub fn os_family(&self) -> OsFamily {
        match &self.base {
            Base::Image(image) => image.os_family,
            Base::Installation(installation) => installation.family.os_family(),
        }
    }

    /// Whether it reads a seed medium on its first boot, or its installer does.
    #[must_use]
    pub fn is_provisioned(&self) -> bool {
        // What an installer has put onto a disk is copied with it.
        let is_copied = self.cloned_from().is_some();
        self.image().map_or(!is_copied, |image| image.provisioning == Provisioning::CloudInit)
    }

    /// Whether its medium installs our agent for Linux, and so can give it a key to seal with. Other
    /// agents would not know where to look for it.
    #[must_use]
    pub fn is_given_a_seal(&self) -> bool {
        self.os_family() == OsFamily::Linux
            && self.is_provisioned()
            && self.installation().is_none_or(|installation| installation.agent)
    }

    /// The VM whose disks its own are copies of, if they are.
    #[must_use]
    pub fn cloned_from(&self) -> Option<VmId> {
        match &self.origin {
            Origin::Cloned { from } => Some(*from),
            Origin::Created | Origin::Adopted { .. } => None,
        }
    }

    /// Whether others made its domain.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        matches!(self.origin, Origin::Adopted { .. })
    }

    /// What to do when its domain is gone from the host, for people.
    #[must_use]
    pub fn when_gone(&self) -> &'static str {
        match self.origin {
            Origin::Created | Origin::Cloned { .. } => {
                "restore it under the same UUID, or delete the VM with `deleteVm`"
            }
            Origin::Adopted { .. } => "restore it under the same UUID, or forget the VM with `releaseDomain`",
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.vcpus == 0 || self.vcpus > Self::MAX_VCPUS {
            return Err(SpecError::Vcpus { max: Self::MAX_VCPUS, given: self.vcpus.into() });
        }
        if !(Self::MIN_MEMORY_MIB..=Self::MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return Err(SpecError::Memory {
                min: Self::MIN_MEMORY_MIB,
                max: Self::MAX_MEMORY_MIB,
                given: i64::try_from(self.memory_mib).unwrap_or(i64::MAX),
            });
        }
        if let Some(image) = self.image().filter(|image| self.disk_bytes < image.virtual_bytes) {
            return Err(SpecError::DiskTooSmall {
                image: image.name.to_string(),
                needed: image.virtual_bytes,
                given: self.disk_bytes,
            });
        }
        if self.disk_bytes > Self::MAX_DISK_BYTES {
            return Err(SpecError::DiskTooLarge { max: Self::MAX_DISK_BYTES, given: self.disk_bytes });
        }
        Ok(())
    }
}
