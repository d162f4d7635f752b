//! What is done for a system that is installed from a disc: the installer's files, the change from its
//! boot to the disk's, and what is looked at meanwhile.

use std::path::{Path, PathBuf};

use super::{
    apply::{Hands, StepError, disk},
    observation::InstallSigns,
};
use crate::{
    failpoint::failpoint,
    store::VmBundle,
    vm::{
        Disc, Installation, InstallerBoot, Milestone, Resource, ResourceKind, ResourceState, VmId, chain,
        disc_file_name,
    },
};

/// The files of an installer, by what their names end in.
const FILES: [&str; 3] = ["kernel", "initrd", "iso"];

impl Hands {
    pub(super) async fn write_installer(&self, bundle: &VmBundle) -> Result<(), StepError> {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        let rows = FILES.map(|ending| self.installer_file(id, ending));
        for row in &rows {
            self.store.reserve_resource(row).await?;
            failpoint!("write-installer.listed");
        }
        failpoint!("write-installer.reserved");
        let boot =
            self.files.write_installer(id, spec, bundle.seal.as_ref(), &self.settings.seeds_dir).await?;
        failpoint!("write-installer.made");
        let made = made(&boot);
        for row in &rows {
            if made.contains(&self.settings.seeds_dir.join(&row.name)) {
                self.store.resource_created(row).await?;
                failpoint!("keep-installer.kept");
            } else {
                self.files.remove(&self.settings.seeds_dir, &row.name).await?;
                failpoint!("keep-installer.removed");
                self.store.release_resource(row).await?;
                failpoint!("keep-installer.released");
            }
        }
        failpoint!("write-installer.noted");
        self.store.pass_milestone(id, Milestone::SeedWritten, self.clock.now()).await?;
        failpoint!("write-installer.passed");
        Ok(())
    }

    /// What the domain boots with while its system is not installed.
    pub(super) async fn installer_boot(&self, bundle: &VmBundle) -> Result<Option<InstallerBoot>, StepError> {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        if spec.installation().is_none() || bundle.record.milestones.system_installed.is_some() {
            return Ok(None);
        }
        Ok(Some(self.files.installer_boot(id, spec, &self.settings.seeds_dir).await?))
    }

    /// The domain is started in the same step: one that runs before the milestone is passed runs from
    /// its disk, so that no crash between leaves it off, or has it started twice.
    pub(super) async fn replace_boot(&self, bundle: &VmBundle) -> Result<(), StepError> {
        let id = bundle.record.id;
        self.hypervisor.boot_from_disk(id, self.media(bundle)).await?;
        failpoint!("replace-boot.edited");
        let intent = &bundle.record.intent;
        if intent.power.is_on() && !intent.deleting {
            self.hypervisor.start(id).await?;
            failpoint!("replace-boot.started");
        }
        self.store.pass_milestone(id, Milestone::BootReplaced, self.clock.now()).await?;
        failpoint!("replace-boot.passed");
        Ok(())
    }

    /// Everything that an installation put into drives.
    fn media(&self, bundle: &VmBundle) -> Vec<PathBuf> {
        let Some(installation) = bundle.record.spec.installation() else { return Vec::new() };
        let answers = self.settings.seeds_dir.join(self.installer_file(bundle.record.id, "iso").name);
        discs(installation, &self.settings.discs_dir).chain([answers]).collect()
    }

    /// Firmware that was not heard is found as an installation that does not move: a key is no reason
    /// to hold anything up.
    pub(super) async fn press_key(&self, id: VmId) {
        if let Err(error) = self.hypervisor.press_enter(id).await {
            tracing::warn!(vm = %id, error = chain(&error), "a key could not be pressed");
        }
    }

    /// The installation has ended: its files and secrets go.
    pub(super) async fn clear_installer(&self, bundle: &VmBundle) -> Result<(), StepError> {
        for row in bundle.resources.iter().filter(|row| row.kind == ResourceKind::Seed) {
            self.files.shred(row.place.as_ref(), &row.name).await?;
            failpoint!("clear-installer.shredded");
            self.store.release_resource(row).await?;
            failpoint!("clear-installer.released");
        }
        self.store.forget_secrets(bundle.record.id, self.clock.now()).await?;
        failpoint!("clear-installer.forgotten");
        Ok(())
    }

    /// How an installation shows itself. `disk` is where its disk was found before.
    pub(super) async fn install_signs(
        &self,
        bundle: &VmBundle,
        disk_path: &mut Option<PathBuf>,
    ) -> InstallSigns {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        if disk_path.is_none() {
            let volume = disk(id, spec.pool.as_str());
            *disk_path = match self.hypervisor.volume_path(id, &volume.place, &volume.name).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(vm = %id, error = chain(&error), "the disk cannot be looked at");
                    None
                }
            };
        }
        let console = self.settings.console_dir.join(self.console(id).name);
        self.files.install_signs(&console, disk_path.as_deref()).await
    }

    fn installer_file(&self, id: VmId, ending: &str) -> Resource {
        Resource {
            vm: id,
            kind: ResourceKind::Seed,
            place: self.settings.seeds_dir.display().to_string(),
            name: format!("vm-{id}.{ending}"),
            state: ResourceState::Creating,
        }
    }
}

/// The discs of the library that a system is installed from. One that came back from its domain knows
/// their names alone.
fn discs(installation: &Installation, library: &Path) -> impl Iterator<Item = PathBuf> {
    let path = |disc: &Disc| match disc.path.is_absolute() {
        true => disc.path.clone(),
        false => library.join(disc_file_name(&disc.medium)),
    };
    let discs = [Some(path(&installation.disc)), installation.drivers.as_ref().map(path)];
    discs.into_iter().flatten()
}

/// The files that a machine boots with.
fn made(boot: &InstallerBoot) -> Vec<PathBuf> {
    let kernel = boot.kernel.iter().flat_map(|kernel| [Some(kernel.kernel.clone()), kernel.initrd.clone()]);
    kernel.flatten().chain(boot.discs.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::InstallFamily;

    #[test]
    fn a_disc_whose_path_was_lost_is_found_by_its_name() {
        let disc = |name: &str, path: &str| Disc { medium: name.parse().unwrap(), path: path.into() };
        let mut installation = Installation {
            disc: disc("debian", "/elsewhere/debian.iso"),
            family: InstallFamily::Debian,
            label: None,
            kernel: None,
            drivers: Some(disc("virtio-win", "")),
            mirror: None,
            edition: None,
            medium_language: None,
            agent: true,
            token: None,
        };
        let library = Path::new("/media");
        let name = |name: &str| library.join(disc_file_name(&name.parse().unwrap()));
        let there: Vec<_> = discs(&installation, library).collect();
        assert_eq!(there, [PathBuf::from("/elsewhere/debian.iso"), name("virtio-win")]);
        (installation.disc.path, installation.drivers) = (PathBuf::new(), None);
        assert_eq!(discs(&installation, library).collect::<Vec<_>>(), [name("debian")]);
    }
}
