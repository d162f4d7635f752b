//! Readings that the database cannot take yet, on disk: bounded, in order, there after a crash.
//!
//! What is stored from here may have been stored before (a crash between the database's word and
//! the removal of the file): a sample's id keeps it from being there twice.

mod disk;
mod segment;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use self::disk::Disk;
use super::losses::Losses;
use crate::store::PackedSample;

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    disk: Arc<Mutex<Disk>>,
    bytes: Arc<AtomicU64>,
}

impl Spool {
    pub(super) fn new(dir: PathBuf, max_bytes: u64, losses: Arc<Losses>) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let disk = Disk::new(dir, max_bytes, Arc::clone(&bytes), losses);
        Self { disk: Arc::new(Mutex::new(disk)), bytes }
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Acquire) == 0
    }

    /// Finds what an earlier controller left.
    pub(super) async fn open(&self) -> io::Result<()> {
        self.on_disk(Disk::open).await?
    }

    /// Puts readings behind all others.
    pub(super) async fn append(&self, samples: Arc<[PackedSample]>) -> io::Result<()> {
        self.on_disk(move |disk| disk.append(&samples)).await?
    }

    /// The oldest readings, with a number to remove them by. An error may pass: they are to be
    /// asked for again after a while.
    pub(super) async fn oldest(&self) -> io::Result<Option<(u64, Vec<PackedSample>)>> {
        self.on_disk(Disk::oldest).await?
    }

    /// They could not be stored; they stay, if there is room.
    pub(super) async fn not_stored(&self) -> io::Result<()> {
        self.on_disk(Disk::not_stored).await
    }

    /// They are stored.
    pub(super) async fn remove(&self, number: u64) -> io::Result<()> {
        self.on_disk(move |disk| disk.remove(number)).await
    }

    /// Works on a thread that may block. One at a time: what a caller gave up on is still done.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Disk) -> T + Send + 'static,
    ) -> io::Result<T> {
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(io::Error::other)
    }
}
