//! How long a request may take: the configured time, or as long as the command it waits for.

use std::sync::Arc;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::error::ApiError;

/// A moment that may be moved later, never earlier. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    at: Arc<watch::Sender<Instant>>,
}

impl Deadline {
    pub(super) fn at(at: Instant) -> Self {
        Self { at: Arc::new(watch::Sender::new(at)) }
    }

    /// Not before `at`.
    pub(super) fn extend_to(&self, at: Instant) {
        self.at.send_if_modified(|now| {
            let later = at > *now;
            *now = at.max(*now);
            later
        });
    }

    /// Whether it has.
    pub(super) fn has_passed(&self) -> bool {
        Instant::now() >= *self.at.borrow()
    }

    /// Returns when it has passed.
    pub(super) async fn passed(&self) {
        let mut moved = self.at.subscribe();
        loop {
            let at = *moved.borrow_and_update();
            if Instant::now() >= at {
                return;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                // We hold the sender, so this is never closed.
                _ = moved.changed() => {}
            }
        }
    }
}

/// What is told whose request took longer.
pub(super) fn too_slow() -> ApiError {
    ApiError::new("REQUEST_TIMEOUT", "the request took too long; ask for less")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_moves_later_and_never_earlier() {
        let begun = Instant::now();
        let deadline = Deadline::at(begun + Duration::from_secs(10));
        let other = deadline.clone();
        let waiter = tokio::spawn(async move {
            other.passed().await;
            Instant::now()
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        deadline.extend_to(begun + Duration::from_secs(100));
        deadline.extend_to(begun + Duration::from_secs(5));
        let passed = waiter.await.unwrap() - begun;
        assert!(passed >= Duration::from_secs(100) && passed < Duration::from_secs(101), "{passed:?}");
    }
}
