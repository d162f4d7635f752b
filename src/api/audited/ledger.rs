//! Where refusals are brought to be written down: at once, before who was refused hears of it; later,
//! where the database is away or whoever asked has gone; and as a count, where they are too many.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use crate::{
    store::{Refusal, Store},
    vm::chain,
};

/// How long a refusal waits for its row; afterwards the row waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon rows that wait are tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is told how many got no row. A user writes no more rows of that kind than this.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Whoever was told so need not wait for the same once more.
const DATABASE_AWAY: &str = "STORE_UNAVAILABLE";

/// Clones share it.
#[derive(Clone)]
pub(in crate::api) struct Ledger {
    store: Store,
    book: Arc<Mutex<Book>>,
    hasty: Arc<Notify>,
    stop: CancellationToken,
}

impl Ledger {
    /// `stop` says why requests end before they are answered.
    pub(in crate::api) fn new(store: Store, stop: CancellationToken) -> Self {
        let book = Arc::new(Mutex::new(Book::new(Instant::now())));
        Self { store, book, hasty: Arc::default(), stop }
    }

    /// Whether the controller is going.
    pub(super) fn stops(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Writes them down, if they get rows and the database answers soon; otherwise they are written
    /// later, also where this is given up.
    pub(super) async fn note(&self, refusals: Vec<Refusal>) {
        let rows = self.book().admit(refusals, Instant::now());
        if rows.is_empty() {
            return;
        }
        let away = rows.iter().any(|row| row.code.as_deref() == Some(DATABASE_AWAY));
        let mut writing = Writing { ledger: self, rows };
        if !away && self.write(&writing.rows).await {
            writing.rows.clear();
        }
    }

    /// The same for who cannot wait.
    pub(super) fn note_later(&self, refusals: Vec<Refusal>) {
        {
            let mut book = self.book();
            let rows = book.admit(refusals, Instant::now());
            book.wait(rows);
        }
        self.hasty.notify_one();
    }

    /// Counts what gets no row of its own.
    pub(super) fn count(&self, refusal: &Refusal) {
        self.book().leave_out(refusal, "attempts");
    }

    /// Writes what waits, for as long as it is polled.
    pub(in crate::api) async fn keep(&self) -> Infallible {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Instant::now();
        loop {
            tokio::select! {
                _ = again.tick() => {}
                () = self.hasty.notified() => {}
            }
            let written = self.write_waiting().await;
            if written && told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                self.write_owed().await;
            }
        }
    }

    /// Writes whatever there is, once.
    pub(in crate::api) async fn settle(&self) {
        self.write_waiting().await;
        self.write_owed().await;
    }

    async fn write_waiting(&self) -> bool {
        let rows = self.book().waiting();
        let mut writing = Writing { ledger: self, rows };
        let written = self.write(&writing.rows).await;
        if written {
            writing.rows.clear();
        }
        written
    }

    async fn write_owed(&self) {
        let rows = self.book().owed(Utc::now());
        if self.write(&rows).await {
            self.book().paid();
        }
    }

    /// Whether they are written. A second time is as good as the first.
    async fn write(&self, rows: &[Refusal]) -> bool {
        let why = match timeout(PATIENCE, self.store.record_refusals(rows)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => chain(&error),
            Err(_) => "the database did not answer in time".to_owned(),
        };
        tracing::warn!(rows = rows.len(), why, "refusals are not in the audit log yet");
        false
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows that wait if they are not written.
struct Writing<'a> {
    ledger: &'a Ledger,
    rows: Vec<Refusal>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.rows.is_empty() {
            self.ledger.book().wait(std::mem::take(&mut self.rows));
        }
    }
}
