//! `manifest.toml`: what an image says of itself.

use serde::Deserialize;

use crate::vm::{ImageFormat, OsFamily, Provisioning};

/// Longest values, bytes.
const MAX_DESCRIPTION: usize = 512;
/// What an x86 kernel takes.
const MAX_CMDLINE: usize = 2048;
const MAX_FILE_NAME: usize = 255;

/// The manifest as written. A key that is not known is a mistake, not a wish.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// One line for people.
    #[serde(default)]
    pub(super) description: String,
    /// `linux` or `windows`.
    pub(super) os_family: OsFamily,
    /// `cloud-init` or `none`.
    pub(super) provisioning: Provisioning,
    /// The disk's file name, inside the image's folder.
    pub(super) disk: String,
    /// `qcow2` or `raw`.
    pub(super) format: ImageFormat,
    /// SHA-256 of the disk file, hexadecimal.
    pub(super) sha256: String,
    /// Where it boots without a boot loader.
    pub(super) kernel: Option<KernelManifest>,
}

/// Direct kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KernelManifest {
    /// The kernel's file name, inside the image's folder.
    pub(super) kernel: String,
    /// The initial RAM disk's file name, inside the image's folder.
    pub(super) initrd: Option<String>,
    /// The kernel's command line.
    #[serde(default)]
    pub(super) cmdline: String,
}

impl Manifest {
    /// Reads and checks; `Err` says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut manifest: Self =
            toml::from_str(text).map_err(|e| format!("manifest.toml: {}", e.message()))?;
        manifest.sha256.make_ascii_lowercase();
        if manifest.sha256.len() != 64 || !manifest.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err("manifest.toml: sha256 is not 64 hexadecimal digits".to_owned());
        }
        check_line("description", &manifest.description, MAX_DESCRIPTION)?;
        check_file_name("disk", &manifest.disk)?;
        if let Some(kernel) = &manifest.kernel {
            check_file_name("kernel.kernel", &kernel.kernel)?;
            if let Some(initrd) = &kernel.initrd {
                check_file_name("kernel.initrd", initrd)?;
            }
            check_line("kernel.cmdline", &kernel.cmdline, MAX_CMDLINE)?;
        }
        Ok(manifest)
    }
}

fn check_line(key: &str, line: &str, max: usize) -> Result<(), String> {
    if line.len() > max {
        return Err(format!("manifest.toml: {key} has more than {max} bytes"));
    }
    if line.chars().any(char::is_control) {
        return Err(format!("manifest.toml: {key} is not one line without control characters"));
    }
    Ok(())
}

/// A plain name: a manifest must not reach out of its folder.
fn check_file_name(key: &str, name: &str) -> Result<(), String> {
    let plain = !name.is_empty()
        && name.len() <= MAX_FILE_NAME
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c == '/' || c.is_control());
    if plain {
        Ok(())
    } else {
        Err(format!("manifest.toml: {key} is not the plain name of a file in its folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::Manifest;

    fn good() -> String {
        format!(
            "description = \"Debian 12\"\nos_family = \"linux\"\nprovisioning = \"cloud-init\"\n\
             disk = \"disk.qcow2\"\nformat = \"qcow2\"\nsha256 = \"{}\"\n\
             [kernel]\nkernel = \"vmlinuz\"\ninitrd = \"initrd.img\"\ncmdline = \"root=LABEL=root rw\"\n",
            "Ab".repeat(32)
        )
    }

    #[test]
    fn a_whole_manifest() {
        let manifest = Manifest::parse(&good()).unwrap();
        assert_eq!(manifest.sha256, "ab".repeat(32));
        assert_eq!(manifest.kernel.unwrap().initrd.as_deref(), Some("initrd.img"));
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("\"linux\"", "\"beos\"", "beos"),
            ("provisioning", "provision", "provision"),
            ("\"qcow2\"", "\"vmdk\"", "vmdk"),
            ("disk.qcow2", "../disk.qcow2", "disk is not the plain name"),
            ("disk.qcow2", "/etc/shadow", "disk is not the plain name"),
            ("disk.qcow2", "..", "disk is not the plain name"),
            ("disk.qcow2", "", "disk is not the plain name"),
            ("disk.qcow2", "a\\nb", "disk is not the plain name"),
            ("vmlinuz", "a/b", "kernel.kernel"),
            ("initrd.img", "..", "kernel.initrd"),
            ("root=LABEL", "a\\nb", "kernel.cmdline"),
            ("Debian 12", "a\\u001bb", "description"),
            ("sha256 = \"Ab", "sha256 = \"xy", "sha256"),
            ("sha256 = \"Ab", "sha256 = \"", "sha256"),
            ("[kernel]", "[kernel", "manifest.toml"),
            ("[kernel]", "[kernels]", "kernels"),
        ];
        for (from, to, expected) in table {
            let text = good().replacen(from, to, 1);
            assert_ne!(text, good(), "{from} is not in the manifest");
            let reason = Manifest::parse(&text).expect_err(to);
            assert!(reason.contains(expected), "{to}: {reason}");
        }
        assert!(Manifest::parse("").unwrap_err().contains("missing"));
    }
}
