//! One controller per host and database, even where the state directory's file lock cannot tell
//! (another machine that was given a copy of it).

use std::{io, time::Duration};

use sha2::{Digest, Sha256};
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool},
};
use tokio::time::timeout;

use super::{Store, StoreError, db::Db, failed};
use crate::vm::HostId;

/// Held while a controller owns the database; released when dropped or when the process dies.
#[derive(Debug)]
pub struct StoreLock {
    postgres: Option<PostgresLock>,
}

#[derive(Debug)]
struct PostgresLock {
    connection: PgConnection,
    options: PgConnectOptions,
    key: i64,
}

const OPERATION: &str = "locking the database";

/// How long the server is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

impl Store {
    /// PostgreSQL: an advisory lock on a connection of its own, keyed by the host. SQLite: the
    /// state directory's file lock does it, nothing here. From then on this handle and its clones
    /// know their host.
    ///
    /// # Errors
    /// `Locked`, with what the database tells of the holder.
    pub async fn lock(&self, host: HostId) -> Result<StoreLock, StoreError> {
        let postgres = match &self.db {
            Db::Sqlite(_) => None,
            Db::Postgres(pool) => Some(PostgresLock::take(lock_options(pool, host), lock_key(host)).await?),
        };
        // A second lock for another host would be a programming error; the first one stands.
        let _ = self.host.set(host);
        Ok(StoreLock { postgres })
    }
}

impl StoreLock {
    /// Makes sure that the lock is still held: its connection may have broken, and with it the
    /// lock; then it is taken again.
    ///
    /// # Errors
    /// `Locked`: another controller was quicker; this one has to end. `Database`: it could not be
    /// found out.
    pub async fn hold(&mut self) -> Result<(), StoreError> {
        let Some(lock) = &mut self.postgres else { return Ok(()) };
        // No answer in time is no answer: the lock may have another holder by now.
        if let Ok(Ok(())) = timeout(PATIENCE, lock.connection.ping()).await {
            return Ok(());
        }
        *lock = PostgresLock::take(lock.options.clone(), lock.key).await?;
        Ok(())
    }
}

impl PostgresLock {
    async fn take(options: PgConnectOptions, key: i64) -> Result<Self, StoreError> {
        timeout(PATIENCE, Self::try_take(options, key))
            .await
            .unwrap_or_else(|_| Err(failed(OPERATION)(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    async fn try_take(options: PgConnectOptions, key: i64) -> Result<Self, StoreError> {
        let mut connection = options.connect().await.map_err(failed(OPERATION))?;
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(key)
            .fetch_one(&mut connection)
            .await
            .map_err(failed(OPERATION))?;
        if taken {
            return Ok(Self { connection, options, key });
        }
        Err(StoreError::Locked { holder: holder(&mut connection, key).await? })
    }
}

/// Who holds it, in words.
async fn holder(connection: &mut PgConnection, key: i64) -> Result<String, StoreError> {
    let holder: Option<String> = sqlx::query_scalar(
        "SELECT a.application_name || ', connected from ' || coalesce(host(a.client_addr), 'this machine')
                || ' since ' || to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.classid::bigint = (($1::bigint >> 32) & 4294967295)
           AND l.objid::bigint = ($1::bigint & 4294967295)",
    )
    .bind(key)
    .fetch_optional(connection)
    .await
    .map_err(failed(OPERATION))?
    .flatten();
    // It may have ended since, or be another user's, of whom we may not know.
    Ok(holder.unwrap_or_else(|| "the database does not say who".to_owned()))
}

/// The pool's options, with a name that tells an operator who this is, and a watch on the network:
/// a host that dies without a word should not hold the lock for hours.
fn lock_options(pool: &PgPool, host: HostId) -> PgConnectOptions {
    let options = (*pool.connect_options()).clone();
    options.application_name(&format!("infinibayd {host} pid {}", std::process::id())).options([
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ])
}

fn lock_key(host: HostId) -> i64 {
    let digest = Sha256::new().chain_update(b"infinibay host lock ").chain_update(host.uuid()).finalize();
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key)
}
