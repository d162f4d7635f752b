//! The database: SQL, one file per aggregate, SQLite and PostgreSQL.
//!
//! [`Store`] is a cheap handle. What changes intent does so in one transaction together with its
//! operation and its audit row; what the loop and the data plane write is idempotent, so that it
//! may be tried again after any crash.

mod alerts;
mod audit;
mod column;
mod commands;
mod db;
mod expiry;
mod lock;
mod metrics;
mod operations;
mod page;
mod resources;
mod schema;
mod series;
mod url;
mod users;
mod vm_errors;
mod vms;

pub use alerts::{AlertChanges, AlertLook, DueAlert, NewAlert, OpenAlert, Told, WatchedVm};
pub use commands::{CommandRecord, CommandStatus, NewCommand};
pub use db::Store;
pub use lock::StoreLock;
pub use metrics::{MetricsRow, PackedSample};
pub use page::{Page, PageOf};
pub use schema::SchemaState;
pub use url::{database_url, without_password};
pub use users::{TokenInfo, UserRecord};
pub use vm_errors::VmErrorRecord;
pub use vms::{NewVm, VmBundle, VmCount, VmView};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed or is away.
    #[error("{operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The database's words.
        #[source]
        source: sqlx::Error,
    },
    /// The database did not answer in time; what was asked may have been done or not.
    #[error("the database did not answer within {limit:?}")]
    NoAnswer {
        /// How long was waited.
        limit: std::time::Duration,
    },
    /// The migrations did not run.
    #[error("migrating the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A stored value cannot be read by this version.
    #[error("{operation}: a stored value cannot be read: {reason}")]
    Corrupt {
        /// What was tried.
        operation: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// A VM of this host has the name.
    #[error("the name is taken")]
    NameTaken,
    /// The id was given to another VM, or the same id came with another request.
    #[error("the id is in use")]
    IdTaken,
    /// No such row.
    #[error("not found")]
    NotFound,
    /// The VM is being deleted; nothing else may be asked of it.
    #[error("the VM is being deleted")]
    Deleting,
    /// Another controller holds this database for this host.
    #[error("the database is held by another controller of this host ({holder})")]
    Locked {
        /// Who, as far as the database tells.
        holder: String,
    },
    /// A user of that name exists.
    #[error("a user of that name exists")]
    UserExists,
}

/// Turns the database's error into ours.
fn failed(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
    move |source| match source {
        sqlx::Error::ColumnDecode { index, source } => {
            StoreError::Corrupt { operation, reason: format!("column {index}: {source}") }
        }
        source => StoreError::Database { operation, source },
    }
}
