//! Whose installer is on a disc, and which of its files boot it. Pure.

use crate::vm::{InstallFamily, InstallerKernel, MediumFacts, WindowsRelease};

/// Kernel and initial RAM disk, by their paths on discs of x86-64; the first that is there counts.
type Boots = &'static [(&'static str, &'static str)];

const DEBIAN: Boots = &[
    ("install.amd/vmlinuz", "install.amd/initrd.gz"),
    ("linux", "initrd.gz"),
    ("debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz"),
];
const UBUNTU: Boots = &[("casper/vmlinuz", "casper/initrd")];
const RED_HAT: Boots = &[("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img")];
const WINDOWS_LOADER: &str = "sources/boot.wim";
const WINDOWS_IMAGES: [&str; 3] = ["sources/install.wim", "sources/install.esd", "sources/install.swm"];

/// What a disc installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recognised {
    pub(super) family: InstallFamily,
    /// None of Windows: the firmware boots the disc.
    pub(super) kernel: Option<InstallerKernel>,
}

/// What can be installed from a disc of which that is known.
///
/// # Errors
/// Why nothing can, for people.
pub(super) fn recognise(facts: &MediumFacts) -> Result<Recognised, String> {
    let distribution = facts.distribution.as_deref();
    let (family, boots) = match (distribution, facts.version.as_deref()) {
        (Some("debian"), _) => (InstallFamily::Debian, DEBIAN),
        (Some("ubuntu"), _) => match facts.variant.as_deref() {
            None | Some("server") => (InstallFamily::Ubuntu, UBUNTU),
            Some(flavour) => {
                return Err(format!("it is Ubuntu's {flavour} disc; take the one of the live server"));
            }
        },
        (Some("fedora" | "rhel" | "centos" | "rocky" | "almalinux"), _) => (InstallFamily::RedHat, RED_HAT),
        (Some("windows"), Some("10")) => windows(WindowsRelease::Windows10),
        (Some("windows"), Some("11")) => windows(WindowsRelease::Windows11),
        (Some("windows-server"), Some("2019")) => windows(WindowsRelease::Server2019),
        (Some("windows-server"), Some("2022")) => windows(WindowsRelease::Server2022),
        (Some("windows-server"), Some("2025")) => windows(WindowsRelease::Server2025),
        (Some("windows" | "windows-server"), version) => {
            let version = version.unwrap_or("that does not say its version");
            return Err(format!("it is a Windows {version}, for which there is no recipe"));
        }
        _ => return Err("it does not say that it is of a family for which there is a recipe".to_owned()),
    };
    if let Some(arch) = facts.arch.as_deref().filter(|arch| !matches!(*arch, "amd64" | "x86_64")) {
        return Err(format!("it is for {arch}; VMs are x86-64"));
    }
    let has = |path: &str| facts.boot_files.iter().any(|file| file == path);
    if let InstallFamily::Windows(_) = family {
        let installs = has(WINDOWS_LOADER) && WINDOWS_IMAGES.into_iter().any(has);
        let missing = "it has none of the images that Windows is installed from";
        return installs.then_some(Recognised { family, kernel: None }).ok_or_else(|| missing.to_owned());
    }
    let found = boots.iter().find(|(kernel, initrd)| has(kernel) && has(initrd));
    let Some((kernel, initrd)) = found else {
        return Err("it has no kernel and initial RAM disk of an installer where they should be".to_owned());
    };
    let kernel = InstallerKernel { kernel: (*kernel).to_owned(), initrd: (*initrd).to_owned() };
    Ok(Recognised { family, kernel: Some(kernel) })
}

fn windows(release: WindowsRelease) -> (InstallFamily, Boots) {
    (InstallFamily::Windows(release), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(distribution: &str, version: &str, arch: Option<&str>, boot_files: &[&str]) -> MediumFacts {
        MediumFacts {
            distribution: Some(distribution.to_owned()),
            version: (!version.is_empty()).then(|| version.to_owned()),
            arch: arch.map(str::to_owned),
            boot_files: boot_files.iter().map(|&path| path.to_owned()).collect(),
            ..MediumFacts::default()
        }
    }

    #[test]
    fn each_family_boots_from_its_own_files() {
        let pxe = ["images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"];
        for (distribution, arch, files, family) in [
            (
                "debian",
                Some("amd64"),
                ["install.amd/vmlinuz", "install.amd/initrd.gz"],
                InstallFamily::Debian,
            ),
            ("debian", None, ["linux", "initrd.gz"], InstallFamily::Debian),
            ("ubuntu", Some("amd64"), ["casper/vmlinuz", "casper/initrd"], InstallFamily::Ubuntu),
            ("fedora", Some("x86_64"), pxe, InstallFamily::RedHat),
            ("rhel", Some("x86_64"), pxe, InstallFamily::RedHat),
            ("centos", Some("x86_64"), pxe, InstallFamily::RedHat),
            ("rocky", Some("x86_64"), pxe, InstallFamily::RedHat),
            ("almalinux", None, pxe, InstallFamily::RedHat),
        ] {
            let found = recognise(&facts(distribution, "", arch, &files)).unwrap();
            let kernel = InstallerKernel { kernel: files[0].to_owned(), initrd: files[1].to_owned() };
            assert_eq!(found, Recognised { family, kernel: Some(kernel) }, "{distribution}");
        }
        let images = ["sources/boot.wim", "sources/install.wim"];
        for (distribution, version, release) in [
            ("windows", "10", WindowsRelease::Windows10),
            ("windows", "11", WindowsRelease::Windows11),
            ("windows-server", "2019", WindowsRelease::Server2019),
            ("windows-server", "2022", WindowsRelease::Server2022),
            ("windows-server", "2025", WindowsRelease::Server2025),
        ] {
            let found = recognise(&facts(distribution, version, Some("amd64"), &images)).unwrap();
            assert_eq!(found, Recognised { family: InstallFamily::Windows(release), kernel: None });
        }
    }

    #[test]
    fn what_cannot_be_installed_is_refused_with_the_reason() {
        let debian = ["install.amd/vmlinuz", "install.amd/initrd.gz"];
        let images = ["sources/boot.wim", "sources/install.wim"];
        let mut desktop = facts("ubuntu", "24.04", Some("amd64"), &["casper/vmlinuz", "casper/initrd"]);
        desktop.variant = Some("desktop".to_owned());
        for (facts, words) in [
            (MediumFacts::default(), "of a family"),
            (facts("plan9", "4", None, &debian), "of a family"),
            (facts("debian", "13", Some("arm64"), &debian), "arm64"),
            (facts("debian", "13", Some("amd64"), &debian[..1]), "no kernel"),
            (facts("fedora", "42", Some("x86_64"), &debian), "no kernel"),
            (facts("windows", "", Some("amd64"), &images), "its version"),
            (facts("windows-server", "2016", Some("amd64"), &images), "2016"),
            (facts("windows", "11", Some("arm64"), &images), "arm64"),
            (facts("windows", "11", Some("amd64"), &images[..1]), "images"),
            (desktop, "live server"),
        ] {
            let refused = recognise(&facts).unwrap_err();
            assert!(refused.contains(words), "{facts:?}: {refused}");
        }
    }
}
