//! What is plugged into a VM beyond what it was made with, and the names that people give to it.
//! Kept in the specification, so that people see it and its removal knows what there is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ResourceName;

/// Why a name of a device was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDevice {
    /// No disk or drive is called that.
    #[error("a disk is called vda to vdz, a drive for media sda to sdz")]
    Target,
    /// No Linux interface is called that.
    #[error("a bridge's name has 1 to 15 letters, digits, '_', '.' and '-'")]
    Bridge,
    /// Not a hardware address.
    #[error("a hardware address is six pairs of hexadecimal digits with colons between")]
    Mac,
}

/// Where a disk or a drive is plugged in, as the domain names it: `vda` to `vdz` for disks, `sda`
/// to `sdz` for drives that take media.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DiskTarget(String);

impl DiskTarget {
    /// The disk that a VM was made with.
    #[must_use]
    pub fn root() -> Self {
        Self("vda".to_owned())
    }

    /// Every place for a disk.
    pub fn disks() -> impl Iterator<Item = Self> {
        ('a'..='z').map(|letter| Self(format!("vd{letter}")))
    }

    /// Every place for a drive.
    pub fn drives() -> impl Iterator<Item = Self> {
        ('a'..='z').map(|letter| Self(format!("sd{letter}")))
    }

    /// Whether it is a disk's and not a drive's.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        self.0.starts_with('v')
    }

    /// As the domain has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DiskTarget {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            [b'v' | b's', b'd', b'a'..=b'z'] => Ok(Self(text.to_owned())),
            _ => Err(InvalidDevice::Target),
        }
    }
}

impl TryFrom<String> for DiskTarget {
    type Error = InvalidDevice;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DiskTarget> for String {
    fn from(target: DiskTarget) -> Self {
        target.0
    }
}

impl fmt::Display for DiskTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bridge of the host: the name of a Linux network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BridgeName(String);

impl BridgeName {
    /// Longest name that Linux takes, bytes.
    const MAX_BYTES: usize = 15;

    /// As the host has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BridgeName {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len()) && !matches!(text, "." | "..");
        let sane = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if fits && sane { Ok(Self(text.to_owned())) } else { Err(InvalidDevice::Bridge) }
    }
}

impl TryFrom<String> for BridgeName {
    type Error = InvalidDevice;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BridgeName> for String {
    fn from(name: BridgeName) -> Self {
        name.0
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network card's hardware address, lower-case and colon separated.
///
/// # Errors
/// [`InvalidDevice::Mac`].
pub fn parse_mac(text: &str) -> Result<String, InvalidDevice> {
    let pairs = text.split(':').filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
    if text.len() == 17 && pairs.count() == 6 {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(InvalidDevice::Mac)
    }
}

/// What a network card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicSource {
    /// A libvirt network.
    Network(ResourceName),
    /// A bridge of the host.
    Bridge(BridgeName),
}

/// A disk beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedDisk {
    /// Where.
    pub target: DiskTarget,
    /// The pool of its volume.
    pub pool: ResourceName,
    /// Its volume, with the VM's id in the name.
    pub volume: String,
    /// Its size, bytes.
    pub bytes: u64,
}

/// What a drive holds. Told apart by its fields, so that it stands flat in what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DiscSource {
    /// A volume.
    Volume {
        /// Its pool.
        pool: ResourceName,
        /// Its name there.
        volume: ResourceName,
    },
    /// A disc of the library, which stays there as long as it is named here.
    Library {
        /// Its name.
        medium: ResourceName,
    },
}

impl DiscSource {
    /// The library's disc, if it is one.
    #[must_use]
    pub fn library(&self) -> Option<&ResourceName> {
        match self {
            Self::Volume { .. } => None,
            Self::Library { medium } => Some(medium),
        }
    }
}

/// A medium in a drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedMedium {
    /// The drive.
    pub target: DiskTarget,
    /// The medium.
    #[serde(flatten)]
    pub source: DiscSource,
}

/// A network card beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedInterface {
    /// Lower-case, colon separated.
    pub mac: String,
    /// What it is plugged into.
    pub source: NicSource,
}

/// Everything that was plugged in after the VM was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plugged {
    /// Disks.
    pub disks: Vec<PluggedDisk>,
    /// Media.
    pub media: Vec<PluggedMedium>,
    /// Network cards.
    pub interfaces: Vec<PluggedInterface>,
}

impl Plugged {
    /// Most network cards of one VM, the first included: what is to spare of the ports that a
    /// domain is made with.
    pub const MAX_INTERFACES: usize = 8;

    /// The disk at this place.
    #[must_use]
    pub fn disk(&self, target: &DiskTarget) -> Option<&PluggedDisk> {
        self.disks.iter().find(|disk| disk.target == *target)
    }

    /// The library's disc in this drive.
    #[must_use]
    pub fn library_disc(&self, target: &DiskTarget) -> Option<&ResourceName> {
        self.media.iter().find(|medium| medium.target == *target)?.source.library()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_drive_holds_is_read_as_it_was_written() {
        for text in [
            r#"{"target":"sda","pool":"discs","volume":"a.iso"}"#,
            r#"{"target":"sdb","medium":"debian-13"}"#,
        ] {
            let medium: PluggedMedium = serde_json::from_str(text).unwrap();
            assert_eq!(medium.source.library().is_some(), text.contains("medium"));
            assert_eq!(serde_json::to_string(&medium).unwrap(), text);
        }
        for text in [
            r#"{"target":"sda"}"#,
            r#"{"target":"sda","pool":"discs"}"#,
            r#"{"target":"sda","medium":"../x"}"#,
        ] {
            assert!(serde_json::from_str::<PluggedMedium>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_names_of_devices_are_names_of_devices() {
        for good in ["vda", "vdz", "sda"] {
            assert_eq!(good.parse::<DiskTarget>().unwrap().as_str(), good);
        }
        for bad in ["", "vd", "vdaa", "hda", "VDA", "vd1", "vda ", "vdá", "../vda", "vda'/><x"] {
            assert_eq!(bad.parse::<DiskTarget>(), Err(InvalidDevice::Target), "{bad:?}");
        }
        for good in ["br0", "a", "br-lan.10_x", "abcdefghijklmno"] {
            assert_eq!(good.parse::<BridgeName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "abcdefghijklmnop", "br 0", "br/0", "br0\n", "bŕ0", "a'b", "a:b"] {
            assert_eq!(bad.parse::<BridgeName>(), Err(InvalidDevice::Bridge), "{bad:?}");
        }
        assert_eq!(parse_mac("52:54:00:AB:cd:01").unwrap(), "52:54:00:ab:cd:01");
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0g",
            "52-54-00-ab-cd-01",
            "52:54:00:ab:cd:01:",
            "::::::::::::::::",
        ] {
            assert_eq!(parse_mac(bad), Err(InvalidDevice::Mac), "{bad:?}");
        }
    }
}
