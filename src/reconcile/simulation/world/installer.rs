//! An installer and the system that it leaves: what a domain boots, and what becomes of it.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};

use super::{State, World, epoch};
use crate::{
    reconcile::{observation::InstallSigns, ports::Clock},
    vm::{
        Base, Disc, DomainState, FirstBootSecret, InstallFamily, InstallReport, Installation, InstallerBoot,
        InstallerKernel, KernelBoot, VmId, VmSpec,
    },
};

/// How long an installer works.
const WORK: TimeDelta = TimeDelta::minutes(8);

/// What an installer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::reconcile::simulation) enum Manners {
    /// It installs, says so, and ends its machine.
    #[default]
    Good,
    /// It ends its machine without a word.
    Dies,
    /// It paints the same question again and again.
    Asks,
}

#[derive(Debug, Default)]
pub(in crate::reconcile::simulation) struct Installer {
    pub(super) manners: Manners,
    /// What the configuration boots is an installer.
    configured: bool,
    /// What runs is one, since then.
    at_work: Option<DateTime<Utc>>,
    /// Whether there is a system on the disk.
    installed: bool,
    /// How often an installer, and how often the disk was booted.
    boots: (u32, u32),
    lines: u64,
    presses: u32,
}

impl Installer {
    pub(super) fn defined(&mut self, xml: &str) {
        self.configured = xml.contains("<on_reboot>destroy</on_reboot>");
    }

    pub(super) fn started(&mut self, now: DateTime<Utc>) {
        if self.configured {
            self.at_work = Some(now);
            self.boots.0 += 1;
        } else {
            self.boots.1 += 1;
        }
    }

    pub(super) fn boots_from_disk(&mut self) {
        assert!(self.installed, "an empty disk is booted from");
        self.configured = false;
    }

    pub(super) fn pressed(&mut self) {
        self.presses += 1;
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    /// No agent is in an installer.
    pub(super) fn is_speechless(&self) -> bool {
        self.is_at_work()
    }

    pub(super) fn signs(&self) -> InstallSigns {
        InstallSigns {
            last_lines: vec![format!("line {}", self.lines)],
            lines: vec![self.lines],
            ..InstallSigns::default()
        }
    }
}

impl State {
    /// What went on since somebody looked.
    pub(super) fn work_on_installation(&mut self, now: DateTime<Utc>) {
        let Some(since) = self.installer.at_work else { return };
        if self.domain != Some(DomainState::Running) {
            self.installer.at_work = None;
            return;
        }
        let report = |stage: &str| Some(InstallReport { stage: stage.to_owned(), at: now });
        let minutes = u64::try_from((now - since).num_minutes()).unwrap_or_default();
        let mut stage = report("started");
        match self.installer.manners {
            Manners::Asks => self.installer.lines = 1,
            Manners::Good | Manners::Dies => self.installer.lines = minutes,
        }
        if now - since >= WORK && self.installer.manners != Manners::Asks {
            self.installer.at_work = None;
            (self.domain, self.reason) = (Some(DomainState::Shutoff), 1);
            if self.installer.manners == Manners::Good {
                self.installer.installed = true;
                stage = report(InstallReport::FINISHED);
            }
        }
        if let Some(bundle) = &mut self.bundle {
            bundle.install_report = stage;
        }
    }

    pub(super) fn write_installer_file(&mut self, file: PathBuf) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let mut rows = self.bundle.iter().flat_map(|bundle| &bundle.resources);
        assert!(rows.any(|row| row.name == name), "{name} was written before its row");
        self.files.insert(file);
    }
}

impl World {
    /// A host on which somebody just asked for a VM that is installed from a disc.
    pub(in crate::reconcile::simulation) fn with_installation(manners: Manners) -> std::sync::Arc<Self> {
        let world = Self::with_vm();
        {
            let mut state = world.state();
            state.installer.manners = manners;
            let bundle = state.bundle.as_mut().expect("the VM is there");
            bundle.record.created_at = epoch();
            bundle.record.spec.base = Base::Installation(Box::new(Installation {
                disc: Disc { medium: "debian".parse().unwrap(), path: "/media/debian.iso".into() },
                family: InstallFamily::Debian,
                label: None,
                kernel: Some(InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd".to_owned() }),
                drivers: None,
                mirror: None,
                edition: None,
                medium_language: None,
                agent: true,
                token: Some(FirstBootSecret::new("token".to_owned())),
            }));
        }
        world
    }

    pub(in crate::reconcile::simulation) fn set_manners(&self, manners: Manners) {
        let now = self.now();
        let installer = &mut self.state().installer;
        installer.manners = manners;
        // It begins to do now what it did not.
        installer.at_work = installer.at_work.map(|_| now);
    }

    /// How often an installer, and how often the disk was booted.
    pub(in crate::reconcile::simulation) fn boots(&self) -> (u32, u32) {
        self.state().installer.boots
    }

    /// Whether nothing of the installer is left: no file, no row, no configuration.
    pub(in crate::reconcile::simulation) fn is_cleared(&self) -> bool {
        let state = self.state();
        let bundle = state.bundle.as_ref().expect("the VM is there");
        let row =
            bundle.resources.iter().any(|row| row.name.ends_with("kernel") || row.name.ends_with("initrd"));
        let file = state.files.iter().any(|file| file.starts_with("/seeds"));
        !row && !file && !state.installer.configured
    }
}

pub(super) fn boot(vm: VmId, _spec: &VmSpec, dir: &Path) -> InstallerBoot {
    let file = |ending: &str| dir.join(format!("vm-{vm}.{ending}"));
    let kernel = KernelBoot {
        kernel: file("kernel"),
        initrd: Some(file("initrd")),
        cmdline: "auto=true console=ttyS0".to_owned(),
    };
    InstallerBoot { kernel: Some(kernel), discs: vec!["/media/debian.iso".into()] }
}
