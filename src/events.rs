//! The bus to those who watch.
//!
//! Bounded and lossy: publishing never waits, and a subscriber that falls behind is told that it
//! lagged ([`Notice::Lagged`]) and should read the present state again. **Nothing that must be
//! stored travels on it.**

use tokio::sync::broadcast::{self, error::RecvError};

use crate::vm::VmEvent;

/// Events kept for the slowest subscriber before it lags. A reading takes up to 192 KiB.
const CAPACITY: usize = 1024;

/// The bus. Clones share it.
#[derive(Debug, Clone)]
pub struct EventBus {
    sender: broadcast::Sender<VmEvent>,
}

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Something happened.
    Event(VmEvent),
    /// This many events were missed: look again.
    Lagged(u64),
}

/// One subscriber's end.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<VmEvent>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { sender: broadcast::channel(CAPACITY).0 }
    }
}

impl EventBus {
    /// Tells whoever listens; nobody listening is fine.
    pub fn publish(&self, event: VmEvent) {
        // An error only means that there is no subscriber.
        let _ = self.sender.send(event);
    }

    /// Everything from now on. Filtering, and authorising what is seen, is the subscriber's.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { receiver: self.sender.subscribe() }
    }
}

impl Subscription {
    /// The next notice; `None` when the bus is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.receiver.recv().await {
            Ok(event) => Some(Notice::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Notice::Lagged(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}
