//! What a link's task and those who ask about the link share.

use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, mpsc, watch};

use super::{GuestFrame, LateAnswer, clean::Greeting};
use crate::vm::{LinkCounters, LinkEnd, LinkObservation, OpenLink, VmId};

/// Where frames and hints go.
#[derive(Debug, Clone)]
pub(super) struct Outlets {
    pub(super) frames: mpsc::Sender<GuestFrame>,
    pub(super) hints: mpsc::Sender<VmId>,
    pub(super) late: mpsc::Sender<LateAnswer>,
}

impl Outlets {
    /// A hint that finds no room is not needed: the loop looks at everything anyway.
    pub(super) fn hint(&self, vm: VmId) {
        let _ = self.hints.try_send(vm);
    }
}

/// What those who want to send something have to know of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Connected, and the agent was heard over this connection.
    pub open_and_heard: bool,
    /// How many commands the agent takes at once.
    pub concurrency: usize,
    /// Why the last connection, or the link, ended.
    pub ended: Option<LinkEnd>,
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
    /// Cuts short the wait for the next attempt to connect.
    pub(super) retry: Notify,
    /// For those who wait for the link.
    pub(super) link: watch::Sender<LinkState>,
}

#[derive(Debug, Clone)]
struct State {
    connection: Connection,
    counters: LinkCounters,
    /// Kept over reconnections, until the agent greets again.
    greeting: Greeting,
    /// Of this connection.
    concurrency: usize,
    heard_before: bool,
}

#[derive(Debug, Clone)]
enum Connection {
    None { since: DateTime<Utc>, last_error: Option<String> },
    Open { since: DateTime<Utc>, last_message_at: Option<DateTime<Utc>>, skew: Option<TimeDelta> },
}

/// What a session learned from one read.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) heard: bool,
    pub(super) skew: Option<TimeDelta>,
    pub(super) greeting: Option<Greeting>,
}

impl Shared {
    pub(super) fn new(vm: VmId) -> Self {
        Self {
            vm,
            state: Mutex::new(State {
                connection: Connection::None { since: Utc::now(), last_error: None },
                counters: LinkCounters::default(),
                greeting: Greeting::default(),
                concurrency: 1,
                heard_before: false,
            }),
            metrics_wanted: AtomicBool::new(false),
            metrics_asked: AtomicBool::new(false),
            wake: Notify::new(),
            end: OnceLock::new(),
            retry: Notify::new(),
            link: watch::Sender::new(LinkState { open_and_heard: false, concurrency: 1, ended: None }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection stands; gives the counters to go on with.
    pub(super) fn opened(&self, at: DateTime<Utc>) -> LinkCounters {
        let mut state = self.state();
        state.connection = Connection::Open { since: at, last_message_at: None, skew: None };
        state.concurrency = 1;
        // An agent known from before is asked at once, so that it need not be waited for.
        self.metrics_wanted.fetch_or(state.heard_before, Ordering::Relaxed);
        state.counters
    }

    /// There is no connection, or not any more.
    pub(super) fn failed(&self, error: String, at: DateTime<Utc>) {
        let mut state = self.state();
        let since = match state.connection {
            Connection::None { since, .. } => since,
            Connection::Open { .. } => at,
        };
        state.connection = Connection::None { since, last_error: Some(error) };
        drop(state);
        self.ended(self.end.get().copied().unwrap_or(LinkEnd::ChannelClosed));
    }

    /// Takes in what a session learned; gives whether the loop should look.
    pub(super) fn learn(&self, news: News, counters: LinkCounters, at: DateTime<Utc>) -> bool {
        let mut state = self.state();
        state.counters = counters;
        let mut notable = false;
        if news.heard {
            state.heard_before = true;
            if let Connection::Open { last_message_at, skew, .. } = &mut state.connection {
                notable |= last_message_at.is_none();
                *last_message_at = Some(at);
                *skew = news.skew.or(*skew);
            }
        }
        if let Some(greeting) = news.greeting {
            state.concurrency = greeting.concurrency;
            notable |= state.greeting != greeting;
            state.greeting = greeting;
        }
        let open_and_heard = matches!(state.connection, Connection::Open { last_message_at: Some(_), .. })
            && self.end.get().is_none();
        let now = LinkState { open_and_heard, concurrency: state.concurrency, ended: None };
        if open_and_heard {
            self.link.send_if_modified(|link| {
                *link != now && {
                    *link = now;
                    true
                }
            });
        }
        notable
    }

    pub(super) fn observe(&self) -> LinkObservation {
        let State { connection, counters, greeting, .. } = self.state().clone();
        match connection {
            Connection::None { since, last_error } => LinkObservation::Connecting { since, last_error },
            Connection::Open { since, last_message_at, skew } => LinkObservation::Open(OpenLink {
                since,
                last_message_at,
                version: greeting.version,
                platform: greeting.platform,
                capabilities: greeting.capabilities,
                skew,
                first_boot: greeting.first_boot,
                counters,
            }),
        }
    }

    /// The link is about to be told to end; the first reason stays.
    pub(super) fn end_as(&self, end: LinkEnd) {
        let _ = self.end.set(end);
        self.ended(end);
    }

    fn ended(&self, end: LinkEnd) {
        self.link.send_modify(|link| {
            link.open_and_heard = false;
            link.ended = Some(end);
        });
    }

    /// Why the link was told to end. Without a word it is the controller that stops.
    pub(super) fn end(&self) -> LinkEnd {
        self.end.get().copied().unwrap_or(LinkEnd::ControllerStopping)
    }

    /// Whether the agent was heard over the present connection.
    pub(super) fn is_heard(&self) -> bool {
        matches!(self.state().connection, Connection::Open { last_message_at: Some(_), .. })
    }

    pub(super) fn concurrency(&self) -> usize {
        self.state().concurrency
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
