//! Copies of volumes: begun in one call, told of in others, made by libvirt meanwhile. What a process
//! knows of its copies dies with it; what libvirt makes for it goes on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use infinibay::{
    hypervisor::{Copied, Copies, Copying, HypervisorError, VolumeCopy},
    vm::{Milestone, ResourceKind, VmId},
};

use super::{LIMIT, invalid, not_found, unreachable};
use crate::simulation::{
    controller::Ports,
    host::{Copy, Volume, volume_path},
    world::{Event, State, World},
};

const NAME: &str = "copy_volume";

#[async_trait]
impl Copies for Ports {
    async fn copy_volume(&self, id: VmId, copy: VolumeCopy) -> Result<Copied, HypervisorError> {
        self.world.point(self.life, "before copy_volume").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let standing = self.world.state().enter_copy(self.life, id, copy);
        let standing = standing.unwrap_or_else(|number| {
            tokio::spawn(at_work(Arc::clone(&self.world), number));
            Ok(Copied::UnderWay)
        });
        self.world.point(self.life, "after copy_volume").await;
        standing
    }

    async fn copying(&self, id: VmId) -> Copying {
        let mut state = self.world.state();
        let mut own = state.host.copies.iter().filter(|it| it.vm == id && it.life == self.life);
        match own.find(|it| it.ended.is_none()).map(|it| it.at_work) {
            Some(true) => Copying::UnderWay(Some(u8::try_from(state.chance.below(100)).unwrap_or(99))),
            Some(false) => Copying::UnderWay(None),
            None => Copying::Nothing,
        }
    }
}

impl State {
    /// How a process's copy for a VM stands; the number of one that is begun by this.
    fn enter_copy(
        &mut self,
        life: u32,
        vm: VmId,
        copy: VolumeCopy,
    ) -> Result<Result<Copied, HypervisorError>, u64> {
        let is_own = |it: &Copy| it.vm == vm && it.life == life && !it.forgotten;
        if let Some(index) = self.host.copies.iter().position(is_own) {
            let known = &mut self.host.copies[index];
            let Some(ended) = known.ended.clone() else { return Ok(Ok(Copied::UnderWay)) };
            let same = known.copy == copy;
            known.forgotten = true;
            self.host.copies.retain(|it| !it.forgotten || it.at_work);
            if same {
                return Ok(ended.map(Copied::Whole));
            }
        }
        self.judge_copy(vm, &copy);
        let (label, number) = (self.label(vm), self.host.next_call);
        self.host.next_call += 1;
        self.note(format_args!("a copy of {} for {label} is asked for", copy.from_name));
        let from = self.database.vms.get(&vm).and_then(|bundle| bundle.record.spec.cloned_from());
        self.host.copies.push(Copy {
            number,
            life,
            vm,
            from,
            copy,
            at_work: false,
            spoiled: false,
            ended: None,
            forgotten: false,
        });
        Err(number)
    }

    /// Only what is asked for is copied, and only from one that lends itself.
    fn judge_copy(&mut self, vm: VmId, copy: &VolumeCopy) {
        let label = self.label(vm);
        self.has_row(vm, ResourceKind::Volume, &copy.name);
        let Some(bundle) = self.database.vms.get(&vm) else {
            self.violate(format_args!("a copy for {label}, which is not"));
            return;
        };
        let counts = bundle.record.milestones.at(Milestone::DiskCreated).is_some();
        let from = bundle.record.spec.cloned_from();
        let theirs = self.host.volumes.get(&(copy.from_pool.clone(), copy.from_name.clone()));
        let strange = theirs.is_some_and(|volume| volume.vm != from);
        let lent = from.is_some_and(|from| self.is_lent(from, vm));
        if counts || strange || !lent {
            self.violate(format_args!(
                "{} is copied for {label}: made already {counts}, of somebody else {strange}, lent {lent}",
                copy.from_name
            ));
        }
    }

    /// Notes how a copy ended, as the process that asked is told.
    fn end_copy(&mut self, number: u64, outcome: Result<PathBuf, HypervisorError>, goes_on: bool) {
        let life = self.life;
        let Some(copy) = self.host.copies.iter_mut().find(|it| it.number == number) else { return };
        copy.at_work &= goes_on;
        copy.ended.get_or_insert(outcome);
        let (vm, name) = (copy.vm, copy.copy.name.clone());
        let told = copy.ended.as_ref().map(|ended| ended.as_ref().map(drop).map_err(ToString::to_string));
        self.host.copies.retain(|it| it.at_work || (!it.forgotten && it.life == life));
        let label = self.label(vm);
        self.note(format_args!("the copy {name} for {label} ends: {told:?}, goes on: {goes_on}"));
    }

    /// The connection is gone: copies end for who waits for them, and some of them go on.
    pub fn lose_copies(&mut self) {
        let begun: Vec<u64> =
            self.host.copies.iter().filter(|it| it.ended.is_none()).map(|it| it.number).collect();
        for number in begun {
            match self.chance.below(3) {
                0 => {}
                // libvirtd lives, or does not.
                other => self.end_copy(number, Err(unreachable(NAME)), other == 1),
            }
        }
    }

    /// Makes the half of the new volume that is there from the beginning.
    fn begin_copy(&mut self, copy: &Copy) -> Result<(), HypervisorError> {
        if !self.host.reachable {
            return Err(unreachable(NAME));
        }
        let key = (copy.copy.pool.clone(), copy.copy.name.clone());
        let target = |it: &&Copy| it.number != copy.number && it.at_work && it.copy.name == key.1;
        if self.host.copies.iter().any(|it| target(&it)) {
            return Err(HypervisorError::Deadline { operation: NAME.to_owned(), limit: LIMIT });
        }
        let (rate, label) = (self.faults.fail, self.label(copy.vm));
        if self.chance.one_in(rate) {
            return Err(invalid(NAME, "a fault"));
        }
        let from = (copy.copy.from_pool.clone(), copy.copy.from_name.clone());
        if !self.host.volumes.contains_key(&from) {
            return Err(not_found(NAME));
        }
        if self.host.volumes.get(&key).is_some_and(|old| old.vm != Some(copy.vm)) {
            self.violate(format_args!("a copy for {label} takes the place of somebody else's {}", key.1));
        }
        let runs = copy.from.and_then(|from| self.host.domains.get(&from));
        let runs = runs.is_some_and(|domain| domain.state.is_active());
        let half = Volume {
            vm: Some(copy.vm),
            whole: false,
            installed: false,
            has_system: false,
            spoiled: false,
            bytes: 0,
        };
        self.host.volumes.insert(key, half);
        if let Some(copy) = self.host.copies.iter_mut().find(|it| it.number == copy.number) {
            (copy.at_work, copy.spoiled) = (true, runs);
        }
        self.note(format_args!("the copy {} for {label} begins", copy.copy.name));
        Ok(())
    }

    /// The new volume is whole.
    fn make_whole(&mut self, copy: &Copy) -> Result<PathBuf, HypervisorError> {
        let from = (copy.copy.from_pool.clone(), copy.copy.from_name.clone());
        let Some(original) = self.host.volumes.get(&from).cloned() else {
            return Err(invalid(NAME, "what is copied is gone"));
        };
        let (pool, name) = (copy.copy.pool.clone(), copy.copy.name.clone());
        let path = volume_path(&pool, &name);
        // Somebody may have removed it meanwhile.
        let target = self.host.volumes.get_mut(&(pool, name)).ok_or_else(|| not_found(NAME))?;
        *target = Volume {
            vm: Some(copy.vm),
            whole: original.whole,
            // Whether its first boot is over, is for the seed that it gets to say.
            installed: false,
            has_system: original.has_system,
            spoiled: copy.spoiled || original.spoiled,
            bytes: copy.copy.capacity_bytes.max(original.bytes),
        };
        Ok(path)
    }
}

/// A copy, in the process that asked for it until it begins, in libvirtd then.
async fn at_work(world: Arc<World>, number: u64) {
    let find = |state: &State| state.host.copies.iter().find(|it| it.number == number).cloned();
    let waits = {
        let mut state = world.state();
        if state.chance.one_in(4) { state.chance.seconds(0, 20) } else { state.chance.millis(1, 50) }
    };
    // For its turn.
    tokio::time::sleep(waits).await;
    let (takes, fails, lies) = {
        let mut state = world.state();
        let Some(copy) = find(&state) else { return };
        if copy.life != state.life || state.crashed || copy.ended.is_some() {
            // It was not begun when its process ended.
            state
                .host
                .copies
                .retain(|it| it.number != number || (it.ended.is_some() && it.life == copy.life));
            return;
        }
        if let Err(error) = state.begin_copy(&copy) {
            state.end_copy(number, Err(error), false);
            drop(state);
            world.tell(Event::Domain(copy.vm));
            return;
        }
        let (hang, slow, fail, lie) =
            (state.faults.hang, state.faults.slow, state.faults.fail, state.faults.lie);
        let takes = if state.chance.one_in(hang) {
            state.chance.seconds(300, 1200)
        } else if state.chance.one_in(slow) {
            state.chance.seconds(20, 180)
        } else {
            state.chance.seconds(1, 30)
        };
        (takes, state.chance.one_in(fail), state.chance.one_in(lie))
    };
    tokio::time::sleep(takes).await;
    let vm = {
        let mut state = world.state();
        // The host went down under it, or libvirtd did.
        let Some(copy) = find(&state).filter(|copy| copy.at_work) else { return };
        let outcome = if fails {
            if state.chance.one_in(2) {
                state.host.volumes.remove(&(copy.copy.pool.clone(), copy.copy.name.clone()));
            }
            Err(invalid(NAME, "a fault"))
        } else {
            let made = state.make_whole(&copy);
            if lies { Err(invalid(NAME, "a lie")) } else { made }
        };
        state.end_copy(number, outcome, false);
        copy.vm
    };
    world.tell(Event::Domain(vm));
}
