//! Outcomes that the store would not take when they came.
//!
//! A row must not stay pending until the next start only because the database was away for some
//! minutes: its outcome waits here, within a bound, and is tried until the store takes it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::ports::CommandLog;
use crate::store::{CommandEnd, NewCommand, StoreError};
use crate::vm::CommandId;

/// What waits at most, and what it takes together, as JSON.
const MAX_WAITING: usize = 1024;
const MAX_BYTES: usize = 16 << 20;

/// How long the store is left alone after it refused one.
const RETRY: Duration = Duration::from_secs(5);

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be written.
#[derive(Debug)]
pub(super) enum Entry {
    /// How a logged command ended.
    End(CommandId, CommandEnd),
    /// A command whose logging was given up: it was not sent. With the response to keep.
    Void(NewCommand, String),
}

impl Entry {
    fn id(&self) -> CommandId {
        match self {
            Self::End(id, _) => *id,
            Self::Void(new, _) => new.id,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::End(_, end) => end.response.as_ref().map_or(0, String::len),
            Self::Void(new, response) => new.command.to_string().len() + response.len(),
        }
    }

    async fn write(&self, log: &dyn CommandLog) -> Result<(), StoreError> {
        let write = async {
            match self {
                Self::End(id, end) => log.finish_command(*id, end).await,
                Self::Void(new, response) => log.void_command(new, response).await,
            }
        };
        timeout(PATIENCE, write).await.unwrap_or(Err(StoreError::NoAnswer { limit: PATIENCE }))
    }
}

/// See the module. Clones share what waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Unstored {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With their sizes.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    /// Somebody is at work with them.
    tended: bool,
}

impl Unstored {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing waits or is being written.
    pub(super) fn is_idle(&self) -> bool {
        !self.waiting().tended
    }

    /// Keeps the entry until the store takes it; `false`: there is no room. Whoever waits for
    /// `tasks` waits for that, too.
    pub(super) fn keep(&self, log: &Arc<dyn CommandLog>, tasks: &TaskTracker, entry: Entry) -> bool {
        let mut waiting = self.waiting();
        let bytes = entry.bytes();
        if !waiting.add(entry, bytes) {
            return false;
        }
        if !waiting.tended {
            waiting.tended = true;
            tasks.spawn(self.clone().tend(Arc::clone(log)));
        }
        true
    }

    /// Until none is left.
    async fn tend(self, log: Arc<dyn CommandLog>) {
        loop {
            sleep(RETRY).await;
            loop {
                let Some((entry, bytes)) = self.next() else { return };
                let id = entry.id();
                match entry.write(&*log).await {
                    Ok(()) => tracing::info!(command = %id, "a command's outcome is noted at last"),
                    Err(error @ (StoreError::Database { .. } | StoreError::NoAnswer { .. })) => {
                        tracing::warn!(command = %id, %error, "a command's outcome still waits");
                        // To the end: it may be the one that is refused for itself.
                        if !self.waiting().add(entry, bytes) {
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

    fn next(&self) -> Option<(Entry, usize)> {
        let mut waiting = self.waiting();
        let next = waiting.entries.pop_front();
        match &next {
            Some((_, bytes)) => waiting.bytes -= bytes,
            None => waiting.tended = false,
        }
        next
    }
}

impl Waiting {
    fn add(&mut self, entry: Entry, bytes: usize) -> bool {
        if self.entries.len() >= MAX_WAITING || self.bytes + bytes > MAX_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CommandStatus;

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let entry = |bytes: usize| {
            let end = CommandEnd {
                status: CommandStatus::Answered,
                success: true,
                response: Some(" ".repeat(bytes)),
                sent_at: None,
                queue_ms: None,
                run_ms: None,
                execution_ms: 1,
            };
            Entry::End(CommandId::generate(), end)
        };
        let unstored = Unstored::default();
        let add = |bytes| {
            let entry = entry(bytes);
            let bytes = entry.bytes();
            unstored.waiting().add(entry, bytes)
        };
        assert_eq!((0..2 * MAX_WAITING).filter(|_| add(1)).count(), MAX_WAITING);
        while unstored.next().is_some() {}
        assert_eq!(unstored.waiting().bytes, 0);
        assert!(add(MAX_BYTES));
        assert!(!add(1));
    }
}
