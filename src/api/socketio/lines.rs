//! How connections are ended from here. The library tells a socket that it is disconnected, which does
//! nothing about one whose client does not listen: its WebSocket is torn down here, and where it polls,
//! the library is given a reason to forget it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Has the library forget a connection that polls, by its id.
type Forget = Arc<dyn Fn(String) + Send + Sync>;

/// The connections that can be ended, by the library's id. Clones share it.
#[derive(Clone)]
pub(super) struct Lines {
    /// WebSockets that a connection that polled went over to; there are no more than HTTP connections.
    upgraded: Arc<Mutex<HashMap<String, CancellationToken>>>,
    forget: Forget,
}

/// One such WebSocket, for as long as it is open.
pub(super) struct Line {
    all: Lines,
    id: String,
    cut: CancellationToken,
}

impl Lines {
    pub(super) fn new(forget: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self { upgraded: Arc::default(), forget: Arc::new(forget) }
    }

    /// A WebSocket that the connection of this id goes over to.
    pub(super) fn enter(&self, id: String) -> Line {
        let cut = CancellationToken::new();
        // A second one of the same id is refused by the library, and leaves the first one's place alone.
        self.upgraded().entry(id.clone()).or_insert_with(|| cut.clone());
        Line { all: self.clone(), id, cut }
    }

    /// Ends the WebSocket that the connection of this id went over to, where it did.
    pub(super) fn cut(&self, id: &str) {
        if let Some(cut) = self.upgraded().get(id) {
            cut.cancel();
        }
    }

    /// Ends a connection that polls.
    pub(super) fn forget(&self, id: String) {
        (self.forget)(id);
    }

    fn upgraded(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.upgraded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Cancelled when it is to end.
    pub(super) fn token(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // One that found its place taken is cancelled by nobody, and has none to give back.
        let mut upgraded = self.all.upgraded();
        self.cut.cancel();
        if upgraded.get(&self.id).is_some_and(CancellationToken::is_cancelled) {
            upgraded.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_its_id_and_a_second_one_of_it_takes_nothing() {
        let lines = Lines::new(|_| ());
        let (first, other) = (lines.enter("a".to_owned()), lines.enter("b".to_owned()));
        let second = lines.enter("a".to_owned());
        drop(second);
        lines.cut("a");
        assert!(first.token().is_cancelled() && !other.token().is_cancelled());
        drop((first, other));
        assert!(lines.upgraded().is_empty());
    }
}
