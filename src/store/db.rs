//! One handle over two databases.
//!
//! Rust bodies and SQL texts are written once: [`on_pool!`] and [`on_tx!`] expand the same
//! expression for each database, and what must differ is chosen with [`Store::sql`].

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sqlx::{
    Connection as _, PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{StoreError, failed, metrics::partitions::KnownDays};
use crate::vm::HostId;

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) db: Db,
    /// For what need not wait for the disk.
    pub(super) quick: Quick,
    /// The host that [`Store::lock`] was taken for.
    pub(super) host: Arc<OnceLock<HostId>>,
    /// The days that readings have room for.
    pub(super) days: Arc<KnownDays>,
}

#[derive(Debug, Clone)]
pub(super) enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// The database, for what need not be on disk when it is answered. On SQLite a connection of its
/// own with `synchronous = NORMAL`: such a commit survives the end of this process however it
/// ends, and only a power cut may take it back. On PostgreSQL the same pool; a statement says for
/// itself that its commit need not wait.
#[derive(Debug, Clone)]
pub(super) struct Quick {
    pub(super) db: Db,
}

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Expands the expression once per database, with a pool to run it on.
macro_rules! on_pool {
    ($store:expr, $executor:ident => $body:expr) => {
        match &$store.db {
            $crate::store::db::Db::Sqlite($executor) => $body,
            $crate::store::db::Db::Postgres($executor) => $body,
        }
    };
}

/// Expands the expression once per database, with a transaction's connection to run it on.
macro_rules! on_tx {
    ($tx:expr, $executor:ident => $body:expr) => {
        match &mut *$tx {
            $crate::store::db::Tx::Sqlite(tx) => {
                let $executor = &mut **tx;
                $body
            }
            $crate::store::db::Tx::Postgres(tx) => {
                let $executor = &mut **tx;
                $body
            }
        }
    };
}

pub(super) use {on_pool, on_tx};

/// No statement of ours takes this long unless something is wrong; a hung one must not hold its
/// connection and its row locks for ever.
const POSTGRES_LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "60s"), ("lock_timeout", "15s"), ("idle_in_transaction_session_timeout", "60s")];

/// How long an idle connection is taken to be alive without asking.
const TRUSTED: Duration = Duration::from_secs(1);

impl Store {
    /// Opens the database at `url` (`postgres://…` or `sqlite:PATH`, the file is made when it is
    /// missing, mode 0600). Runs no migration.
    ///
    /// PATH is taken as it stands: nothing in it is decoded.
    ///
    /// # Errors
    /// `Database`: not such a URL, or nobody answers there within `acquire_timeout`.
    pub async fn open(
        url: &str,
        max_connections: u32,
        acquire_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let opened = if url.starts_with("sqlite:") {
            open_sqlite(url, max_connections, acquire_timeout).await
        } else {
            open_postgres(url, max_connections, acquire_timeout).await.map(|pool| {
                let db = Db::Postgres(pool);
                (db.clone(), Quick { db })
            })
        };
        let (db, quick) = opened.map_err(failed("opening the database"))?;
        Ok(Self { db, quick, host: Arc::default(), days: Arc::default() })
    }

    /// One round trip.
    ///
    /// # Errors
    /// `Database`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_pool!(self, db => sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(db).await)
            .map_err(failed("asking the database for a sign of life"))?;
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        on_pool!(self.quick, db => db.close().await);
        on_pool!(self, db => db.close().await);
    }

    /// Begins a transaction that changes something. On SQLite it takes the one write lock at
    /// once: one that begins by reading could not be upgraded while another writes.
    pub(super) async fn begin(&self, operation: &'static str) -> Result<Tx, StoreError> {
        match &self.db {
            Db::Sqlite(pool) => pool.begin_with("BEGIN IMMEDIATE").await.map(Tx::Sqlite),
            Db::Postgres(pool) => pool.begin().await.map(Tx::Postgres),
        }
        .map_err(failed(operation))
    }

    /// Begins a transaction that sees one state of the database in all its statements.
    pub(super) async fn begin_snapshot(&self, operation: &'static str) -> Result<Tx, StoreError> {
        match &self.db {
            Db::Sqlite(pool) => pool.begin_with("BEGIN").await.map(Tx::Sqlite),
            Db::Postgres(pool) => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Tx::Postgres)
            }
        }
        .map_err(failed(operation))
    }

    /// The text for this database, where one text cannot serve both.
    pub(super) fn sql(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.db {
            Db::Sqlite(_) => sqlite,
            Db::Postgres(_) => postgres,
        }
    }
}

impl Tx {
    /// Makes it true.
    pub(super) async fn commit(self, operation: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
        .map_err(failed(operation))
    }

    /// The text for this database, where one text cannot serve both.
    pub(super) fn sql(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }
}

async fn open_postgres(url: &str, max: u32, timeout: Duration) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?.application_name("infinibayd").options(POSTGRES_LIMITS);
    PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(timeout)
        // A sign of life before every statement would double the round trips; one that was at work
        // a moment ago is trusted.
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for > TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(options)
        .await
}

async fn open_sqlite(url: &str, max: u32, timeout: Duration) -> Result<(Db, Quick), sqlx::Error> {
    let path = sqlite_path(url).map_err(|reason| sqlx::Error::Configuration(reason.into()))?;
    make_private(&path).await?;
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        // An intent that was answered must survive a power cut, too.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(timeout)
        .foreign_keys(true)
        // Forgotten secrets must not stay in free pages.
        .pragma("secure_delete", "ON");
    let quick = options.clone().synchronous(SqliteSynchronous::Normal);
    let open = async |max, options| {
        // A file does not go away like a server: no sign of life is asked for.
        let pool = SqlitePoolOptions::new().max_connections(max).acquire_timeout(timeout);
        pool.test_before_acquire(false).connect_with(options).await.map(Db::Sqlite)
    };
    let db = open(max, options).await?;
    Ok((db, Quick { db: open(1, quick).await? }))
}

/// The path in `sqlite:PATH` or `sqlite://PATH`.
fn sqlite_path(url: &str) -> Result<PathBuf, String> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or_default();
    // `:memory:` would be another database for each connection, `file:` is a notation of its own,
    // and an option after `?` would silently become part of a file's name.
    if path.is_empty() || path.starts_with(':') || path.starts_with("file:") || path.contains('?') {
        return Err("a SQLite URL is sqlite:PATH, the path of a file, without options".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// Makes the file unless it is there, and keeps everybody else from it. SQLite gives its side
/// files the same mode.
async fn make_private(path: &Path) -> std::io::Result<()> {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    let file = tokio::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .await?;
    if file.metadata().await?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_path_is_taken_as_it_stands() {
        for (url, path) in [
            ("sqlite:/var/lib/x/infinibay.db", "/var/lib/x/infinibay.db"),
            ("sqlite:///var/lib/x.db", "/var/lib/x.db"),
            ("sqlite:here.db", "here.db"),
            ("sqlite:/a%20b #c.db", "/a%20b #c.db"),
        ] {
            assert_eq!(sqlite_path(url), Ok(PathBuf::from(path)), "{url}");
        }
        for url in ["sqlite:", "sqlite://", "sqlite::memory:", "sqlite:x.db?mode=ro"] {
            assert!(sqlite_path(url).is_err(), "{url}");
        }
    }
}
