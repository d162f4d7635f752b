//! What a link's task and those who ask about the link share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::Instant,
};

use super::{GuestFrame, LateAnswer, LinkState, clean::Greeting, moment::Moment};
use crate::vm::{LinkCounters, LinkEnd, LinkObservation, LinkSeal, OpenLink, VmId};

/// What all links share: where frames, hints and late answers go, and how many connect at once.
#[derive(Debug, Clone)]
pub(super) struct Outlets {
    pub(super) frames: mpsc::Sender<GuestFrame>,
    pub(super) hints: mpsc::Sender<VmId>,
    pub(super) late: mpsc::Sender<LateAnswer>,
    pub(super) connecting: Arc<Semaphore>,
}

impl Outlets {
    /// A hint that finds no room is not needed: the loop looks at everything anyway.
    pub(super) fn hint(&self, vm: VmId) {
        let _ = self.hints.try_send(vm);
    }
}

/// See the module. Locks are held for a copy, never across a wait.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vm: VmId,
    state: Mutex<State>,
    /// Somebody wants a reading.
    metrics_wanted: AtomicBool,
    /// A request for a reading is out. It may wait unread in the channel, so that no second one
    /// is sent before a reading came, not even over another connection.
    metrics_asked: AtomicBool,
    /// Wakes the session for [`Shared::want_metrics`].
    pub(super) wake: Notify,
    /// Why the link was told to end, if it was.
    end: OnceLock<LinkEnd>,
    /// What those are told who want to know at once.
    watched: watch::Sender<LinkState>,
    /// Commands that wait for the link or are in flight over it.
    pending: AtomicUsize,
    /// Has the link look, while it waits to connect again, whether the socket is another one. One
    /// that is left from before the wait costs a look, and no more.
    pub(super) look: Notify,
}

/// A command that waits for the link or is in flight over it, as long as this lives.
#[derive(Debug)]
pub(super) struct Pending(Arc<Shared>);

impl Pending {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.pending.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct State {
    connection: Connection,
    /// When the link was made.
    made_at: Instant,
    /// When it was last heard, over whatever connection.
    heard_at: Option<Instant>,
    history: History,
}

/// What is kept over reconnections, and when a link takes another's place for the same VM.
#[derive(Debug, Clone, Default)]
struct History {
    counters: LinkCounters,
    /// Until the agent greets again.
    greeting: Greeting,
    /// Until the agent tells another.
    reported_state: Option<String>,
    heard_before: bool,
    /// Its agent spoke without the seal that is required of it, and was not heard sealed since.
    refused: bool,
}

#[derive(Debug, Clone)]
enum Connection {
    None {
        since: DateTime<Utc>,
        last_error: Option<String>,
    },
    Open {
        since: Moment,
        last_message_at: Option<Moment>,
        greeted_at: Option<Moment>,
        skew: Option<TimeDelta>,
        seal: LinkSeal,
    },
}

/// What a session learned from one read.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) heard: bool,
    pub(super) skew: Option<TimeDelta>,
    pub(super) greeting: Option<Greeting>,
    /// It is the second half of a greeting that was heard already.
    pub(super) greets_on: bool,
    /// Whether the connection is sealed.
    pub(super) seal: LinkSeal,
    /// What the agent says of its connection.
    pub(super) reported_state: Option<String>,
}

impl Shared {
    /// Of a link that begins, where another may have been `before`.
    pub(super) fn new(vm: VmId, before: Option<&Self>) -> Self {
        Self {
            vm,
            state: Mutex::new(State {
                connection: Connection::None { since: Utc::now(), last_error: None },
                made_at: Instant::now(),
                heard_at: None,
                history: before.map(|before| before.state().history.clone()).unwrap_or_default(),
            }),
            metrics_wanted: AtomicBool::new(false),
            metrics_asked: AtomicBool::new(false),
            wake: Notify::new(),
            end: OnceLock::new(),
            watched: watch::Sender::new(LinkState::default()),
            pending: AtomicUsize::new(0),
            look: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection stands; gives the counters to go on with.
    pub(super) fn opened(&self, at: DateTime<Utc>) -> LinkCounters {
        let mut state = self.state();
        let since = Moment::now(at);
        state.connection = Connection::Open {
            since,
            last_message_at: None,
            greeted_at: None,
            skew: None,
            seal: LinkSeal::Unused,
        };
        // An agent known from before is asked at once, so that it need not be waited for.
        self.metrics_wanted.fetch_or(state.history.heard_before, Ordering::Relaxed);
        state.history.counters
    }

    /// There is no connection, or not any more.
    pub(super) fn failed(&self, error: String, at: DateTime<Utc>) {
        let mut state = self.state();
        let since = match state.connection {
            Connection::None { since, .. } => since,
            Connection::Open { .. } => at,
        };
        state.connection = Connection::None { since, last_error: Some(error) };
    }

    /// Takes in what a session learned; gives whether the loop should look.
    pub(super) fn learn(&self, news: News, counters: LinkCounters, at: DateTime<Utc>) -> bool {
        let mut state = self.state();
        state.history.counters = counters;
        let mut notable = false;
        let heard = news.heard;
        if let Connection::Open { seal, .. } = &mut state.connection {
            notable |= std::mem::replace(seal, news.seal) != news.seal;
        }
        if heard {
            state.history.heard_before = true;
            state.history.refused = false;
            state.heard_at = Some(Instant::now());
            if let Connection::Open { last_message_at, skew, .. } = &mut state.connection {
                notable |= last_message_at.is_none();
                *last_message_at = Some(Moment::now(at));
                *skew = news.skew.or(*skew);
            }
        }
        if let Some(reported) = news.reported_state {
            state.history.reported_state = Some(reported);
        }
        let concurrency = news.greeting.as_ref().map(|greeting| greeting.concurrency);
        if let Some(greeting) = news.greeting {
            notable |= state.history.greeting != greeting;
            state.history.greeting = greeting;
            if let Connection::Open { greeted_at, .. } = &mut state.connection
                && !(news.greets_on && greeted_at.is_some())
            {
                // A second one on the same connection: the agent, or all of its system, began anew.
                notable |= greeted_at.is_some();
                *greeted_at = Some(Moment::now(at));
            }
        }
        drop(state);
        self.tell(|told| {
            told.open_and_heard |= heard;
            told.concurrency = concurrency.unwrap_or(told.concurrency);
            told.ended = told.ended.filter(|_| !told.open_and_heard);
        });
        notable
    }

    /// The connection ended with all that was in flight.
    pub(super) fn broke(&self, end: LinkEnd) {
        if end == LinkEnd::Unsealed {
            self.state().history.refused = true;
        }
        self.tell(|told| *told = LinkState { ended: Some(end), ..LinkState::default() });
    }

    /// Changes what those are told who watch; a link that was told to end stays ended.
    fn tell(&self, change: impl FnOnce(&mut LinkState)) {
        self.watched.send_if_modified(|told| {
            let before = *told;
            match self.end.get() {
                Some(&end) => *told = LinkState { ended: Some(end), ..LinkState::default() },
                None => change(told),
            }
            *told != before
        });
    }

    pub(super) fn observe(&self) -> LinkObservation {
        let State { connection, history, .. } = self.state().clone();
        let History { counters, greeting, reported_state, refused, .. } = history;
        // Until it was heard sealed it is not known to be another agent.
        let known = |seal| if refused { LinkSeal::Refused } else { seal };
        match connection {
            Connection::None { since, last_error } => {
                LinkObservation::Connecting { since, last_error, seal: known(LinkSeal::Unused), counters }
            }
            Connection::Open { since, last_message_at, greeted_at, skew, seal } => {
                LinkObservation::Open(OpenLink {
                    since: since.told(),
                    last_message_at: last_message_at.map(Moment::told),
                    greeted_at: greeted_at.map(Moment::told),
                    version: greeting.version,
                    platform: greeting.platform,
                    capabilities: greeting.capabilities,
                    reported_state,
                    actions: greeting.actions,
                    skew,
                    first_boot: greeting.first_boot,
                    seal: known(seal),
                    counters,
                })
            }
        }
    }

    /// The link is about to be told to end; the first reason stays.
    pub(super) fn end_as(&self, end: LinkEnd) {
        let _ = self.end.set(end);
        self.tell(|_| {});
    }

    /// Why the link was told to end, or else why its last connection did.
    pub(super) fn end(&self) -> LinkEnd {
        self.watched.borrow().ended.unwrap_or(LinkEnd::ChannelClosed)
    }

    /// Why the link was told to end, if it was.
    pub(super) fn told_to_end(&self) -> Option<LinkEnd> {
        self.end.get().copied()
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.watched.subscribe()
    }

    /// Whether the agent was heard over the present connection.
    pub(super) fn is_heard(&self) -> bool {
        self.watched.borrow().open_and_heard
    }

    pub(super) fn concurrency(&self) -> usize {
        self.watched.borrow().concurrency
    }

    /// Whether commands wait for the link or are in flight over it.
    pub(super) fn is_busy(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// What was counted so far, over all connections.
    pub(super) fn counters(&self) -> LinkCounters {
        self.state().history.counters
    }

    /// Whether anything was ever heard over the link, and for how long nothing was; a link that
    /// was never heard is silent since it was made.
    pub(super) fn silence(&self, now: Instant) -> (bool, Duration) {
        let State { made_at, heard_at, .. } = *self.state();
        (heard_at.is_some(), now.saturating_duration_since(heard_at.unwrap_or(made_at)))
    }

    /// Asks the session to ask the guest.
    pub(super) fn want_metrics(&self) {
        self.metrics_wanted.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether a request is due.
    pub(super) fn is_metrics_request_due(&self) -> bool {
        self.metrics_wanted.load(Ordering::Relaxed) && !self.metrics_asked.load(Ordering::Relaxed)
    }

    pub(super) fn metrics_asked(&self) {
        self.metrics_wanted.store(false, Ordering::Relaxed);
        self.metrics_asked.store(true, Ordering::Relaxed);
    }

    /// A reading came: whoever wanted one has it.
    pub(super) fn metrics_came(&self) {
        self.metrics_wanted.store(false, Ordering::Relaxed);
        self.metrics_asked.store(false, Ordering::Relaxed);
    }
}
