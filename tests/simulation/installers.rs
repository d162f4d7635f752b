//! Systems that are installed from a disc: the installer in its machine, what it shows of itself, and
//! its files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use infinibay::{
    reconcile::InstallSigns,
    vm::{
        Base, Disc, DomainState, Firmware, FirstBootSecret, InstallFamily, InstallReport, Installation,
        InstallerBoot, InstallerKernel, KernelBoot, VmId, VmSpec, WindowsRelease,
    },
};

use super::{
    guests::{self, SHUT_DOWN},
    host::{Domain, File, Host},
    world::{Event, State, World},
};

/// The disc that is installed from, and one of the library that is put into drives.
pub const DISC: &str = "/discs/installer.iso";
pub const TOOLS: &str = "/discs/tools.iso";

/// What a domain boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boot {
    #[default]
    Disk,
    /// An installer's kernel; when that wants to boot anew, the domain ends.
    Kernel,
    /// The disk, and an installer's disc for as long as there is no system on that.
    Disc,
}

/// What an installer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It installs, says so, and ends.
    Good,
    /// It ends without a word.
    Dies,
    /// It waits for an answer.
    Asks,
    /// It says that it failed.
    Fails,
}

/// An installer at work.
#[derive(Debug, Clone)]
pub struct Installer {
    /// Of which boot.
    boot: u64,
    pub manners: Manners,
    done: Duration,
    takes: Duration,
}

/// What a console's log shows.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    lines: u64,
    stage: Option<String>,
}

/// A system to be installed, of one that boots its installer's kernel or of one that boots its disc.
pub fn base(spec: VmSpec, windows: bool, agent: bool) -> VmSpec {
    let kernel = InstallerKernel { kernel: "linux".to_owned(), initrd: "initrd".to_owned() };
    let installation = Installation {
        disc: Disc { medium: "installer".parse().expect("a name"), path: DISC.into() },
        family: if windows {
            InstallFamily::Windows(WindowsRelease::Server2022)
        } else {
            InstallFamily::Debian
        },
        label: None,
        kernel: (!windows).then_some(kernel),
        drivers: None,
        mirror: None,
        edition: None,
        medium_language: None,
        agent,
        token: Some(FirstBootSecret::new("token".to_owned())),
    };
    let firmware = if windows { Firmware::Uefi } else { Firmware::Bios };
    VmSpec { base: Base::Installation(Box::new(installation)), firmware, ..spec }
}

fn file(vm: VmId, dir: &Path, ending: &str) -> PathBuf {
    dir.join(format!("vm-{vm}.{ending}"))
}

/// What the machine boots.
pub fn boot(vm: VmId, spec: &VmSpec, dir: &Path) -> InstallerBoot {
    let windows = spec.installation().is_some_and(|it| it.kernel.is_none());
    if windows {
        return InstallerBoot { kernel: None, discs: vec![DISC.into(), file(vm, dir, "iso")] };
    }
    let (kernel, initrd) = (file(vm, dir, "kernel"), Some(file(vm, dir, "initrd")));
    let kernel = KernelBoot { kernel, initrd, cmdline: "auto=true console=ttyS0".to_owned() };
    InstallerBoot { kernel: Some(kernel), discs: vec![DISC.into()] }
}

/// Those of its files that are made for it.
pub fn made(boot: &InstallerBoot) -> Vec<PathBuf> {
    let kernel = boot.kernel.iter().flat_map(|it| [Some(it.kernel.clone()), it.initrd.clone()]);
    let discs = boot.discs.iter().filter(|disc| *disc != Path::new(DISC)).cloned();
    kernel.flatten().chain(discs).collect()
}

/// What a domain's XML has it boot.
pub fn boot_of(xml: &str) -> Boot {
    if xml.contains("<kernel>") {
        Boot::Kernel
    } else if xml.contains(DISC) {
        Boot::Disc
    } else {
        Boot::Disk
    }
}

impl Domain {
    /// Whether one of its drives holds something of an installer.
    pub fn holds_installer(&self) -> bool {
        let of = |path: &PathBuf| path == Path::new(DISC) || path.starts_with("/seeds");
        self.config.disks.iter().filter_map(|disk| disk.source.as_ref()).any(of)
    }
}

impl Host {
    /// Whether an installer is what starts when the domain does.
    pub fn boots_installer(&self, vm: VmId) -> bool {
        let has_system = self.root(vm).is_some_and(|volume| volume.has_system);
        self.domains.get(&vm).is_some_and(|domain| match domain.boots {
            Boot::Disk => false,
            Boot::Kernel => true,
            Boot::Disc => !has_system,
        })
    }

    /// What the domain needs of files to start, and is not there.
    pub fn lacks_file(&self, vm: VmId) -> Option<PathBuf> {
        let domain = self.domains.get(&vm)?;
        let dir = Path::new("/seeds");
        let boots = ["kernel", "initrd"].map(|ending| file(vm, dir, ending));
        let boots = boots.into_iter().filter(|_| domain.boots == Boot::Kernel);
        let drives = domain.config.disks.iter().filter_map(|disk| disk.source.clone());
        let drives = drives.filter(|path| path.starts_with("/seeds") || path.starts_with("/discs"));
        boots.chain(drives).find(|path| !self.files.contains_key(path))
    }
}

/// The installer begins, unless it is at work already.
pub fn work(world: &Arc<World>, vm: VmId) {
    let mut state = world.state();
    let manners = [Manners::Good, Manners::Good, Manners::Good, Manners::Dies, Manners::Asks, Manners::Fails];
    let Some(domain) = state.host.domains.get(&vm) else { return };
    let (boot, takes) = (domain.boot, domain.boots_in * 6);
    if domain.installer.as_ref().is_some_and(|installer| installer.boot == boot) {
        return;
    }
    let manners = if state.is_calm { Manners::Good } else { state.chance.pick(&manners) };
    let label = state.label(vm);
    state.note(format_args!("the installer of {label} begins: {manners:?}"));
    if let Some(domain) = state.host.domains.get_mut(&vm) {
        domain.installer = Some(Installer { boot, manners, done: Duration::ZERO, takes });
    }
    drop(state);
    go_on(world, vm, boot);
}

fn go_on(world: &Arc<World>, vm: VmId, boot: u64) {
    let takes = world.state().chance.seconds(4, 20);
    world.later(takes, move |world| {
        let mut state = world.state();
        let Some(domain) = state.host.domains.get_mut(&vm).filter(|domain| domain.boot == boot) else {
            return;
        };
        let runs = domain.state == DomainState::Running;
        let Some(installer) = domain.installer.as_mut() else { return };
        if runs {
            installer.done += takes;
        }
        let (manners, over) = (installer.manners, installer.done >= installer.takes);
        let ends = runs && over;
        match manners {
            _ if !runs => {}
            Manners::Good | Manners::Dies => state.show(vm, "started"),
            Manners::Asks => {}
            Manners::Fails if ends => state.show(vm, InstallReport::FAILED),
            Manners::Fails => state.show(vm, "started"),
        }
        drop(state);
        match manners {
            Manners::Good if ends => finish(world, vm),
            Manners::Dies if ends => end(world, vm, "ends without a word"),
            _ => go_on(world, vm, boot),
        }
    });
}

/// The machine goes off: the installer wanted to boot it anew, or ended it.
fn end(world: &Arc<World>, vm: VmId, what: &str) {
    let mut state = world.state();
    let label = state.label(vm);
    state.note(format_args!("the installer of {label} {what}"));
    state.host.power_off(vm, SHUT_DOWN, true);
    // A domain that somebody undefined meanwhile goes with its guest, and is not made again.
    if !state.host.domains.contains_key(&vm) {
        state.disturb(vm);
    }
    drop(state);
    world.tell(Event::Domain(vm));
}

fn finish(world: &Arc<World>, vm: VmId) {
    let mut state = world.state();
    for volume in state.host.volumes.values_mut().filter(|volume| volume.vm == Some(vm)) {
        volume.has_system = true;
    }
    state.show(vm, InstallReport::FINISHED);
    let now = state.now;
    let Some(domain) = state.host.domains.get_mut(&vm) else { return };
    if domain.boots == Boot::Kernel {
        drop(state);
        end(world, vm, "has done its work");
        return;
    }
    // It boots the machine anew by itself, from the disk.
    domain.boot += 1;
    domain.installer = None;
    domain.started = tokio::time::Instant::now();
    domain.rebooted = Some(now);
    let label = state.label(vm);
    state.note(format_args!("the installer of {label} boots it anew"));
    drop(state);
    guests::boot(world, vm);
}

impl State {
    /// Whether what the domain runs is an installer. One that is at work stays so, whatever its domain
    /// is configured to boot then.
    pub fn runs_installer(&self, vm: VmId) -> bool {
        let Some(domain) = self.host.domains.get(&vm) else { return false };
        domain.installer.is_some() || (!domain.is_up && self.host.boots_installer(vm))
    }

    /// Whether its system is still to be installed.
    pub fn is_installing(&self, vm: VmId) -> bool {
        let under_way = |it: &infinibay::store::VmBundle| {
            it.record.spec.installation().is_some() && it.record.milestones.installed.is_none()
        };
        self.database.vms.get(&vm).is_some_and(under_way)
    }

    /// An installer says where it is: on its console, and to us, where that is heard.
    fn show(&mut self, vm: VmId, stage: &str) {
        let windows = self.host.domains.get(&vm).is_some_and(|domain| domain.boots == Boot::Disc);
        let shown = self.host.consoles.entry(vm).or_default();
        shown.lines += 1;
        if !windows {
            shown.stage = Some(stage.to_owned());
        }
        let lost = self.faults.lost;
        let heard = !self.database.is_away && self.hints.is_some() && !self.crashed;
        let (heard, at) = (heard && !self.chance.one_in(lost), self.now);
        if let Some(bundle) = self.database.vms.get_mut(&vm).filter(|_| heard) {
            bundle.install_report = Some(InstallReport { stage: stage.to_owned(), at });
        }
    }

    /// What a console's log and a disk show.
    pub fn signs(&self, vm: VmId) -> InstallSigns {
        let shown = self.host.consoles.get(&vm).cloned().unwrap_or_default();
        InstallSigns {
            last_lines: vec![format!("line {}", shown.lines)],
            lines: vec![shown.lines],
            stage: shown.stage,
            disk_bytes: None,
        }
    }

    /// An installer of ours is started: not over the system that it has made.
    pub fn judge_install(&mut self, vm: VmId) {
        let domain = self.host.domains.get(&vm);
        let again = domain.is_some_and(|domain| domain.boots == Boot::Kernel)
            && self.host.root(vm).is_some_and(|volume| volume.has_system);
        // Where its words cannot be read, nobody knows.
        if again && self.faults.files == 0 && !self.watch.haunted.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("the installer of {label} is started over its system"));
        }
    }

    /// A file of an installer goes: its domain needs it no more.
    pub fn judge_shredding(&mut self, vm: VmId, path: &Path) {
        let domain = self.host.domains.get(&vm);
        let needed = domain.is_some_and(|domain| {
            domain.boots == Boot::Kernel
                || domain.config.disks.iter().any(|disk| disk.source.as_deref() == Some(path))
        });
        if needed && !self.watch.warped.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("{} goes, and {label} boots with it", path.display()));
        }
    }

    /// What has to be so of an installed system once everything is calm.
    pub fn of_installed(&self, vm: VmId) -> Vec<String> {
        let bundle = &self.database.vms[&vm];
        let Some(domain) = self.host.domains.get(&vm) else { return Vec::new() };
        let milestones = &bundle.record.milestones;
        let others = self.watch.robbed.contains(&vm) || self.watch.warped.contains(&vm);
        if bundle.record.spec.installation().is_none() || others {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let has_system = self.host.root(vm).is_some_and(|volume| volume.has_system);
        let replaced = milestones.boot_replaced.is_some();
        if replaced && (domain.boots != Boot::Disk || domain.holds_installer()) {
            faults
                .push(format!("it boots its installer still: {:?}, {:?}", domain.boots, domain.config.disks));
        }
        if milestones.installed.is_some() && !(replaced && has_system) {
            faults.push("it counts as installed, and is not".to_owned());
        }
        // What was done by one that is off, and says nothing on its console, is heard when it runs.
        let shows = domain.boots == Boot::Kernel || domain.state == DomainState::Running;
        if has_system && shows && milestones.system_installed.is_none() {
            faults.push("it is installed, and nobody noted it".to_owned());
        }
        let left = self.host.files.values().any(|file| *file == File::Installer { vm });
        if left && milestones.installed.is_some() {
            faults.push("its installer's files are left".to_owned());
        }
        faults
    }
}
