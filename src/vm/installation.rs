//! Systems that are installed from a disc, by its own installer.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FirstBootSecret, OsFamily, ResourceName};

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

impl Installation {
    /// What is stored and looked up of a token: its SHA-256, lower-case hexadecimal. An index finds it in
    /// a time that depends on the digest alone, which tells nothing about the token.
    #[must_use]
    pub fn token_sha256(token: &str) -> String {
        Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
    }
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
    /// The installer has nothing left to do.
    pub const FINISHED: &str = "finished";
    /// Longest stage, characters.
    pub const MAX_STAGE: usize = 64;

    /// What came, if it is a stage.
    #[must_use]
    pub fn new(stage: &str, at: DateTime<Utc>) -> Option<Self> {
        let fine = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_stage = (1..=Self::MAX_STAGE).contains(&stage.len()) && stage.bytes().all(fine);
        is_stage.then(|| Self { stage: stage.to_owned(), at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_one_short_word() {
        for good in ["a", "installed", "installer-base-installer", "first-boot", &"7".repeat(64)] {
            assert_eq!(
                InstallReport::new(good, Utc::now()).map(|report| report.stage).as_deref(),
                Some(good)
            );
        }
        for bad in ["", "Installed", "a b", "a\n", "a=b", "ä", "<b>", "a\0", "a/b", "a_b", &"7".repeat(65)] {
            assert_eq!(InstallReport::new(bad, Utc::now()), None, "{bad:?}");
        }
    }

    #[test]
    fn of_a_token_its_digest_is_kept() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Installation::token_sha256(""), empty);
    }
}
