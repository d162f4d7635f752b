//! The database, for subcommands: to look at it, or to change it while nobody else may.

use anyhow::Context;
use secrecy::ExposeSecret;

use crate::{
    config::Config,
    controller::{host_id, lock::HostLock},
    store::{Store, StoreLock, database_url},
    vm::HostId,
};

/// The database, ours alone until this is dropped.
pub(super) struct Exclusive {
    pub(super) store: Store,
    pub(super) host: HostId,
    _database: StoreLock,
    _host: HostLock,
}

/// Opens the database for looking.
pub(super) async fn open(config: &Config) -> anyhow::Result<Store> {
    let database = &config.database;
    let url = database_url(database.url.as_ref(), &config.paths.state_dir)?;
    // A subcommand makes its statements one after the other.
    Ok(Store::open(url.expose_secret(), 1, database.acquire_timeout).await?)
}

/// Opens the database for changing: under the host's lock and the database's.
pub(super) async fn open_exclusive(config: &Config) -> anyhow::Result<Exclusive> {
    let state_dir = config.paths.state_dir.clone();
    let (lock, host) = tokio::task::spawn_blocking(move || {
        let lock = HostLock::acquire(&state_dir)?;
        let host = host_id::load_or_create(&state_dir)
            .with_context(|| format!("reading the host's id in {}", state_dir.display()))?;
        anyhow::Ok((lock, host))
    })
    .await
    .context("locking the state directory")??;
    let store = open(config).await?;
    let database = store.lock(host).await?;
    Ok(Exclusive { store, host, _database: database, _host: lock })
}
