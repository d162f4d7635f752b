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
mod media;
mod metrics;
mod operations;
mod page;
mod people;
mod resources;
mod schema;
mod seals;
mod series;
mod sessions;
mod shares;
mod tokens;
mod url;
mod users;
mod vm_errors;
mod vms;

pub use alerts::{AlertChanges, AlertLook, AlertSearch, DueAlert, NewAlert, OpenAlert, Told, WatchedVm};
pub use audit::{
    AskedFrom, AuditEntry, AuditFilter, AuditOutcome, Refusal, asked_from, asked_likewise, pieces_asked_from,
    request_at_hand,
};
pub use commands::{
    CommandEnd, CommandRecord, CommandSearch, CommandStatus, LateNote, NewCommand, NotLogged,
};
pub use db::Store;
pub use lock::StoreLock;
pub use media::{FoundDisc, MediaBounds, MediumEnd, MediumUses, NewMedium, NotAsked};
pub use metrics::{MetricsRow, PackedSample};
pub use page::{Page, PageOf};
pub use people::UserChange;
pub use schema::SchemaState;
pub use sessions::{Credentials, Refreshed, SessionInfo, SessionTokens, StoredToken};
pub use shares::VmShare;
pub use tokens::{TokenInfo, TokenUse};
pub use url::{database_url, without_password};
pub use users::UserRecord;
pub use vm_errors::VmErrorRecord;
pub use vms::{
    ChangeOutcome, FoundVm, HeardReport, NewClone, NewVm, VmAccess, VmBundle, VmCount, VmSearch, VmView,
    VmsFrom,
};

use crate::vm::{Operation, ResourceName};

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
    /// Others made the VM's domain: it is not ours to delete.
    #[error("the VM was adopted")]
    Adopted,
    /// Another change of the VM is under way.
    #[error("another change of the VM is under way")]
    ChangeUnderWay(Box<Operation>),
    /// The image is on its way out; no VM can be made of it.
    #[error("the image is being deleted")]
    ImageGone,
    /// No installation medium of that name is ready, or it is on its way out.
    #[error("there is no ready medium {0}")]
    MediumGone(ResourceName),
    /// Another controller holds this database for this host.
    #[error("the database is held by another controller of this host ({holder})")]
    Locked {
        /// Who, as far as the database tells.
        holder: String,
    },
    /// A user of that name exists.
    #[error("a user of that name exists")]
    UserExists,
    /// Nobody would be left who may administer the host.
    #[error("the last admin has to stay one")]
    LastAdmin,
    /// A user's VMs would be nobody's.
    #[error("the user owns VMs")]
    OwnsVms,
    /// There are as many as there may be.
    #[error("there are as many as there may be")]
    TooMany,
}

impl StoreError {
    /// Whether the database is away, or too busy to answer: the same may go well later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Database { source, .. } => is_away(source),
            _ => false,
        }
    }

    /// Whether this is what the database said, so that what was asked was certainly not done.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Database { source, .. } => matches!(source, sqlx::Error::Database(_)),
            Self::NoAnswer { .. } => false,
            _ => true,
        }
    }
}

fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // PostgreSQL: no connection, no resources, shutting down or starting, broken disk.
            // SQLite, by the primary code: busy, locked, read-only, I/O error, full, cannot open.
            let postgres =
                code.len() == 5 && ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class));
            let sqlite =
                code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14));
            postgres || (code.len() < 5 && sqlite)
        }
        _ => false,
    }
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
