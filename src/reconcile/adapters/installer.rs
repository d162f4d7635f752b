//! An installer's files: its kernel and initial RAM disk out of its disc, and the answers that are
//! made for it, on a medium of their own or behind its RAM disk.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    files::{HostFiles, failed, nofollow, write_whole},
    hold,
};
use crate::{
    domain_xml::mac_address,
    install::{
        AgentFiles, InstallAgent, InstallInputs, InstallMedia, Recipes, WindowsAgentFiles, build_medium,
        plan_media,
    },
    media::{MAX_INITRD, MAX_KERNEL, extract},
    reconcile::{
        console::{TAIL, last_lines, line_numbers, stage},
        observation::InstallSigns,
        ports::FilesError,
    },
    vm::{InstallFamily, Installation, InstallerBoot, KernelBoot, SealKey, VmId, VmSpec},
};

/// What an installation is made with on this host.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    pub(super) recipes: Recipes,
    /// Where installers report; none where guests cannot reach us.
    pub(super) reports: Option<SocketAddr>,
}

impl HostFiles {
    /// See `Files::write_installer`.
    pub(super) fn put_installer(
        &self,
        vm: VmId,
        spec: &VmSpec,
        seal: Option<&SealKey>,
        dir: &Path,
    ) -> Result<InstallerBoot, FilesError> {
        let installation = installation(spec)?;
        let media = self.plan(vm, spec, seal, installation)?;
        if let Some(kernel) = &installation.kernel {
            let disc = &installation.disc.path;
            extract(disc, &kernel.kernel, &dir.join(name(vm, "kernel")), MAX_KERNEL)
                .map_err(failed("taking the installer's kernel out of its disc"))?;
            let draft = dir.join(name(vm, "initrd.draft"));
            extract(disc, &kernel.initrd, &draft, MAX_INITRD)
                .map_err(failed("taking the installer's initial RAM disk out of its disc"))?;
            append(&draft, media.initrd_append.as_deref().unwrap_or_default())
                .and_then(|()| fs::rename(&draft, dir.join(name(vm, "initrd"))))
                .and_then(|()| {
                    fs::set_permissions(dir.join(name(vm, "kernel")), Permissions::from_mode(0o600))
                })
                .and_then(|()| {
                    ["kernel", "initrd"].iter().try_for_each(|what| hold::keep_at(&dir.join(name(vm, what))))
                })
                .and_then(|()| File::open(dir)?.sync_all())
                .map_err(failed("writing the installer's initial RAM disk"))?;
        }
        if let Some(label) = media.label {
            let iso =
                build_medium(label, &media.files).map_err(failed("building the medium of the answers"))?;
            write_whole(dir, &name(vm, "iso"), &iso).map_err(failed("writing the medium of the answers"))?;
        }
        Ok(boot(vm, installation, &media, dir))
    }

    /// See `Files::installer_boot`.
    pub(super) fn name_installer(
        &self,
        vm: VmId,
        spec: &VmSpec,
        dir: &Path,
    ) -> Result<InstallerBoot, FilesError> {
        let installation = installation(spec)?;
        Ok(boot(vm, installation, &self.plan(vm, spec, None, installation)?, dir))
    }

    fn plan(
        &self,
        vm: VmId,
        spec: &VmSpec,
        seal: Option<&SealKey>,
        installation: &Installation,
    ) -> Result<InstallMedia, FilesError> {
        let mac = mac_address(vm);
        let token = installation.token.as_ref();
        let progress_url = self
            .kit
            .reports
            .zip(token)
            .map(|(address, token)| format!("http://{address}/install/{}", token.expose()));
        let family = installation.family;
        let inputs = InstallInputs {
            id: vm,
            spec,
            mac: &mac,
            url: self.guest_url.as_deref(),
            seal: self.delivery(seal),
            progress_url: progress_url.as_deref(),
            // Who must be told: to others it may be any text.
            volume_label: installation.label.as_deref().filter(|_| family == InstallFamily::RedHat),
            mirror: installation.mirror.as_deref(),
            uefi: spec.firmware.is_uefi(),
            edition: installation.edition.as_deref(),
            medium_language: installation.medium_language.as_deref(),
        };
        let reading = "reading the agent's files";
        let plan = |agent: InstallAgent<'_>| {
            plan_media(family, &self.kit.recipes, &inputs, agent)
                .map_err(failed("laying out the installer's answers"))
        };
        match (installation.agent, family) {
            (false, _) => plan(InstallAgent::None),
            (true, InstallFamily::Windows(_)) => plan(InstallAgent::Windows(
                &WindowsAgentFiles::read(&self.base_dir).map_err(failed(reading))?,
            )),
            (true, _) => {
                plan(InstallAgent::Linux(&AgentFiles::read(&self.base_dir).map_err(failed(reading))?))
            }
        }
    }
}

fn installation(spec: &VmSpec) -> Result<&Installation, FilesError> {
    spec.installation().ok_or_else(|| FilesError {
        operation: "preparing an installation".to_owned(),
        source: "the VM is made from an image".into(),
    })
}

fn name(vm: VmId, ending: &str) -> String {
    format!("vm-{vm}.{ending}")
}

fn boot(vm: VmId, installation: &Installation, media: &InstallMedia, dir: &Path) -> InstallerBoot {
    let kernel = installation.kernel.as_ref().map(|_| KernelBoot {
        kernel: dir.join(name(vm, "kernel")),
        initrd: Some(dir.join(name(vm, "initrd"))),
        cmdline: media.kernel_args.join(" "),
    });
    let drivers = installation.drivers.as_ref().map(|drivers| drivers.path.clone());
    let answers = media.label.map(|_| dir.join(name(vm, "iso")));
    let discs = [Some(installation.disc.path.clone()), drivers, answers].into_iter().flatten().collect();
    InstallerBoot { kernel, discs }
}

/// Behind what is there, at the next fourth byte, where a kernel looks for another archive.
fn append(path: &Path, archive: &[u8]) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let mut file = OpenOptions::new().write(true).custom_flags(nofollow()).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if !archive.is_empty() {
        let gap = usize::try_from(length.next_multiple_of(4) - length).unwrap_or_default();
        file.write_all(&[0; 4][..gap])?;
        file.write_all(archive)?;
    }
    file.sync_all()
}

/// What the console's log shows, see `Files::install_signs`.
pub(super) fn signs(console: &Path) -> InstallSigns {
    let (tail, cut) = tail(console).unwrap_or_default();
    InstallSigns {
        last_lines: last_lines(&tail, cut),
        lines: line_numbers(&tail, cut),
        stage: stage(&tail, cut),
        disk_bytes: None,
    }
}

/// The end of a plain file, and whether there is more before it.
fn tail(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let flags = nofollow() | rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("no plain file"));
    }
    let skipped = found.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok((bytes, skipped > 0))
}

/// The hidden draft of a file that is taken out of a disc.
pub(super) fn hidden_drafts(dir: &Path, name: &str) -> [PathBuf; 2] {
    [dir.join(format!(".{name}.part")), dir.join(format!(".{name}.draft.part"))]
}

#[cfg(test)]
mod tests;
