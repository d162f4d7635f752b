//! How long a guest's file systems stay frozen. That they are let go is promised whatever happens; how
//! soon, depends on what stands in the way, which the loop has to be rid of first. So time counts while
//! nothing does: the guest runs and its agent hears, libvirt and the store are there, and no call
//! failed, hung or broke since.

use std::time::Duration;

use infinibay::vm::{DesiredPower, Operation, VmId};
use tokio::time::Instant;

use super::world::State;

/// The longest a guest may stay frozen then: a call that is waited for to its deadline, and the slow
/// looks and calls after it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What is kept in mind of it.
#[derive(Debug, Default)]
pub struct Frost {
    /// Since when guests are frozen that could be thawed.
    since: std::collections::BTreeMap<VmId, Instant>,
    /// When something last stood in the way of one, and of all.
    hindered: std::collections::BTreeMap<VmId, Instant>,
    all_hindered: Option<Instant>,
    /// The longest that any guest was frozen with nothing in the way.
    pub longest: Duration,
}

impl Frost {
    /// Something stands in the loop's way, of this VM or of all.
    pub fn hinder(&mut self, vm: Option<VmId>) {
        match vm {
            Some(vm) => drop(self.hindered.insert(vm, Instant::now())),
            None => self.all_hindered = Some(Instant::now()),
        }
    }
}

impl State {
    /// No guest stays frozen for longer than the deadline. Asked at each step.
    pub fn judge_frost(&mut self) {
        if !self.host.reachable || self.database.is_away || self.crashed {
            self.watch.frost.hinder(None);
        }
        let frozen: Vec<VmId> =
            self.host.domains.iter().filter(|(_, domain)| domain.is_frozen).map(|(vm, _)| *vm).collect();
        let stays: Vec<VmId> = frozen.into_iter().filter(|vm| self.could_be_thawed(*vm)).collect();
        let frost = &mut self.watch.frost;
        frost.since.retain(|vm, _| stays.contains(vm));
        let mut late = None;
        for vm in stays {
            let since = *frost.since.entry(vm).or_insert_with(Instant::now);
            let free = since.max(frost.hindered.get(&vm).copied().unwrap_or(since));
            let free = free.max(frost.all_hindered.unwrap_or(since));
            frost.longest = frost.longest.max(free.elapsed());
            if free.elapsed() > DEADLINE {
                late = Some((vm, since.elapsed()));
            }
        }
        if let Some((vm, since)) = late {
            let label = self.label(vm);
            self.violate(format_args!("the file systems of {label} are frozen for {since:?}"));
        }
    }

    /// Whether the guest is ours, could be thawed, and nobody was told that it was not.
    fn could_be_thawed(&self, vm: VmId) -> bool {
        let Some(bundle) = self.database.vms.get(&vm) else { return false };
        let intent = &bundle.record.intent;
        // What ends the guest comes first.
        let ends = intent.deleting || (intent.is_open() && intent.power == DesiredPower::ForcedOff);
        let code = |it: &Operation| it.error.as_ref().is_some_and(|error| error.code == "THAW_FAILED");
        let told = self.database.over.iter().any(|it| it.vm == vm && code(it));
        // One that hangs, also of a controller that is gone, has the agent to itself.
        let hangs = self.host.calls.iter().any(|call| call.vm == vm && call.agent && call.hangs());
        self.hears(vm) && !ends && !told && !hangs
    }
}
