//! Whether a command was sent: decided once, by whoever comes first, the link that is about to
//! write it or the one who no longer wants it written. What is told of a command that was not sent
//! ("it did not run") stays true because of this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// See the module. Clones share the decision.
#[derive(Debug, Clone, Default)]
pub struct Sending {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Waiting,
    Sent(SentAt),
    Withdrawn,
}

/// The moment before the first byte was written.
#[derive(Debug, Clone, Copy)]
pub struct SentAt {
    /// For measuring.
    pub instant: Instant,
    /// For people.
    pub at: DateTime<Utc>,
}

impl Sending {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that it is not sent from now on; `false`: it was already.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let mut state = self.state();
        if matches!(*state, State::Waiting) {
            *state = State::Withdrawn;
        }
        matches!(*state, State::Withdrawn)
    }

    /// When it was sent; `None`: not yet, or never.
    #[must_use]
    pub fn sent(&self) -> Option<SentAt> {
        match *self.state() {
            State::Sent(at) => Some(at),
            State::Waiting | State::Withdrawn => None,
        }
    }

    /// It counts as sent from now on; `false`: it was withdrawn.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        if matches!(*state, State::Waiting) {
            *state = State::Sent(SentAt { instant: Instant::now(), at: Utc::now() });
        }
        matches!(*state, State::Sent(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_decides() {
        let sent = Sending::default();
        assert!(sent.sent().is_none() && sent.begin());
        assert!(!sent.clone().withdraw() && sent.sent().is_some());
        let withdrawn = Sending::default();
        assert!(withdrawn.withdraw() && withdrawn.withdraw());
        assert!(!withdrawn.begin() && withdrawn.sent().is_none());
    }
}
