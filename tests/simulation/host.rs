//! What is on the host: domains, volumes, files, sockets; ours and strangers'.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use infinibay::vm::{ChannelFacts, DomainAbout, DomainFacts, DomainState, NoteFacts, VmId};
use tokio::time::Instant;

use super::chance::Chance;

pub const POOL: &str = "default";

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
    /// Its agent speaks.
    pub is_up: bool,
    /// It ignores the power button.
    pub is_deaf: bool,
    pub resets: u64,
    /// What its metadata says of the VM.
    pub note: NoteFacts,
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
}

/// A file or socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// A seed medium, and whether the secrets are off it.
    Seed { vm: VmId, scrubbed: bool },
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
            Self::Seed { vm, .. } | Self::Other { vm } | Self::Socket { vm } => Some(*vm),
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
    /// Things that were there once.
    pub once_had_volume: BTreeSet<VmId>,
    pub once_had_seed: BTreeSet<VmId>,
    pub once_defined: BTreeSet<VmId>,
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
    /// Its deadline is over and nobody waits for it.
    pub late: bool,
    /// The connection it was made on is gone; whether it is still at work, nobody can know.
    pub broken: bool,
}

impl Host {
    /// A host that others use too, with names much like ours.
    pub fn with_strangers(chance: &mut Chance) -> Self {
        let mut host = Self { reachable: true, ..Self::default() };
        for _ in 0..chance.below(3) {
            let id = VmId(chance.uuid());
            host.strangers.insert(id, chance.pick(&[DomainState::Running, DomainState::Shutoff]));
            let stranger = Volume { vm: None, whole: true, installed: true };
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
        let volume = Volume { vm: None, whole: true, installed: true };
        self.volumes.insert(("backup".to_owned(), format!("infinibay-{vm}.qcow2")), volume.clone());
        self.volumes.insert((POOL.to_owned(), format!("infinibay-{vm}.qcow2.bak")), volume);
        for path in [format!("/seeds/vm-{vm}.iso.old"), format!("/console/vm-{vm}.log.old")] {
            self.files.insert(path.into(), File::Stranger);
        }
    }

    /// Whether a call on the VM by this controller is past its deadline and not over.
    pub fn is_busy(&self, life: u32, vm: VmId) -> bool {
        self.calls.iter().any(|call| call.vm == vm && call.life == life && call.late && !call.broken)
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
    pub fn facts(&self) -> DomainFacts {
        DomainFacts {
            name: self.name.clone(),
            state: self.state,
            reason: self.reason,
            persistent: self.persistent,
            channel: self.channel.clone().map(|path| ChannelFacts { path, guest_connected: None }),
            interfaces: Vec::new(),
            managed_save: false,
            waiting: Vec::new(),
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

pub fn socket_path(vm: VmId) -> PathBuf {
    PathBuf::from("/sockets").join(vm.socket_name())
}
