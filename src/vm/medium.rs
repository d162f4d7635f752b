//! Media: disks and installation discs that are brought into the house, and what is known of them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{HostId, ImageFormat, MediumId, OsFamily, Provisioning, ResourceName, UserId};

/// What a medium is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumKind {
    /// A disk that VMs are made from: it becomes an image of the library.
    DiskImage,
    /// A disc that an operating system is installed from.
    Installation,
}

/// How far the bringing in, or the taking away, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumState {
    /// Waits for its turn.
    Queued,
    /// Its bytes are being read.
    Downloading,
    /// All bytes are there; they are looked at and put in their place.
    Checking,
    /// Fit for use.
    Ready,
    /// Given up; the failure says why.
    Failed,
    /// On its way out.
    Deleting,
}

/// The name of a disc's file in the directory of discs.
#[must_use]
pub fn disc_file_name(name: &ResourceName) -> String {
    format!("{name}.iso")
}

impl MediumState {
    /// Whether something is still to be done before it is ready or failed.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Downloading | Self::Checking)
    }
}

/// Where a medium comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum MediumSource {
    /// An http or https URL without user and password. Its query may be secret.
    Url(String),
    /// An absolute path of this host.
    Path(String),
}

impl MediumSource {
    /// The same without what may be secret.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self {
            Self::Url(url) => url.split(['?', '#']).next().unwrap_or_default(),
            Self::Path(path) => path,
        }
    }
}

impl fmt::Debug for MediumSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

/// What the image library is told of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFacts {
    /// One line for people.
    pub description: String,
    /// Selects the domain template.
    pub os_family: OsFamily,
    /// How a first boot is configured.
    pub provisioning: Provisioning,
    /// As declared; never probed.
    pub format: ImageFormat,
}

/// What an installation disc was recognised as. Empty where nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MediumFacts {
    /// The volume's label, without control characters, at most 128 bytes.
    pub label: Option<String>,
    /// Linux or Windows.
    pub os_family: Option<OsFamily>,
    /// One of `ubuntu`, `debian`, `fedora`, `rhel`, `centos`, `rocky`, `almalinux`, `windows`,
    /// `windows-server`.
    pub distribution: Option<String>,
    /// As in `24.04.2`, `13.0.0`, `41`, `9.4`, `11`, `2022`.
    pub version: Option<String>,
    /// As in `server`, `netinst`, `DVD`, `Pro`.
    pub variant: Option<String>,
    /// As in `amd64`, `x86_64`, `arm64`.
    pub arch: Option<String>,
    /// Whether firmware finds something to boot (El Torito).
    pub bootable: bool,
    /// Which of the files that an installation begins with are there, by path.
    pub boot_files: Vec<String>,
}

/// Why an import was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumFailure {
    /// A stable code, as `CHECKSUM_MISMATCH`.
    pub code: String,
    /// A sentence for people, at most 500 characters.
    pub message: String,
}

/// A medium, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// Its id, also of its files while they are being written.
    pub id: MediumId,
    /// Where it is.
    pub host: HostId,
    /// Unique on the host.
    pub name: ResourceName,
    /// What for.
    pub kind: MediumKind,
    /// Where from.
    pub source: MediumSource,
    /// What its SHA-256 must be, lower-case hexadecimal.
    pub expected_sha256: Option<String>,
    /// What its SHA-256 is, once all bytes were there.
    pub sha256: Option<String>,
    /// Of a disk image.
    pub disk: Option<DiskFacts>,
    /// How far it is.
    pub state: MediumState,
    /// Bytes that are on this host's disk for certain.
    pub bytes_done: u64,
    /// Bytes it will have, where the source said so.
    pub bytes_total: Option<u64>,
    /// What tells one state of the source from another: an entity tag, a date, a file's stamp.
    pub validator: Option<String>,
    /// A file of it, not in its place yet, may be on the disk.
    pub partial: bool,
    /// Such a file is of no more use.
    pub discard: bool,
    /// What it was recognised as.
    pub facts: MediumFacts,
    /// Why it was given up.
    pub failure: Option<MediumFailure>,
    /// Who asked.
    pub requested_by: UserId,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When work on it began, last.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was ready or given up.
    pub finished_at: Option<DateTime<Utc>>,
}
