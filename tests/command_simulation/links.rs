//! The simulated links: connections that come, go and break, and commands that wait for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use infinibay::{
    agents::{LinkError, LinkState, SentAt},
    commands::{CommandLinks, Handover},
    vm::{
        CommandId, CommandOutcome, FirstBoot, GuestCommand, LinkCounters, LinkEnd, LinkObservation, LinkSeal,
        OpenLink, VmId,
    },
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    controller::Ports,
    faults::Faults,
    world::{State, World},
};

/// How long after its time a command that was sent is still waited for, and keeps its place then.
const MARGIN: Duration = Duration::from_secs(5);

/// A link that is wanted.
#[derive(Debug, Default)]
pub struct Link {
    known: LinkState,
    /// Each watches by a channel of its own: those of one channel are woken in an order that is not
    /// the seed's.
    watchers: Vec<watch::Sender<LinkState>>,
    pub connection: Option<Connection>,
}

/// What stands between two ends.
#[derive(Debug)]
pub struct Connection {
    serial: u64,
    pub in_flight: BTreeMap<CommandId, Flying>,
    closed: CancellationToken,
}

/// A command that was sent.
#[derive(Debug)]
pub struct Flying {
    pub reply: oneshot::Sender<Told>,
    free_at: Instant,
}

type Told = Result<CommandOutcome, LinkError>;

impl Link {
    fn tell(&mut self, known: LinkState) {
        self.known = known;
        self.watchers.retain(|watcher| watcher.receiver_count() > 0);
        for watcher in &self.watchers {
            watcher.send_replace(known);
        }
    }
}

impl State {
    /// The connection ends; whoever waits for an answer over it is told.
    pub fn disconnect(&mut self, vm: VmId, end: LinkEnd) {
        let Some(link) = self.links.get_mut(&vm) else { return };
        let Some(connection) = link.connection.take() else { return };
        link.tell(LinkState { ended: Some(end), ..LinkState::default() });
        connection.closed.cancel();
        for (_, flying) in connection.in_flight {
            // Nobody may wait any more.
            drop(flying.reply.send(Ok(CommandOutcome::Disconnected(end))));
        }
        self.note(format_args!("a link ends: {end:?}"));
    }

    /// The loop wants no link.
    pub fn close_link(&mut self, vm: VmId, end: LinkEnd) {
        self.disconnect(vm, end);
        if let Some(mut link) = self.links.remove(&vm) {
            link.tell(LinkState { ended: Some(end), ..link.known });
        }
    }

    fn is_heard(&self, vm: VmId) -> bool {
        self.links.get(&vm).is_some_and(|link| link.known.open_and_heard)
    }

    /// Whether the agent has a place for one more.
    fn room(&mut self, vm: VmId, serial: u64) -> Result<bool, LinkEnd> {
        let Some(link) = self.links.get_mut(&vm) else { return Err(LinkEnd::VmStopped) };
        let LinkState { concurrency, ended, .. } = link.known;
        match link.connection.as_mut().filter(|connection| connection.serial == serial) {
            None => Err(ended.unwrap_or(LinkEnd::ChannelClosed)),
            Some(connection) => {
                connection.in_flight.retain(|_, flying| flying.free_at > Instant::now());
                Ok(connection.in_flight.len() < concurrency)
            }
        }
    }

    /// The connection of that number, if it stands.
    fn connection(&mut self, vm: VmId, serial: u64) -> Option<&mut Connection> {
        let connection = self.links.get_mut(&vm)?.connection.as_mut();
        connection.filter(|connection| connection.serial == serial)
    }
}

impl World {
    /// The loop wants a link.
    pub fn open_link(self: &Arc<Self>, state: &mut State, vm: VmId) {
        state.links.entry(vm).or_default();
        self.reconnect(vm, state);
    }

    /// The link connects in a while, and the agent is heard a little later.
    pub fn reconnect(self: &Arc<Self>, vm: VmId, state: &mut State) {
        let life = state.life;
        let slow = if state.chance.one_in(6) { 5000 } else { 100 };
        let (connects, heard) = (state.chance.millis(1, slow), state.chance.millis(1, 20));
        self.later(connects, move |world| {
            let mut state = world.state();
            if !state.is_alive(life) {
                return;
            }
            state.connections += 1;
            let serial = state.connections;
            let Some(link) = state.links.get_mut(&vm).filter(|link| link.connection.is_none()) else {
                return;
            };
            let closed = CancellationToken::new();
            link.connection = Some(Connection { serial, in_flight: BTreeMap::new(), closed });
            world.later(heard, move |world| {
                let mut state = world.state();
                let concurrency = state.guests.get(&vm).map_or(1, |guest| guest.concurrency);
                if state.connection(vm, serial).is_some() && state.is_alive(life) {
                    if let Some(guest) = state.guests.get_mut(&vm) {
                        guest.most = guest.most.max(concurrency);
                    }
                    state.note(format_args!("an agent is heard, which takes {concurrency}"));
                    let heard = LinkState { open_and_heard: true, concurrency, ended: None };
                    state.links.get_mut(&vm).expect("connected").tell(heard);
                }
            });
        });
    }
}

impl CommandLinks for Ports {
    fn watch(&self, vm: VmId) -> Option<watch::Receiver<LinkState>> {
        let mut state = self.world.state();
        let is_alive = state.is_alive(self.life);
        let link = state.links.get_mut(&vm).filter(|_| is_alive)?;
        let (watcher, watched) = watch::channel(link.known);
        link.watchers.push(watcher);
        Some(watched)
    }

    fn observe(&self, vm: VmId) -> LinkObservation {
        let state = self.world.state();
        if !state.is_heard(vm) {
            return LinkObservation::None;
        }
        LinkObservation::Open(OpenLink {
            since: state.now,
            last_message_at: Some(state.now),
            greeted_at: None,
            version: None,
            platform: None,
            capabilities: Vec::new(),
            reported_state: None,
            actions: None,
            skew: None,
            first_boot: FirstBoot::NotReported,
            seal: LinkSeal::default(),
            counters: LinkCounters::default(),
        })
    }

    fn hand_over<'a>(
        &'a self,
        vm: VmId,
        id: CommandId,
        _command: &'a GuestCommand,
        timeout: Duration,
    ) -> Box<dyn Handover + 'a> {
        Box::new(OnItsWay { ports: self.clone(), vm, id, timeout, sending: Sending::default() })
    }
}

/// A command on its way. Clones share whether it was sent.
#[derive(Clone)]
struct OnItsWay {
    ports: Ports,
    vm: VmId,
    id: CommandId,
    timeout: Duration,
    sending: Sending,
}

/// Whether it was sent; decided once.
#[derive(Debug, Clone, Default)]
struct Sending(Arc<Mutex<Decision>>);

#[derive(Debug, Clone, Copy, Default)]
enum Decision {
    #[default]
    Open,
    Sent(SentAt),
    Withdrawn,
}

impl Sending {
    /// Decides, where nothing was decided yet; gives what counts.
    fn decide(&self, decision: Decision) -> Decision {
        let mut decided = self.0.lock().expect("a decision");
        if matches!(*decided, Decision::Open) {
            *decided = decision;
        }
        *decided
    }
}

#[async_trait]
impl Handover for OnItsWay {
    async fn outcome(&self) -> Told {
        let _at_work = AtWork::begin(self);
        self.ports.world.point(self.ports.life, "before a command is handed over").await;
        let deadline = Instant::now() + self.timeout;
        let (reply, mut told) = oneshot::channel();
        {
            let mut state = self.ports.world.state();
            if !state.is_heard(self.vm) {
                return Err(LinkError::NotConnected);
            }
            let connection = state.links.get(&self.vm).and_then(|link| link.connection.as_ref());
            let (serial, closed) = connection.map(|it| (it.serial, it.closed.clone())).expect("connected");
            let Faults { stuck, held, .. } = state.faults.clone();
            let held = if state.chance.one_in(stuck) {
                self.timeout * 2
            } else if state.chance.one_in(held) {
                state.chance.seconds(0, 8)
            } else {
                state.chance.millis(0, 5)
            };
            // On a task of its own: who asked may go away, and the link does its work.
            tokio::spawn(self.clone().send(serial, closed, held, deadline, reply));
        }
        // A link that knows that it was withdrawn says nothing.
        let settle = |told: Result<Told, _>| told.unwrap_or(Err(LinkError::NoPlace));
        if let Ok(told) = timeout_at(deadline, &mut told).await {
            return settle(told);
        }
        if self.withdraw() {
            return told.try_recv().unwrap_or(Err(LinkError::NoPlace));
        }
        timeout_at(deadline + MARGIN, told).await.map_or(Ok(CommandOutcome::TimedOut), settle)
    }

    fn withdraw(&self) -> bool {
        matches!(self.sending.decide(Decision::Withdrawn), Decision::Withdrawn)
    }

    fn sent(&self) -> Option<SentAt> {
        match *self.sending.0.lock().expect("a decision") {
            Decision::Sent(at) => Some(at),
            Decision::Open | Decision::Withdrawn => None,
        }
    }
}

impl OnItsWay {
    /// The link's part.
    async fn send(
        self,
        serial: u64,
        closed: CancellationToken,
        held: Duration,
        deadline: Instant,
        reply: oneshot::Sender<Told>,
    ) {
        let Ports { world, life } = &self.ports;
        tokio::select! {
            biased;
            () = closed.cancelled() => {}
            () = sleep(held) => {}
        }
        loop {
            world.point(*life, "before a command is written").await;
            let room = world.state().room(self.vm, serial);
            match room {
                Ok(true) => break self.write(serial, deadline, reply),
                Ok(false) if Instant::now() >= deadline => {
                    self.sending.decide(Decision::Withdrawn);
                    return;
                }
                Ok(false) => sleep(Duration::from_millis(20)).await,
                // Nobody may wait any more.
                Err(end) => return drop(reply.send(Err(LinkError::Ended(end)))),
            }
        }
        world.point(*life, "after a command is written").await;
    }

    fn write(&self, serial: u64, deadline: Instant, reply: oneshot::Sender<Told>) {
        let world = &self.ports.world;
        let mut state = world.state();
        let sent = SentAt { instant: Instant::now(), at: state.look_at_clock() };
        if matches!(self.sending.decide(Decision::Sent(sent)), Decision::Withdrawn) {
            return;
        }
        state.hand(self.id);
        let free_at = deadline + MARGIN * 2;
        if let Some(connection) = state.connection(self.vm, serial) {
            connection.in_flight.insert(self.id, Flying { reply, free_at });
        }
        let rate = state.faults.cut;
        if state.chance.one_in(rate) {
            state.disconnect(self.vm, LinkEnd::ChannelClosed);
            world.reconnect(self.vm, &mut state);
        } else {
            world.run_in_guest(&mut state, self.vm, self.id, deadline);
        }
    }
}

/// A command has its turn, until this is dropped.
struct AtWork<'a>(&'a OnItsWay);

impl<'a> AtWork<'a> {
    fn begin(it: &'a OnItsWay) -> Self {
        let mut state = it.ports.world.state();
        if state.life == it.ports.life
            && let Some(guest) = state.guests.get_mut(&it.vm)
        {
            guest.at_work += 1;
            let (at_work, most) = (guest.at_work, guest.most);
            if at_work > most {
                state.violate(format_args!("{at_work} commands have their turn with who takes {most}"));
            }
        }
        Self(it)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let OnItsWay { ports, vm, .. } = self.0;
        let mut state = ports.world.state();
        if state.life == ports.life
            && let Some(guest) = state.guests.get_mut(vm)
        {
            guest.at_work -= 1;
        }
    }
}
