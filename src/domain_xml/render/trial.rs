//! A template filled in for made-up VMs of every shape: a mistake in it is found at start, not when
//! somebody waits for a VM.

use std::path::{Path, PathBuf};

use super::{DomainInputs, DomainKind, RenderError, Templates, render};
use crate::vm::{
    Base, Disc, Firmware, Image, ImageFormat, InstallFamily, Installation, InstallerBoot, KernelBoot,
    NetworkAttachment, Origin, OsFamily, Plugged, PowerKeeping, Provisioning, Unattended, VmId, VmSpec,
    WindowsRelease,
};

/// Renders it for each combination of what differs between VMs, and looks at each domain.
pub(super) fn try_every_shape(templates: &Templates, family: OsFamily) -> Result<(), RenderError> {
    let id = VmId::generate();
    for (base, installer) in made_up_bases(family)? {
        let mut spec = made_up(base)?;
        for network in [network()?, NetworkAttachment::User, NetworkAttachment::None] {
            spec.network = network;
            for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiSecureBoot] {
                spec.firmware = firmware;
                for tpm in [false, true] {
                    spec.tpm = tpm;
                    try_on_every_host(templates, id, &spec, installer.as_ref())?;
                }
            }
        }
    }
    Ok(())
}

fn try_on_every_host(
    templates: &Templates,
    id: VmId,
    spec: &VmSpec,
    installer: Option<&InstallerBoot>,
) -> Result<(), RenderError> {
    for kind in [DomainKind::Kvm, DomainKind::Qemu, DomainKind::Test] {
        for full in [false, true] {
            let inputs = DomainInputs {
                id,
                spec,
                kind,
                disk_path: Path::new("/made-up/disk.qcow2"),
                seed_path: full.then_some(Path::new("/made-up/seed.iso")),
                socket_path: Path::new("/made-up/agent.sock"),
                console_log: full.then_some(Path::new("/made-up/console.log")),
                installer,
            };
            render(templates, &inputs)?;
        }
    }
    Ok(())
}

type Booted = (Base, Option<InstallerBoot>);

fn made_up_bases(family: OsFamily) -> Result<Vec<Booted>, RenderError> {
    let kernel = |initrd: Option<&str>| KernelBoot {
        kernel: "/made-up/kernel".into(),
        initrd: initrd.map(PathBuf::from),
        cmdline: "made=up".to_owned(),
    };
    let mut all = vec![(image(family, None)?, None)];
    let (installed, installers) = match family {
        OsFamily::Linux => {
            for initrd in [None, Some("/made-up/initrd")] {
                all.push((image(family, Some(kernel(initrd)))?, None));
            }
            (vec![installation(InstallFamily::Debian, None)?], Some(kernel(Some("/made-up/initrd"))))
        }
        OsFamily::Windows => {
            let windows = InstallFamily::Windows(WindowsRelease::Windows11);
            (vec![installation(windows, None)?, installation(windows, Some(disc()?))?], None)
        }
    };
    for base in installed {
        let discs = [1, 2, 3].map(|disc| PathBuf::from(format!("/made-up/{disc}.iso")));
        let installer = InstallerBoot { kernel: installers.clone(), discs: discs.into() };
        all.extend([(base.clone(), Some(installer)), (base, None)]);
    }
    Ok(all)
}

fn image(os_family: OsFamily, kernel: Option<KernelBoot>) -> Result<Base, RenderError> {
    Ok(Base::Image(Image {
        name: named("made-up")?,
        description: String::new(),
        os_family,
        provisioning: Provisioning::None,
        disk: PathBuf::new(),
        format: ImageFormat::Qcow2,
        virtual_bytes: 1,
        sha256: String::new(),
        kernel,
    }))
}

fn disc() -> Result<Disc, RenderError> {
    Ok(Disc { medium: named("made-up")?, path: "/made-up/disc.iso".into() })
}

fn installation(family: InstallFamily, drivers: Option<Disc>) -> Result<Base, RenderError> {
    Ok(Base::Installation(Box::new(Installation {
        disc: disc()?,
        family,
        label: None,
        kernel: None,
        drivers,
        mirror: None,
        edition: None,
        medium_language: None,
        agent: true,
        token: None,
    })))
}

fn network() -> Result<NetworkAttachment, RenderError> {
    Ok(NetworkAttachment::Network(named("default")?))
}

fn made_up(base: Base) -> Result<VmSpec, RenderError> {
    Ok(VmSpec {
        name: named("made-up")?,
        firmware: Firmware::Bios,
        tpm: false,
        base,
        vcpus: 1,
        memory_mib: VmSpec::MIN_MEMORY_MIB,
        disk_bytes: 1,
        pool: named("default")?,
        network: NetworkAttachment::None,
        unattended: Unattended::default(),
        keeping: PowerKeeping::default(),
        devices: Plugged::default(),
        origin: Origin::Created,
    })
}

fn named<N: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<N, RenderError> {
    name.parse().map_err(|error: N::Err| RenderError::Trial(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{OsFamily, Templates, try_every_shape};

    #[test]
    fn the_built_in_templates_pass() {
        let templates = Templates::load(None).unwrap();
        for family in OsFamily::ALL {
            try_every_shape(&templates, family).unwrap();
        }
    }
}
