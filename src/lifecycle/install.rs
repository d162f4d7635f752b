//! From a medium of the library to an installation: whose installer is on the disc, what it boots from,
//! and whether it can be told what was asked for. What is refused here is refused before anything is
//! stored, instead of half an hour later by an installer that waits for somebody.

mod disc;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::io::AsyncReadExt;

use super::{Lifecycle, LifecycleError, request::invalid};
use crate::{
    access::Actor,
    domain_xml::{Templates, mac_address},
    install::{AgentFiles, InstallAgent, InstallInputs, MediaError, Recipes, WindowsAgentFiles, plan_media},
    media::Media,
    vm::{
        Disc, Firmware, FirstBootSecret, InstallFamily, InstallReport, Installation, MediumKind, MediumState,
        OsFamily, ResourceName, VmId, VmSpec, WindowsRelease, chain,
    },
};
use disc::recognise;

const TOKEN_BYTES: usize = 32;
/// The least that a system is installed on, GiB.
const LEAST_DISK_GIB: [(OsFamily, u64); 2] = [(OsFamily::Linux, 4), (OsFamily::Windows, 32)];

/// What installations are made with.
#[derive(Clone)]
pub struct Installers {
    /// The discs.
    pub media: Media,
    /// How answers are written.
    pub recipes: Recipes,
    /// How VMs are built.
    pub templates: Templates,
    /// Where the agent is.
    pub base_dir: PathBuf,
}

/// A request for an installation, as a client wrote it.
#[derive(Debug, Clone)]
pub struct InstallRequest {
    /// The name of an installation medium of the library.
    pub medium: String,
    /// Windows only.
    pub edition: Option<String>,
    /// Windows only.
    pub medium_language: Option<String>,
    /// The name of the medium with Windows' drivers for virtio.
    pub drivers: Option<String>,
    /// Where packages come from; not for Windows.
    pub mirror: Option<String>,
    /// Whether our agent is installed with it.
    pub agent: bool,
}

/// The same with names that are names.
pub(super) struct AskedInstall {
    pub(super) medium: ResourceName,
    drivers: Option<ResourceName>,
    edition: Option<String>,
    medium_language: Option<String>,
    mirror: Option<String>,
    agent: bool,
}

impl InstallRequest {
    pub(super) fn parse(&self) -> Result<AskedInstall, LifecycleError> {
        let name = |field, text: &str| text.parse().map_err(|error| invalid(field, error));
        Ok(AskedInstall {
            medium: name("install.medium", &self.medium)?,
            drivers: self.drivers.as_deref().map(|drivers| name("install.drivers", drivers)).transpose()?,
            edition: self.edition.clone(),
            medium_language: self.medium_language.clone(),
            mirror: self.mirror.clone(),
            agent: self.agent,
        })
    }
}

impl Lifecycle {
    /// The installation that was asked for, as far as disc, agent and templates have a say in it.
    pub(super) async fn installation(
        &self,
        actor: &Actor,
        asked: AskedInstall,
    ) -> Result<Installation, LifecycleError> {
        let medium = self.ready(actor, &asked.medium).await?;
        let unfit = |reason: String| LifecycleError::MediumNotInstallable {
            medium: asked.medium.to_string(),
            reason,
        };
        let disc = recognise(&medium.facts).map_err(unfit)?;
        refuse_what_it_does_not_read(disc.family, &asked)?;
        if asked.agent {
            self.check_agent(disc.family.os_family()).await?;
            check_port(disc.family, asked.drivers.is_some())?;
        }
        if !self.installers.templates.has(disc.family.os_family()) {
            return Err(unfit(format!(
                "there is no domain template for {} VMs yet",
                disc.family.os_family()
            )));
        }
        let drivers = match asked.drivers {
            Some(name) => {
                self.ready(actor, &name).await?;
                Some(self.disc(name))
            }
            None => None,
        };
        Ok(Installation {
            disc: self.disc(asked.medium),
            family: disc.family,
            label: medium.facts.label,
            kernel: disc.kernel,
            drivers,
            mirror: asked.mirror,
            edition: asked.edition,
            medium_language: asked.medium_language,
            agent: asked.agent,
            token: Some(token().await.map_err(LifecycleError::Randomness)?),
        })
    }

    fn disc(&self, medium: ResourceName) -> Disc {
        Disc { path: self.installers.media.disc(&medium), medium }
    }

    async fn ready(&self, actor: &Actor, name: &ResourceName) -> Result<crate::vm::Medium, LifecycleError> {
        let found = self.installers.media.get(actor, name.as_str()).await.map_err(LifecycleError::Media)?;
        let missing = || LifecycleError::NoMedium(name.to_string());
        let medium = found.filter(|medium| medium.kind == MediumKind::Installation).ok_or_else(missing)?;
        match medium.state {
            MediumState::Ready => Ok(medium),
            MediumState::Deleting => Err(missing()),
            MediumState::Queued | MediumState::Downloading | MediumState::Checking => {
                Err(LifecycleError::MediumNotReady(name.to_string(), "is still being imported"))
            }
            MediumState::Failed => {
                Err(LifecycleError::MediumNotReady(name.to_string(), "could not be imported"))
            }
        }
    }

    async fn check_agent(&self, family: OsFamily) -> Result<(), LifecycleError> {
        let base_dir = self.installers.base_dir.clone();
        let read = tokio::task::spawn_blocking(move || read_agent(family, &base_dir)).await;
        read.map_err(|died| LifecycleError::Answers(died.into()))?.map_err(|error| {
            tracing::warn!(error = chain(&error), "a VM was asked for whose agent is not there");
            LifecycleError::AgentBinaryMissing(family)
        })
    }

    /// Whether the installer can be told what was asked for: its answers are written, and thrown away.
    pub(super) async fn check_answers(&self, id: VmId, spec: &VmSpec) -> Result<(), LifecycleError> {
        let (recipes, spec) = (self.installers.recipes.clone(), Arc::new(spec.clone()));
        let tried = tokio::task::spawn_blocking(move || try_answers(&recipes, id, &spec)).await;
        tried.map_err(|died| LifecycleError::Answers(died.into()))?
    }

    /// Notes how far an installer says it is, who proves himself by a token; `false` where no installation
    /// that is under way has that token.
    ///
    /// # Errors
    /// `Store`.
    pub async fn report_install(&self, token: &str, report: &InstallReport) -> Result<bool, LifecycleError> {
        let digest = Installation::token_sha256(token);
        let heard = self.store.report_install(&digest, report).await.map_err(LifecycleError::Store)?;
        let Some(heard) = heard else { return Ok(false) };
        if heard.is_news {
            self.waker.wake(heard.vm);
        }
        Ok(true)
    }
}

/// What the VM itself must have for its system.
pub(super) fn check_machine(spec: &VmSpec) -> Result<(), LifecycleError> {
    let Some(installation) = spec.installation() else { return Ok(()) };
    let family = installation.family.os_family();
    let least = LEAST_DISK_GIB.into_iter().find(|(of, _)| *of == family).map_or(0, |(_, gib)| gib);
    if spec.disk_bytes < least << 30 {
        return Err(invalid("diskGib", format_args!("{family} is installed on at least {least} GiB")));
    }
    check_firmware(installation.family, spec.firmware, spec.tpm)
}

fn check_firmware(family: InstallFamily, firmware: Firmware, tpm: bool) -> Result<(), LifecycleError> {
    match family {
        InstallFamily::Windows(WindowsRelease::Windows11) if firmware != Firmware::UefiSecureBoot => {
            Err(invalid("firmware", "Windows 11 wants UEFI with secure boot"))
        }
        InstallFamily::Windows(WindowsRelease::Windows11) if !tpm => {
            Err(invalid("tpm", "Windows 11 wants a TPM"))
        }
        _ => Ok(()),
    }
}

/// Settings that an installer does not read must not be accepted as if it followed them.
fn refuse_what_it_does_not_read(family: InstallFamily, asked: &AskedInstall) -> Result<(), LifecycleError> {
    match family {
        InstallFamily::Windows(_) if asked.mirror.is_some() => {
            Err(invalid("install.mirror", "Windows has no packages that come from a mirror"))
        }
        InstallFamily::Windows(_) => Ok(()),
        InstallFamily::Ubuntu | InstallFamily::Debian | InstallFamily::RedHat => {
            let windows_only = [
                ("install.edition", asked.edition.is_some()),
                ("install.mediumLanguage", asked.medium_language.is_some()),
                ("install.drivers", asked.drivers.is_some()),
            ];
            match windows_only.into_iter().find(|(_, given)| *given) {
                Some((field, _)) => Err(invalid(field, "is for Windows only")),
                None => Ok(()),
            }
        }
    }
}

/// The agent is heard through a virtio port; Windows knows none by itself.
fn check_port(family: InstallFamily, drivers: bool) -> Result<(), LifecycleError> {
    match family {
        InstallFamily::Windows(_) if !drivers => Err(invalid(
            "install.drivers",
            "Windows' agent talks through a virtio port: name the medium with the drivers, or leave out the agent",
        )),
        _ => Ok(()),
    }
}

fn read_agent(family: OsFamily, base_dir: &Path) -> Result<(), crate::install::AgentFilesError> {
    match family {
        OsFamily::Linux => AgentFiles::read(base_dir).map(drop),
        OsFamily::Windows => WindowsAgentFiles::read(base_dir).map(drop),
    }
}

fn try_answers(recipes: &Recipes, id: VmId, spec: &VmSpec) -> Result<(), LifecycleError> {
    let Some(installation) = spec.installation() else { return Ok(()) };
    let mac = mac_address(id);
    let inputs = InstallInputs {
        id,
        spec,
        mac: &mac,
        url: None,
        seal: None,
        progress_url: None,
        volume_label: installation.label.as_deref(),
        mirror: installation.mirror.as_deref(),
        uefi: spec.firmware.is_uefi(),
        edition: installation.edition.as_deref(),
        medium_language: installation.medium_language.as_deref(),
    };
    // The agent's own files depend on nothing that was asked for.
    plan_media(installation.family, recipes, &inputs, InstallAgent::None).map(drop).map_err(|error| {
        match error {
            MediaError::Setting(wrong) => invalid(wrong.field, wrong.reason),
            unfit @ MediaError::Input { .. } => LifecycleError::MediumNotInstallable {
                medium: installation.disc.medium.to_string(),
                reason: unfit.to_string(),
            },
            broken => LifecycleError::Answers(broken.into()),
        }
    })
}

/// What an installer proves itself with: 256 random bits.
async fn token() -> std::io::Result<FirstBootSecret> {
    let mut random = [0; TOKEN_BYTES];
    tokio::fs::File::open("/dev/urandom").await?.read_exact(&mut random).await?;
    Ok(FirstBootSecret::new(random.iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_are_long_and_different() {
        let (one, two) = (token().await.unwrap(), token().await.unwrap());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), 64);
        assert!(one.expose().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }

    #[test]
    fn windows_11_wants_secure_boot_and_a_tpm() {
        let field =
            |release, firmware, tpm| match check_firmware(InstallFamily::Windows(release), firmware, tpm) {
                Ok(()) => None,
                Err(LifecycleError::Invalid { field, .. }) => Some(field),
                Err(other) => panic!("{other}"),
            };
        let eleven = WindowsRelease::Windows11;
        assert_eq!(field(eleven, Firmware::Bios, true), Some("firmware"));
        assert_eq!(field(eleven, Firmware::Uefi, true), Some("firmware"));
        assert_eq!(field(eleven, Firmware::UefiSecureBoot, false), Some("tpm"));
        assert_eq!(field(eleven, Firmware::UefiSecureBoot, true), None);
        assert_eq!(field(WindowsRelease::Windows10, Firmware::Bios, false), None);
    }
}
