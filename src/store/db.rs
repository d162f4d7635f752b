//! One handle over two databases.

use std::time::Duration;

use super::StoreError;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {}

/// Held while a controller owns the database; released when dropped or when the process dies.
#[derive(Debug)]
pub struct StoreLock {}

impl Store {
    /// Opens the database at `url` (`postgres://…` or `sqlite:PATH`, the file is made when it is
    /// missing, mode 0600). Runs no migration.
    pub async fn open(
        _url: &str,
        _max_connections: u32,
        _acquire_timeout: Duration,
    ) -> Result<Self, StoreError> {
        todo!()
    }

    /// Brings the schema up to date.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// One round trip.
    pub async fn ping(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// PostgreSQL: an advisory lock on a connection of its own, keyed by the host. SQLite: the
    /// state directory's file lock does it, nothing here.
    pub async fn lock(&self, _host: crate::vm::HostId) -> Result<StoreLock, StoreError> {
        todo!()
    }

    /// Closes all connections.
    pub async fn close(&self) {
        todo!()
    }
}
