//! Disks that are brought in: what the library asks of one before it takes it, and the manifest
//! that it is given. What is asked is more than of a disk that an operator put there: nobody has
//! looked at this one.

use std::{
    fs::File,
    io::{self, Seek},
};

use super::{clusters, manifest::Manifest, qcow2};
use crate::vm::{DiskFacts, ImageFormat, OsFamily, Provisioning};

/// The name of the disk in its folder.
pub const INCOMING_DISK: &str = "disk";
/// The manifest's name.
pub const MANIFEST: &str = "manifest.toml";
const SECTOR: u64 = 512;

/// Why a disk is not taken.
#[derive(Debug)]
pub enum DiskRefusal {
    /// It could not be read.
    Read(io::Error),
    /// It is not of its format at all.
    NotAnImage(String),
    /// It ends before what it says it holds.
    Truncated(String),
    /// It is of its format, and not fit for use: it names other files, for one.
    Unusable(String),
}

/// Looks at a disk whose bytes are all there. Blocking.
///
/// # Errors
/// See [`DiskRefusal`].
pub fn check_disk(file: &mut File, format: ImageFormat) -> Result<(), DiskRefusal> {
    let length = file.metadata().map_err(DiskRefusal::Read)?.len();
    if format == ImageFormat::Raw {
        return match length {
            0 => Err(DiskRefusal::Truncated("the disk is empty".to_owned())),
            _ if length % SECTOR != 0 => {
                Err(DiskRefusal::Truncated("the disk's length is not a multiple of 512 bytes".to_owned()))
            }
            _ => Ok(()),
        };
    }
    file.rewind().map_err(DiskRefusal::Read)?;
    match qcow2::virtual_size(&*file) {
        Ok(_) => clusters::check(file, length),
        Err(qcow2::Qcow2Error::Read(error)) => Err(DiskRefusal::Read(error)),
        Err(error @ qcow2::Qcow2Error::Refused(qcow2::NO_HEADER)) => {
            Err(DiskRefusal::NotAnImage(error.to_string()))
        }
        Err(error) => Err(DiskRefusal::Unusable(error.to_string())),
    }
}

/// The manifest of a disk that was brought in.
///
/// # Errors
/// What in it the library would not read.
pub fn incoming_manifest(disk: &DiskFacts, sha256: &str) -> Result<String, String> {
    let os_family = match disk.os_family {
        OsFamily::Linux => "linux",
        OsFamily::Windows => "windows",
    };
    let provisioning = match disk.provisioning {
        Provisioning::CloudInit => "cloud-init",
        Provisioning::None => "none",
    };
    let format = match disk.format {
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Raw => "raw",
    };
    // Of text without control characters JSON's notation is TOML's, too.
    let description = serde_json::Value::from(disk.description.as_str());
    let text = format!(
        "description = {description}\nos_family = \"{os_family}\"\nprovisioning = \"{provisioning}\"\n\
         disk = \"{INCOMING_DISK}\"\nformat = \"{format}\"\nsha256 = \"{sha256}\"\n"
    );
    Manifest::parse(&text).map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_description_becomes_a_manifest_that_can_be_read() {
        let disk = |description: &str| DiskFacts {
            description: description.to_owned(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::CloudInit,
            format: ImageFormat::Raw,
        };
        for description in ["", "Debian 12", "a \"b\" \\ 'c' # = [x] ${y} ü €", "\"\"\""] {
            let text = incoming_manifest(&disk(description), &"ab".repeat(32)).unwrap();
            assert_eq!(Manifest::parse(&text).unwrap().description, description);
        }
        for bad in ["a\nb", "\u{1b}", &"x".repeat(513)] {
            assert!(incoming_manifest(&disk(bad), &"ab".repeat(32)).is_err(), "{bad:?}");
        }
    }
}
