//! Outcomes that the store would not take while their commands' tasks lasted.
//!
//! A row must not stay pending until the next start only because the database was away for some
//! minutes: its outcome waits here, within a bound, and is tried until the store takes it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::record::Kept;
use crate::{
    store::{CommandStatus, Store, StoreError},
    vm::CommandId,
};

/// Outcomes waiting at most, and their responses together, as JSON.
const MAX_OUTCOMES: usize = 1024;
const MAX_BYTES: usize = 16 << 20;

/// How long the store is left alone after it refused one.
const RETRY: Duration = Duration::from_secs(5);

/// An outcome on its way to the log.
#[derive(Debug)]
struct Outcome {
    id: CommandId,
    status: CommandStatus,
    success: bool,
    /// JSON: a tree would take many times that.
    response: String,
    execution_ms: i64,
}

/// See the module. Clones share what waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Late {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    outcomes: VecDeque<Outcome>,
    bytes: usize,
    /// Somebody is at work with them.
    tended: bool,
}

impl Late {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the outcome until the store takes it; `false`: there is no room. Whoever waits for
    /// `tasks` waits for that, too.
    pub(super) fn keep(
        &self,
        store: &Store,
        tasks: &TaskTracker,
        id: CommandId,
        kept: &Kept,
        execution_ms: i64,
    ) -> bool {
        let Kept { status, success, response } = kept;
        let response = response.to_string();
        let mut waiting = self.waiting();
        if !waiting.add(Outcome { id, status: *status, success: *success, response, execution_ms }) {
            return false;
        }
        if !waiting.tended {
            waiting.tended = true;
            tasks.spawn(self.clone().tend(store.clone()));
        }
        true
    }

    /// Until none is left.
    async fn tend(self, store: Store) {
        loop {
            sleep(RETRY).await;
            loop {
                let Some(outcome) = self.next() else { return };
                let id = outcome.id;
                match note(&store, &outcome).await {
                    Ok(()) => tracing::info!(command = %id, "a command's outcome is noted at last"),
                    Err(error @ StoreError::Database { .. }) => {
                        tracing::warn!(command = %id, %error, "a command's outcome still waits");
                        // To the end: it may be the one that is refused for itself.
                        if !self.waiting().add(outcome) {
                            tracing::error!(command = %id, "a command's outcome is lost: too many wait");
                        }
                        break;
                    }
                    Err(error) => {
                        tracing::error!(command = %id, %error, "a command's outcome cannot be noted");
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<Outcome> {
        let mut waiting = self.waiting();
        let next = waiting.outcomes.pop_front();
        match &next {
            Some(outcome) => waiting.bytes -= outcome.response.len(),
            None => waiting.tended = false,
        }
        next
    }
}

impl Waiting {
    fn add(&mut self, outcome: Outcome) -> bool {
        let bytes = self.bytes + outcome.response.len();
        if self.outcomes.len() >= MAX_OUTCOMES || bytes > MAX_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.outcomes.push_back(outcome);
        true
    }
}

async fn note(store: &Store, outcome: &Outcome) -> Result<(), StoreError> {
    let response = serde_json::from_str(&outcome.response).map_err(|error| StoreError::Corrupt {
        operation: "noting a command's outcome",
        reason: error.to_string(),
    })?;
    store
        .finish_command(outcome.id, outcome.status, outcome.success, Some(&response), outcome.execution_ms)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let outcome = |bytes: usize| Outcome {
            id: CommandId::generate(),
            status: CommandStatus::Answered,
            success: true,
            response: " ".repeat(bytes),
            execution_ms: 1,
        };
        let late = Late::default();
        let taken = (0..2 * MAX_OUTCOMES).filter(|_| late.waiting().add(outcome(1))).count();
        assert_eq!(taken, MAX_OUTCOMES);
        while late.next().is_some() {}
        assert_eq!(late.waiting().bytes, 0);
        assert!(late.waiting().add(outcome(MAX_BYTES)));
        assert!(!late.waiting().add(outcome(1)));
    }
}
