//! Who may come in, and who is next: bounded places per VM and over all VMs, and turns in the
//! order of each VM's [`Queue`]. No requester has all of a VM's places, so that one who asks for
//! much keeps nobody else out.
//!
//! Everything taken here is given back by being dropped, so that no end of a command's task can
//! forget it. There is no dispatcher to keep alive: whoever makes room grants the next turn.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::queue::Queue;
use crate::vm::{CommandId, UserId, VmId};

/// Commands that wait or run take at most this together, as they go over the wire.
const MAX_BYTES: usize = 64 << 20;

/// What there was no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// So many commands wait or run for this VM.
    Vm(usize),
    /// So many of this requester do, and he may have no more.
    Share(usize),
    /// So many wait or run for all VMs.
    All(usize),
    /// So many bytes wait or run for all VMs.
    Bytes(usize),
}

/// The places and turns of all VMs. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    per_vm: usize,
    total: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    bytes: usize,
    /// Of VMs that have a command.
    lanes: HashMap<VmId, Lane>,
}

#[derive(Debug)]
struct Lane {
    taken: usize,
    /// Of these, by whoever has any.
    of: HashMap<UserId, usize>,
    /// How many may have their turn at the same time.
    capacity: usize,
    turns: usize,
    queue: Queue<UserId, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    id: CommandId,
    go: oneshot::Sender<Turn>,
}

/// A place for one command, from its acceptance to its end.
#[derive(Debug)]
pub(super) struct Place {
    vm: VmId,
    requester: UserId,
    bytes: usize,
    turns: Turns,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    id: CommandId,
    vm: VmId,
    turns: Turns,
    go: oneshot::Receiver<Turn>,
}

/// The right to be at work.
#[derive(Debug)]
pub(super) struct Turn {
    vm: VmId,
    turns: Turns,
}

impl Turns {
    pub(super) fn new(per_vm: usize, total: usize) -> Self {
        Self { per_vm, total, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for a command at all, whichever VM it is for.
    pub(super) fn has_room(&self) -> Result<(), Full> {
        if self.state().taken >= self.total { Err(Full::All(self.total)) } else { Ok(()) }
    }

    /// How many places of one VM a requester may have: three quarters, and at least one.
    fn share(&self) -> usize {
        (self.per_vm - self.per_vm / 4).max(1)
    }

    /// A place for a command.
    pub(super) fn admit(&self, vm: VmId, requester: UserId) -> Result<Place, Full> {
        let mut state = self.state();
        if state.taken >= self.total {
            return Err(Full::All(self.total));
        }
        let fresh = || Lane { taken: 0, of: HashMap::new(), capacity: 1, turns: 0, queue: Queue::default() };
        let lane = state.lanes.entry(vm).or_insert_with(fresh);
        if lane.taken >= self.per_vm {
            return Err(Full::Vm(self.per_vm));
        }
        // A new lane has room for the first of anybody.
        let own = lane.of.entry(requester).or_default();
        if *own >= self.share() {
            return Err(Full::Share(self.share()));
        }
        *own += 1;
        lane.taken += 1;
        state.taken += 1;
        Ok(Place { vm, requester, bytes: 0, turns: self.clone() })
    }

    /// How many commands of this VM may be at work at the same time.
    pub(super) fn set_capacity(&self, vm: VmId, capacity: usize) {
        if let Some(lane) = self.state().lanes.get_mut(&vm) {
            lane.capacity = capacity;
        }
        self.grant(vm);
    }

    fn grant(&self, vm: VmId) {
        loop {
            let next = {
                let mut state = self.state();
                let Some(lane) = state.lanes.get_mut(&vm).filter(|lane| lane.turns < lane.capacity) else {
                    return;
                };
                let Some(next) = lane.queue.pop() else { return };
                lane.turns += 1;
                next
            };
            // Not under the lock: a turn that nobody takes is given back here.
            if let Err(turn) = next.go.send(Turn { vm, turns: self.clone() }) {
                turn.give_back();
            }
        }
    }
}

impl Place {
    /// Says how large the command is.
    pub(super) fn weigh(&mut self, bytes: usize) -> Result<(), Full> {
        let mut state = self.turns.state();
        if state.bytes + bytes > MAX_BYTES {
            return Err(Full::Bytes(MAX_BYTES));
        }
        state.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Stands in line.
    pub(super) fn wait(&self, id: CommandId) -> Waiting {
        let (go, receiver) = oneshot::channel();
        if let Some(lane) = self.turns.state().lanes.get_mut(&self.vm) {
            lane.queue.push(self.requester, Waiter { id, go });
        }
        metrics::gauge!("infinibay_commands_queued").increment(1.0);
        self.turns.grant(self.vm);
        Waiting { id, vm: self.vm, turns: self.turns.clone(), go: receiver }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.taken -= 1;
        state.bytes -= self.bytes;
        if let Some(lane) = state.lanes.get_mut(&self.vm) {
            lane.taken -= 1;
            if let Entry::Occupied(mut own) = lane.of.entry(self.requester) {
                *own.get_mut() -= 1;
                if *own.get() == 0 {
                    own.remove();
                }
            }
            if lane.taken == 0 {
                state.lanes.remove(&self.vm);
            }
        }
    }
}

impl Waiting {
    /// Waits for the turn. Cancel-safe.
    pub(super) async fn turn(&mut self) -> Turn {
        match (&mut self.go).await {
            Ok(turn) => turn,
            // The waiter stays in its lane until it is granted or dropped here.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("infinibay_commands_queued").decrement(1.0);
        let waiter = self
            .turns
            .state()
            .lanes
            .get_mut(&self.vm)
            .and_then(|lane| lane.queue.remove(|w| w.id == self.id));
        drop(waiter);
    }
}

impl Turn {
    /// Without granting the next.
    fn give_back(self) {
        self.count_down();
        std::mem::forget(self);
    }

    fn count_down(&self) {
        if let Some(lane) = self.turns.state().lanes.get_mut(&self.vm) {
            lane.turns = lane.turns.saturating_sub(1);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.count_down();
        self.turns.grant(self.vm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_vm_over_all_and_in_bytes_and_given_back() {
        let (a, b, ana) = (VmId::generate(), VmId::generate(), UserId::generate());
        let turns = Turns::new(2, 3);
        let first = turns.admit(a, ana).unwrap();
        let mut second = turns.admit(a, ana).unwrap();
        assert_eq!(turns.admit(a, ana).unwrap_err(), Full::Vm(2));
        let mut third = turns.admit(b, ana).unwrap();
        assert_eq!(turns.admit(b, ana).unwrap_err(), Full::All(3));
        assert_eq!(turns.has_room(), Err(Full::All(3)));
        assert_eq!(second.weigh(MAX_BYTES), Ok(()));
        assert_eq!(third.weigh(1), Err(Full::Bytes(MAX_BYTES)));
        drop((first, second));
        assert_eq!((third.weigh(1), turns.has_room()), (Ok(()), Ok(())));
        drop(third);
        let state = turns.state();
        assert!(state.lanes.is_empty() && state.bytes == 0 && state.taken == 0, "{state:?}");
    }

    #[test]
    fn nobody_has_all_of_a_vms_places() {
        for (per_vm, share) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 6), (32, 24), (33, 25)] {
            assert_eq!(Turns::new(per_vm, 100).share(), share, "of {per_vm}");
        }
        let (vm, other) = (VmId::generate(), VmId::generate());
        let (ana, bob) = (UserId::generate(), UserId::generate());
        let turns = Turns::new(4, 100);
        let mut anas: Vec<_> = (0..3).map(|_| turns.admit(vm, ana).unwrap()).collect();
        assert_eq!(turns.admit(vm, ana).unwrap_err(), Full::Share(3));
        let elsewhere = turns.admit(other, ana).unwrap();
        let bobs = turns.admit(vm, bob).unwrap();
        assert_eq!(turns.admit(vm, bob).unwrap_err(), Full::Vm(4));
        drop(bobs);
        assert_eq!(turns.admit(vm, ana).unwrap_err(), Full::Share(3), "another's place became hers");
        anas.pop();
        anas.push(turns.admit(vm, ana).unwrap());
        drop((anas, elsewhere));
        assert!(turns.state().lanes.is_empty());
    }

    #[tokio::test]
    async fn turns_are_granted_as_room_is_made() {
        let (vm, ana, bob) = (VmId::generate(), UserId::generate(), UserId::generate());
        let turns = Turns::new(10, 10);
        let places = [ana, ana, bob, bob, ana].map(|who| turns.admit(vm, who).unwrap());
        let stand = |index: usize| places[index].wait(CommandId::generate());
        let (mut first, mut second, mut bobs) = (stand(0), stand(1), stand(2));
        let (gone, mut last) = (stand(3), stand(4));
        let ready = |waiting: &mut Waiting| waiting.go.try_recv().ok();
        let turn = first.turn().await;
        assert!(ready(&mut second).is_none() && ready(&mut bobs).is_none());
        drop(gone);
        turns.set_capacity(vm, 2);
        let other = ready(&mut second).or_else(|| ready(&mut bobs)).expect("room for one more");
        drop(turn);
        let third = ready(&mut second).or_else(|| ready(&mut bobs)).expect("the other one");
        assert!(ready(&mut last).is_none());
        drop((first, second, bobs, other, third));
        assert!(ready(&mut last).is_some());
        drop((last, places));
        assert!(turns.state().lanes.is_empty());
    }
}
