//! What is on the host: domains, volumes, files, sockets; ours and strangers'.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use chrono::{DateTime, Utc};
use infinibay::{
    domain_xml::{Hardware, waiting},
    hypervisor::{HypervisorError, VolumeCopy},
    vm::{ChannelFacts, DomainAbout, DomainFacts, DomainState, NoteFacts, OperationId, SnapshotTag, VmId},
};
use tokio::time::Instant;

use super::{
    chance::Chance,
    installers::{Boot, DISC, Installer, Shown, TOOLS},
};

pub const POOL: &str = "default";

/// The pool of media, and what is in it.
pub const MEDIA: &str = "media";
pub const MEDIUM: &str = "debian.iso";

/// A domain, and the guest in it.
#[derive(Debug, Clone)]
pub struct Domain {
    pub name: String,
    pub state: DomainState,
    pub reason: i32,
    /// Not so once somebody undefined it while it ran: then it goes when it stops.
    pub persistent: bool,
    pub autostart: bool,
    pub channel: Option<PathBuf>,
    /// Counts its starts: what a guest was about to do dies with it.
    pub boot: u64,
    pub started: Instant,
    /// How long the guest takes until it hears and speaks.
    pub boots_in: Duration,
    /// Its agent speaks, and when it began to.
    pub is_up: bool,
    pub up_since: Option<DateTime<Utc>>,
    /// It ignores the power button.
    pub is_deaf: bool,
    pub resets: u64,
    /// How often it was asked to boot anew, and when it last did.
    pub reboots_asked: u64,
    pub rebooted: Option<DateTime<Utc>>,
    /// What its metadata says of the VM.
    pub note: NoteFacts,
    /// Somebody else made it.
    pub is_foreign: bool,
    /// Its channel goes with its next start.
    pub channel_goes: bool,
    /// As it is configured, and as it runs.
    pub config: Hardware,
    pub live: Hardware,
    /// Its memory is saved, as it was on this hardware.
    pub saved: Option<Hardware>,
    /// The guest lets go of nothing.
    pub clings: bool,
    /// A QEMU agent answers in the guest.
    pub has_agent: bool,
    /// The guest's file systems are frozen.
    pub is_frozen: bool,
    /// What it boots as it is configured, and the installer that it runs.
    pub boots: Boot,
    pub installer: Option<Installer>,
    /// Counts the processes.
    pub instance: u32,
    pub shots: Vec<Shot>,
    pub current: Option<String>,
    pub reverts: u64,
    /// By which operation it was last put back, and as which process.
    pub reverted_by: Option<(OperationId, u32)>,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub struct Shot {
    pub name: String,
    pub parent: Option<String>,
    pub tag: Option<SnapshotTag>,
    pub at: DateTime<Utc>,
    pub running: bool,
    /// Whether the file systems were frozen when it was taken.
    pub at_rest: bool,
    pub config: Hardware,
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Whose, if it is ours.
    pub vm: Option<VmId>,
    /// Not so when its making broke off.
    pub whole: bool,
    /// The first boot from it is finished.
    pub installed: bool,
    /// There is a system on it.
    pub has_system: bool,
    /// It was copied from a volume that somebody wrote to meanwhile.
    pub spoiled: bool,
    pub bytes: u64,
}

/// A file or socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// A seed medium, and whether the secrets are off it.
    Seed { vm: VmId, scrubbed: bool },
    /// An installer's kernel, initial RAM disk or answers, which hold secrets.
    Installer { vm: VmId },
    /// A console's log, or one that was rotated away, or an unfinished draft.
    Other { vm: VmId },
    /// A hypervisor's socket.
    Socket { vm: VmId },
    /// Somebody else's, whatever it is called.
    Stranger,
    /// Somebody else's, where a VM's socket should be: a hypervisor that starts puts its own there.
    Intruder,
}

impl File {
    pub fn vm(&self) -> Option<VmId> {
        match self {
            Self::Seed { vm, .. } | Self::Installer { vm } | Self::Other { vm } | Self::Socket { vm } => {
                Some(*vm)
            }
            Self::Stranger | Self::Intruder => None,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Host {
    pub reachable: bool,
    pub domains: BTreeMap<VmId, Domain>,
    pub strangers: BTreeMap<VmId, DomainState>,
    /// By pool and name.
    pub volumes: BTreeMap<(String, String), Volume>,
    pub files: BTreeMap<PathBuf, File>,
    /// Calls under way, of the present controller and of dead ones.
    pub calls: Vec<Call>,
    pub next_call: u64,
    /// What the consoles of installers show.
    pub consoles: BTreeMap<VmId, Shown>,
    /// Copies of volumes, of the present controller and of dead ones.
    pub copies: Vec<Copy>,
    /// Things that were there once.
    pub once_had_volume: BTreeSet<VmId>,
    pub once_had_seed: BTreeSet<VmId>,
    pub once_defined: BTreeSet<VmId>,
}

/// A copy of a volume.
#[derive(Debug, Clone)]
pub struct Copy {
    pub number: u64,
    pub life: u32,
    /// For whom it is made, and of whom.
    pub vm: VmId,
    pub from: Option<VmId>,
    pub copy: VolumeCopy,
    /// libvirt is making it; before, it waits for its turn.
    pub at_work: bool,
    /// Somebody wrote to what is read.
    pub spoiled: bool,
    /// What its process knows of its end.
    pub ended: Option<Result<PathBuf, HypervisorError>>,
    /// That process has asked, and keeps nothing of it.
    pub forgotten: bool,
}

/// A call that has not returned.
#[derive(Debug, Clone)]
pub struct Call {
    pub number: u64,
    pub life: u32,
    pub vm: VmId,
    pub name: &'static str,
    /// It changes something.
    pub mutates: bool,
    /// It asks the guest's agent: beside what is done to the domain.
    pub agent: bool,
    /// Its deadline is over and nobody waits for it.
    pub late: bool,
    /// The connection it was made on is gone; whether it is still at work, nobody can know.
    pub broken: bool,
}

impl Call {
    /// Nobody waits for it, and it is not over.
    pub fn hangs(&self) -> bool {
        self.late || self.broken
    }
}

impl Host {
    /// A host that others use too, with names much like ours.
    pub fn with_strangers(chance: &mut Chance) -> Self {
        let mut host = Self { reachable: true, ..Self::default() };
        let medium =
            Volume { vm: None, whole: true, installed: true, has_system: true, spoiled: false, bytes: 1 };
        host.volumes.insert((MEDIA.to_owned(), MEDIUM.to_owned()), medium);
        for disc in [DISC, TOOLS] {
            host.files.insert(disc.into(), File::Stranger);
        }
        for _ in 0..chance.below(3) {
            let id = VmId(chance.uuid());
            host.strangers.insert(id, chance.pick(&[DomainState::Running, DomainState::Shutoff]));
            let stranger =
                Volume { vm: None, whole: true, installed: true, has_system: true, spoiled: false, bytes: 1 };
            host.volumes.insert((POOL.to_owned(), format!("infinibay-{id}.qcow2")), stranger);
            for path in [
                format!("/seeds/vm-{id}.iso"),
                format!("/console/vm-{id}.log"),
                format!("/sockets/{}", id.socket_name()),
            ] {
                host.files.insert(path.into(), File::Stranger);
            }
        }
        host
    }

    /// Puts strangers' things right beside what will be this VM's.
    pub fn crowd(&mut self, vm: VmId) {
        let volume =
            Volume { vm: None, whole: true, installed: true, has_system: true, spoiled: false, bytes: 1 };
        self.volumes.insert(("backup".to_owned(), format!("infinibay-{vm}.qcow2")), volume.clone());
        self.volumes.insert((POOL.to_owned(), format!("infinibay-{vm}.qcow2.bak")), volume);
        for path in [format!("/seeds/vm-{vm}.iso.old"), format!("/console/vm-{vm}.log.old")] {
            self.files.insert(path.into(), File::Stranger);
        }
    }

    /// Whether a call on the VM by this controller is past its deadline and not over.
    pub fn is_busy(&self, life: u32, vm: VmId) -> bool {
        self.is_late(life, vm, false)
    }

    /// The same of calls to the domain, or to its guest's agent.
    pub fn is_late(&self, life: u32, vm: VmId, agent: bool) -> bool {
        let mut calls = self.calls.iter().filter(|call| call.vm == vm && call.life == life && call.late);
        calls.any(|call| call.agent == agent && !call.broken)
    }

    /// The disk that a VM was made with.
    pub fn root(&self, vm: VmId) -> Option<&Volume> {
        self.volumes.get(&(POOL.to_owned(), format!("infinibay-{vm}.qcow2"))).filter(|it| it.vm == Some(vm))
    }

    /// The domain's hypervisor begins.
    pub fn power_on(&mut self, vm: VmId) {
        let Some(domain) = self.domains.get_mut(&vm) else { return };
        domain.state = DomainState::Running;
        domain.reason = 0;
        domain.boot += 1;
        domain.instance += 1;
        domain.started = Instant::now();
        domain.is_frozen = false;
        domain.live = domain.saved.take().unwrap_or_else(|| domain.config.clone());
        if std::mem::take(&mut domain.channel_goes) {
            domain.channel = None;
        }
        if domain.channel.is_some() {
            self.files.insert(socket_path(vm), File::Socket { vm });
        }
        for copy in self.copies.iter_mut().filter(|it| it.at_work && it.from == Some(vm)) {
            copy.spoiled = true;
        }
    }

    /// Whether libvirt is reading or writing a volume, and lets nobody touch it.
    pub fn is_copied(&self, pool: &str, name: &str) -> bool {
        self.copies.iter().filter(|it| it.at_work).any(|it| {
            let copy = &it.copy;
            (copy.pool == pool && copy.name == name) || (copy.from_pool == pool && copy.from_name == name)
        })
    }

    /// What is left of a VM, in words.
    pub fn left_of(&self, vm: VmId) -> Vec<String> {
        let domain = self.domains.get(&vm).map(|domain| format!("domain {:?}", domain.state));
        let volumes = self.volumes.iter().filter(|(_, volume)| volume.vm == Some(vm));
        let files = self.files.iter().filter(|(_, file)| file.vm() == Some(vm));
        domain
            .into_iter()
            .chain(volumes.map(|((pool, name), _)| format!("volume {pool}/{name}")))
            .chain(files.map(|(path, _)| path.display().to_string()))
            .collect()
    }

    /// The strangers' things, to be compared.
    pub fn strangers_things(&self) -> (Vec<VmId>, Vec<String>) {
        let volumes = self.volumes.iter().filter(|(_, volume)| volume.vm.is_none());
        let files = self.files.iter().filter(|(_, file)| **file == File::Stranger);
        let names = volumes
            .map(|((pool, name), _)| format!("{pool}/{name}"))
            .chain(files.map(|(path, _)| path.display().to_string()));
        (self.strangers.keys().copied().collect(), names.collect())
    }

    /// The domain's hypervisor has ended. With `clean` it takes its socket along.
    pub fn power_off(&mut self, vm: VmId, reason: i32, clean: bool) {
        let Some(domain) = self.domains.get_mut(&vm) else { return };
        domain.state = DomainState::Shutoff;
        domain.reason = reason;
        domain.is_up = false;
        domain.installer = None;
        domain.is_frozen = false;
        domain.boot += 1;
        if !domain.persistent {
            self.domains.remove(&vm);
        }
        let socket = socket_path(vm);
        if clean && matches!(self.files.get(&socket), Some(File::Socket { .. })) {
            self.files.remove(&socket);
        }
    }
}

impl Domain {
    /// One that is off and was never on.
    pub fn new(chance: &mut Chance) -> Self {
        Self {
            name: String::new(),
            state: DomainState::Shutoff,
            reason: 0,
            persistent: true,
            autostart: false,
            channel: None,
            boot: 0,
            started: Instant::now(),
            boots_in: chance.seconds(1, 40),
            is_up: false,
            up_since: None,
            is_deaf: chance.one_in(6),
            resets: 0,
            reboots_asked: 0,
            rebooted: None,
            note: NoteFacts::Absent,
            is_foreign: false,
            channel_goes: false,
            config: Hardware::default(),
            live: Hardware::default(),
            saved: None,
            clings: chance.one_in(6),
            has_agent: !chance.one_in(4),
            is_frozen: false,
            boots: Boot::Disk,
            installer: None,
            instance: 0,
            shots: Vec::new(),
            current: None,
            reverts: 0,
            reverted_by: None,
        }
    }

    pub fn facts(&self) -> DomainFacts {
        DomainFacts {
            name: self.name.clone(),
            state: self.state,
            reason: self.reason,
            persistent: self.persistent,
            channel: self.channel.clone().map(|path| ChannelFacts { path, guest_connected: None }),
            interfaces: Vec::new(),
            managed_save: self.saved.is_some() && !self.state.is_active(),
            waiting: if self.state.is_active() { waiting(&self.live, &self.config) } else { Vec::new() },
            about: DomainAbout { note: self.note.clone(), ..DomainAbout::default() },
        }
    }
}

/// A stranger's domain, as it is seen.
pub fn strangers_facts(state: DomainState) -> DomainFacts {
    DomainFacts {
        name: "stranger".to_owned(),
        state,
        reason: 0,
        persistent: true,
        channel: None,
        interfaces: Vec::new(),
        managed_save: false,
        waiting: Vec::new(),
        about: DomainAbout::default(),
    }
}

/// Where a pool's volume is.
pub fn volume_path(pool: &str, name: &str) -> PathBuf {
    PathBuf::from("/").join(if pool == POOL { "pool" } else { pool }).join(name)
}

pub fn socket_path(vm: VmId) -> PathBuf {
    PathBuf::from("/sockets").join(vm.socket_name())
}
