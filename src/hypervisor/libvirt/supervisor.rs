//! The life of the connection: open, serve, lose, wait, open again. What to do next is decided
//! by [`Machine`], which knows neither libvirt nor time; [`supervise`] does it.
//!
//! After every loss everything is made anew, callbacks included: a connection that came back
//! without its events would look healthy and be deaf.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use virt::error::Error;

use super::{
    cache::XmlCache,
    events::{RebootLog, SessionHooks},
    session::Session,
};
use crate::hypervisor::HypervisorEvent;

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a connection that says nothing is asked whether it still stands (on our side only:
/// no message is sent). Loss is normally told by a callback; this is the second way.
const ALIVE_CHECK: Duration = Duration::from_secs(5);

/// The connection as calls see it.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The session, while there is one.
    pub(super) session: Option<Arc<Session>>,
    /// Why the last attempt failed.
    pub(super) error: Option<Error>,
}

/// What happened to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// It was made.
    Opened,
    /// It could not be made.
    Failed,
    /// It broke.
    Lost,
    /// The wait is over.
    Waited,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Try to make a connection.
    Open,
    /// Tell everybody that there is one, and watch over it.
    Serve,
    /// Wait.
    Wait(Duration),
    /// Tell everybody that it is gone, then wait.
    Mourn(Duration),
    /// Nothing: the news is of a connection that is no more.
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Serving,
    Waiting,
}

#[derive(Debug)]
struct Machine {
    state: State,
    base: Duration,
    failures: u32,
}

impl Machine {
    fn new(base: Duration) -> Self {
        Self { state: State::Opening, base, failures: 0 }
    }

    fn on(&mut self, input: Input) -> Action {
        match (self.state, input) {
            (State::Opening, Input::Opened) => {
                self.state = State::Serving;
                self.failures = 0;
                Action::Serve
            }
            (State::Opening, Input::Failed) => {
                self.state = State::Waiting;
                let wait = self.wait();
                self.failures = self.failures.saturating_add(1);
                Action::Wait(wait)
            }
            (State::Serving, Input::Lost) => {
                self.state = State::Waiting;
                Action::Mourn(self.wait())
            }
            (State::Waiting, Input::Waited) => {
                self.state = State::Opening;
                Action::Open
            }
            _ => Action::Ignore,
        }
    }

    /// Doubles with every failure in a row.
    fn wait(&self) -> Duration {
        self.base.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST_WAIT)
    }
}

/// What the supervisor needs.
pub(super) struct Supervisor {
    pub(super) uri: String,
    pub(super) reconnect_delay: Duration,
    pub(super) call_timeout: Duration,
    pub(super) link: Arc<watch::Sender<Link>>,
    pub(super) events: broadcast::Sender<HypervisorEvent>,
    pub(super) cache: Arc<XmlCache>,
    pub(super) calls: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
}

impl Supervisor {
    /// Runs until it is told to stop.
    pub(super) async fn supervise(self) {
        let mut machine = Machine::new(self.reconnect_delay);
        let mut action = Action::Open;
        let mut lost = Arc::new(Notify::new());
        let mut reported = false;
        while !self.stop.is_cancelled() {
            let input = match action {
                Action::Open => {
                    lost = Arc::new(Notify::new());
                    match self.open(Arc::clone(&lost)).await {
                        Ok(session) => {
                            self.link.send_replace(Link { session: Some(Arc::new(session)), error: None });
                            Input::Opened
                        }
                        Err(error) => {
                            // Once per outage: an unreachable libvirt must not fill the log.
                            if !std::mem::replace(&mut reported, true) {
                                tracing::warn!(uri = self.uri, %error, "cannot connect to libvirt; will keep trying");
                            }
                            self.link.send_modify(|link| link.error = Some(error));
                            Input::Failed
                        }
                    }
                }
                Action::Serve => {
                    reported = false;
                    tracing::info!(uri = self.uri, "connected to libvirt");
                    self.cache.forget_all();
                    self.announce(HypervisorEvent::Connected);
                    self.until_lost(&lost).await;
                    Input::Lost
                }
                Action::Mourn(wait) => {
                    release(self.link.send_replace(Link::default()));
                    if !self.stop.is_cancelled() {
                        tracing::warn!(uri = self.uri, "the connection to libvirt broke");
                        self.announce(HypervisorEvent::Disconnected);
                    }
                    self.pause(wait).await;
                    Input::Waited
                }
                Action::Wait(wait) => {
                    self.pause(wait).await;
                    Input::Waited
                }
                // Unreachable by construction of the loop, and harmless: start over.
                Action::Ignore => Input::Waited,
            };
            action = machine.on(input);
        }
        release(self.link.send_replace(Link::default()));
    }

    /// One attempt. It is waited for however long it takes: a second one against a server that
    /// does not answer the first would only hang too.
    async fn open(&self, lost: Arc<Notify>) -> Result<Session, Error> {
        let hooks = Arc::new(SessionHooks {
            events: self.events.clone(),
            dirty: self.cache.dirty(),
            reboots: RebootLog::default(),
            lost,
        });
        let (uri, calls) = (self.uri.clone(), Arc::clone(&self.calls));
        let limit = self.call_timeout;
        let opening = tokio::task::spawn_blocking(move || Session::open(&uri, limit, hooks, calls));
        opening.await.unwrap_or_else(|join| {
            tracing::error!(error = %join, "opening a connection broke off");
            Err(Error::last_error())
        })
    }

    async fn until_lost(&self, lost: &Notify) {
        loop {
            tokio::select! {
                () = lost.notified() => return,
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(ALIVE_CHECK) => {
                    let link = Arc::clone(&self.link);
                    let alive = tokio::task::spawn_blocking(move || {
                        let session = link.borrow().session.clone();
                        session.is_some_and(|session| session.is_alive())
                    });
                    // A check that broke off says nothing good about the connection.
                    if !alive.await.unwrap_or(false) {
                        return;
                    }
                }
            }
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn announce(&self, event: HypervisorEvent) {
        // No receiver is no error.
        let _ = self.events.send(event);
    }
}

/// Lets go of a session where that may block. Calls in flight hold it open until they return.
fn release(link: Link) {
    if link.session.is_some() {
        // Nobody waits for it: closing a dead connection has no result worth having.
        drop(tokio::task::spawn_blocking(move || drop(link)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_success() {
        let mut machine = Machine::new(seconds(1));
        for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(machine.on(Input::Failed), Action::Wait(seconds(expected)));
            assert_eq!(machine.on(Input::Waited), Action::Open);
        }
        assert_eq!(machine.on(Input::Opened), Action::Serve);
        assert_eq!(machine.on(Input::Lost), Action::Mourn(seconds(1)));
        assert_eq!(machine.on(Input::Waited), Action::Open);
        assert_eq!(machine.on(Input::Failed), Action::Wait(seconds(1)));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut machine = Machine::new(seconds(30));
        for _ in 0..100 {
            assert_eq!(machine.on(Input::Failed), Action::Wait(LONGEST_WAIT));
            assert_eq!(machine.on(Input::Waited), Action::Open);
        }
    }

    #[test]
    fn news_of_a_connection_that_is_no_more_changes_nothing() {
        let mut machine = Machine::new(seconds(1));
        assert_eq!(machine.on(Input::Lost), Action::Ignore);
        assert_eq!(machine.on(Input::Waited), Action::Ignore);
        assert_eq!(machine.on(Input::Opened), Action::Serve);
        assert_eq!(machine.on(Input::Opened), Action::Ignore);
        assert_eq!(machine.on(Input::Failed), Action::Ignore);
        assert_eq!(machine.on(Input::Lost), Action::Mourn(seconds(1)));
        assert_eq!(machine.on(Input::Lost), Action::Ignore);
    }
}
