//! What is kept in mind about the loop, to judge it by: what it was shown of each VM, and when it
//! last did something to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::time::Duration;

use infinibay::vm::{
    DesiredPower, DeviceChange, DomainObservation, DomainState, OperationId, VmChange, VmId,
};

use tokio::time::Instant;

use super::{controller::config, frost::Frost, world::State};

/// How long after its end a change may still be carried out: what it was decided on was read before,
/// and what it takes to begin may itself be slow.
const STALE: Duration = Duration::from_secs(180);

/// Scans that are kept in mind: while a VM's task, held up by a slow store, still works on what one
/// showed, the next ones may be over.
const SCANS: usize = 4;

/// What a look showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Absent,
    Active,
    Off,
    /// Ended badly, and kept as it was.
    Crashed,
}

impl Seen {
    pub fn of(observation: &DomainObservation) -> Option<Self> {
        match observation {
            DomainObservation::Unknown => None,
            DomainObservation::Absent => Some(Self::Absent),
            DomainObservation::Present(facts) => match facts.state {
                DomainState::Unknown => None,
                DomainState::Shutoff => Some(Self::Off),
                DomainState::Crashed => Some(Self::Crashed),
                _ => Some(Self::Active),
            },
        }
    }
}

/// A look: when it began, and what it showed; `None` is Unknown.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub begun: u64,
    pub seen: Option<Seen>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    /// Of the present controller: the last look at this VM alone, and the last [`SCANS`].
    pub own: BTreeMap<VmId, Look>,
    pub scans: BTreeMap<VmId, VecDeque<Look>>,
    /// When the last thing was done to the VM.
    pub touched: BTreeMap<VmId, u64>,
    /// VMs whose power changed, unasked, since the loop saw it as asked for; and when it did.
    pub disturbed: BTreeMap<VmId, u64>,
    /// What was asked for when all was calm already: it has no reason to fail.
    pub asked_in_calm: BTreeSet<OperationId>,
    /// VMs that were last asked to stop politely, and since when.
    pub polite: BTreeMap<VmId, Instant>,
    /// VMs of which somebody else took something away.
    pub robbed: BTreeSet<VmId>,
    /// VMs whose hardware, name or snapshots somebody else changed.
    pub warped: BTreeSet<VmId>,
    /// When a VM was last put back to a snapshot.
    pub reverted: BTreeMap<VmId, u64>,
    /// How many systems were installed from a disc.
    pub installs: u32,
    /// How often a guest was frozen.
    pub freezes: u32,
    /// How long guests stay frozen.
    pub frost: Frost,
    /// VMs on which a call may still be at work that no controller can know of.
    pub haunted: BTreeSet<VmId>,
}

impl Watch {
    /// A new controller has seen nothing.
    pub fn forget(&mut self) {
        self.frost.hinder(None);
        self.own.clear();
        self.scans.clear();
        self.touched.clear();
    }

    /// What the loop may act upon: looks that began after it last did something to the VM.
    pub fn fresh(&self, vm: VmId) -> impl Iterator<Item = (u64, Seen)> {
        let touched = self.touched.get(&vm).copied().unwrap_or(0);
        let looks = self.scans.get(&vm).into_iter().flatten().chain(self.own.get(&vm)).copied();
        let fresh = looks.filter(move |look| look.begun >= touched);
        fresh.filter_map(|look| Some((look.begun, look.seen?)))
    }

    /// A scan showed this of the VM.
    pub fn scanned(&mut self, vm: VmId, look: Look) {
        let scans = self.scans.entry(vm).or_default();
        scans.push_back(look);
        if scans.len() > SCANS {
            scans.pop_front();
        }
    }
}

impl State {
    /// The loop is about to destroy or remove something: only if it was shown a VM that is so, and
    /// shown it after whatever it did last.
    pub fn judge_destruction(&mut self, vm: VmId, what: &str, fits: &[Seen]) {
        if !self.watch.fresh(vm).any(|(_, seen)| fits.contains(&seen)) {
            let (own, scans) = (self.watch.own.get(&vm), self.watch.scans.get(&vm));
            let touched = self.watch.touched.get(&vm);
            let words = format!("own look {own:?}, scans {scans:?}, last touched {touched:?}");
            let label = self.label(vm);
            self.violate(format_args!("{what} of {label} without having seen it {fits:?}: {words}"));
        }
    }

    /// The plug of a guest that is asked to stop politely is pulled only after the grace, whatever the
    /// clock on the wall says.
    pub fn judge_grace(&mut self, vm: VmId) {
        let asked = self.database.vms.get(&vm).is_some_and(|bundle| {
            let intent = &bundle.record.intent;
            !intent.deleting && intent.is_open() && intent.power == DesiredPower::Stopped
        });
        let active = self.watch.fresh(vm).all(|(_, seen)| seen == Seen::Active);
        let since = self.watch.polite.get(&vm).map(Instant::elapsed);
        if let Some(since) = since.filter(|since| asked && active && *since < config().stop_grace) {
            let label = self.label(vm);
            self.violate(format_args!("the plug of {label} is pulled {since:?} after it was asked to stop"));
        }
    }

    /// Whether a change is asked for, or was of late.
    pub fn is_asked(&self, vm: VmId, which: impl Fn(&VmChange) -> bool) -> bool {
        let open = self.database.vms.get(&vm).into_iter().flat_map(|bundle| &bundle.operations);
        let over = self.database.over.iter().filter(|it| {
            it.vm == vm && self.database.ended.get(&it.id).is_some_and(|at| at.elapsed() < STALE)
        });
        open.chain(over).filter_map(|operation| operation.change.as_ref()).any(which)
    }

    /// The loop begins to carry a change out: only one that is asked for.
    pub fn judge_asked(&mut self, vm: VmId, what: &str, which: impl Fn(&VmChange) -> bool) {
        if !self.is_asked(vm, which) {
            let label = self.label(vm);
            self.violate(format_args!("{what} of {label}, and no operation asks for it"));
        }
    }

    /// The loop is about to remove a volume: a VM's end, or one that a change took out of it.
    pub fn judge_removal(&mut self, vm: VmId, pool: &str, name: &str) {
        let deleting = self.database.vms.get(&vm).is_none_or(|bundle| bundle.record.intent.deleting);
        if deleting {
            self.judge_destruction(vm, "removal of a volume", &[Seen::Absent]);
            return;
        }
        self.judge_asked(vm, "removal of a volume", |change| match change {
            VmChange::Device(DeviceChange::AttachDisk { volume, .. }) => volume == name,
            VmChange::Device(DeviceChange::DetachDisk { disk, delete_volume }) => {
                *delete_volume && disk.volume == name
            }
            _ => false,
        });
        let path = super::host::volume_path(pool, name);
        let used = self.host.domains.get(&vm).is_some_and(|domain| {
            let live = domain.live.disks.iter().filter(|_| domain.state.is_active());
            domain.config.disks.iter().chain(live).any(|disk| disk.source.as_ref() == Some(&path))
        });
        if used && !self.watch.haunted.contains(&vm) && !self.watch.warped.contains(&vm) {
            let label = self.label(vm);
            self.violate(format_args!("{name} is removed, and {label} uses it"));
        }
    }

    /// The VM's power changed, and nobody asked for it.
    pub fn disturb(&mut self, vm: VmId) {
        self.tick += 1;
        self.watch.disturbed.insert(vm, self.tick);
    }

    /// Something was done to the VM.
    pub fn touch(&mut self, vm: VmId) {
        self.tick += 1;
        self.watch.touched.insert(vm, self.tick);
    }
}
