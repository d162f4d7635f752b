//! An installer and the system that it leaves: what a domain boots, and what becomes of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{State, World, epoch};
use crate::{
    reconcile::{observation::InstallSigns, ports::Clock},
    vm::{
        Base, Disc, DomainState, Firmware, FirstBootSecret, InstallFamily, InstallReport, Installation,
        InstallerBoot, InstallerKernel, KernelBoot, ResourceKind, VmId, VmSpec,
    },
};

/// The medium in the library.
const DISC: &str = "/media/disc.iso";
/// How long an installer works.
const WORK: TimeDelta = TimeDelta::minutes(8);
/// How long firmware asks for a key before it gives a disc up.
const ASKS: TimeDelta = TimeDelta::seconds(5);
/// How long Windows' set-up works until it boots the machine anew, each time.
const UNTIL_REBOOT: TimeDelta = TimeDelta::minutes(3);

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
    /// It is Windows', which waits for a key, boots its machine anew by itself, and runs on.
    windows: bool,
    /// Media are in the drives of what runs.
    media_in: bool,
    /// Firmware asks for a key, since then.
    asking: Option<DateTime<Utc>>,
    /// What runs is one, since then.
    at_work: Option<DateTime<Utc>>,
    /// Whether there is a system on the disk.
    installed: bool,
    /// How often an installer, and how often the disk was booted.
    boots: (u32, u32),
    /// How often Windows' set-up booted its machine anew.
    reboots: u32,
    lines: u64,
    presses: u32,
}

impl Installer {
    pub(super) fn defined(&mut self, xml: &str) {
        let by_itself = xml.contains("<boot dev='cdrom'/>");
        assert_eq!(by_itself && !xml.contains("<kernel>"), self.windows, "it boots otherwise: {xml}");
        self.configured = self.windows || xml.contains("<on_reboot>destroy</on_reboot>");
    }

    pub(super) fn started(&mut self, now: DateTime<Utc>) {
        self.media_in = self.configured;
        if !self.configured || self.installed {
            self.boots.1 += 1;
            return;
        }
        self.boots.0 += 1;
        if self.windows {
            self.asking = Some(now);
        } else {
            self.at_work = Some(now);
        }
    }

    pub(super) fn boots_from_disk(&mut self) {
        assert!(self.installed, "an empty disk is booted from");
        (self.configured, self.media_in) = (false, false);
    }

    pub(super) fn pressed(&mut self, now: DateTime<Utc>) {
        self.presses += 1;
        assert!(self.windows, "a key was pressed that nobody asked for");
        assert_eq!(self.reboots, 0, "a key was pressed in a system that is being set up");
        if self.asking.take().is_some_and(|since| now - since < ASKS) {
            self.at_work = Some(now);
        }
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.is_some() || self.media_in
    }

    /// No agent is in an installer.
    pub(super) fn is_speechless(&self) -> bool {
        self.at_work.is_some() || self.windows && !self.installed
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
        if self.domain != Some(DomainState::Running) {
            (self.installer.at_work, self.installer.asking, self.installer.media_in) = (None, None, false);
            return;
        }
        let Some(since) = self.installer.at_work else { return };
        if self.installer.windows {
            self.installer.reboots =
                u32::try_from((now - since).num_seconds() / UNTIL_REBOOT.num_seconds()).unwrap_or_default();
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
            if !self.installer.windows {
                (self.domain, self.reason) = (Some(DomainState::Shutoff), 1);
                self.installer.media_in = false;
            }
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
    pub(in crate::reconcile::simulation) fn with_installation(manners: Manners) -> Arc<Self> {
        Self::with_installer(InstallFamily::Debian, manners)
    }

    /// The same of this family.
    pub(in crate::reconcile::simulation) fn with_installer(
        family: InstallFamily,
        manners: Manners,
    ) -> Arc<Self> {
        let world = Self::with_vm();
        let windows = family.reboots_by_itself();
        {
            let mut state = world.state();
            (state.installer.manners, state.installer.windows) = (manners, windows);
            let bundle = state.bundle.as_mut().expect("the VM is there");
            bundle.record.created_at = epoch();
            bundle.record.spec.firmware = if windows { Firmware::UefiSecureBoot } else { Firmware::Bios };
            let kernel = InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd".to_owned() };
            bundle.record.spec.base = Base::Installation(Box::new(Installation {
                disc: Disc { medium: "disc".parse().unwrap(), path: DISC.into() },
                family,
                label: None,
                kernel: (!windows).then_some(kernel),
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

    /// How often its set-up booted Windows' machine anew.
    pub(in crate::reconcile::simulation) fn set_up_reboots(&self) -> u32 {
        self.state().installer.reboots
    }

    /// Whether nothing of the installer is left: no file, no row, no configuration, nothing in a drive.
    pub(in crate::reconcile::simulation) fn is_cleared(&self) -> bool {
        let state = self.state();
        let bundle = state.bundle.as_ref().expect("the VM is there");
        let row = bundle.resources.iter().any(|row| row.kind == ResourceKind::Seed);
        let file = state.files.iter().any(|file| file.starts_with("/seeds"));
        !row && !file && !state.installer.configured && !state.installer.media_in
    }
}

pub(super) fn boot(vm: VmId, spec: &VmSpec, dir: &Path) -> InstallerBoot {
    let file = |ending: &str| dir.join(format!("vm-{vm}.{ending}"));
    if spec.installation().is_some_and(|installation| installation.kernel.is_none()) {
        return InstallerBoot { kernel: None, discs: vec![DISC.into(), file("iso")] };
    }
    let kernel = KernelBoot {
        kernel: file("kernel"),
        initrd: Some(file("initrd")),
        cmdline: "auto=true console=ttyS0".to_owned(),
    };
    InstallerBoot { kernel: Some(kernel), discs: vec![DISC.into()] }
}

/// What of an installer's files is made for one VM.
pub(super) fn files_of(boot: &InstallerBoot) -> Vec<PathBuf> {
    let kernel = boot.kernel.iter().flat_map(|kernel| [Some(kernel.kernel.clone()), kernel.initrd.clone()]);
    kernel.flatten().chain(boot.discs.iter().filter(|disc| *disc != Path::new(DISC)).cloned()).collect()
}
