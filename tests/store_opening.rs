//! Opening, migrating and owning a database.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::{os::unix::fs::PermissionsExt, time::Duration};

use infinibay::{
    store::{SchemaState, Store, StoreError},
    vm::HostId,
};
use support::database::{Backend, TestDatabase};

async fn from_nothing(backend: Backend) {
    let db = TestDatabase::empty(backend).await;
    let store = db.store().await;
    store.ping().await.unwrap();
    let state = store.schema_state().await.unwrap();
    assert!(matches!(state, SchemaState::Behind(missing) if missing > 0), "{state:?}");
    for _ in 0..2 {
        store.migrate().await.unwrap();
        assert_eq!(store.schema_state().await.unwrap(), SchemaState::Current);
    }
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', TRUE, '', 0)";
    db.tamper(newer, newer).await;
    assert_eq!(store.schema_state().await.unwrap(), SchemaState::Ahead(1));
    let refused = store.migrate().await;
    assert!(matches!(refused, Err(StoreError::Migrate(_))), "{refused:?}");
}

#[tokio::test]
async fn a_sqlite_database_grows_from_nothing() {
    from_nothing(Backend::Sqlite).await;
}

#[tokio::test]
async fn a_postgresql_database_grows_from_nothing() {
    from_nothing(Backend::Postgres).await;
}

#[tokio::test]
async fn a_sqlite_database_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd name %20#.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let url = format!("sqlite:{}", path.display());
    let store = Store::open(&url, 2, Duration::from_secs(5)).await.unwrap();
    store.migrate().await.unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
        seen += 1;
    }
    assert_eq!(seen, 3, "the database, its log and its index");
    store.close().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error_in_time() {
    let open = async |url: &str| Store::open(url, 2, Duration::from_secs(2)).await;
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = format!("postgres://u:s3cret@127.0.0.1:{free}/x");
    for url in [away.as_str(), "sqlite:/no/such/directory/x.db", "sqlite::memory:", "mysql://x/y", ""] {
        let refused = tokio::time::timeout(Duration::from_secs(10), open(url)).await.expect(url);
        let Err(error @ StoreError::Database { .. }) = refused else { panic!("{url:?}: {refused:?}") };
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}

on_both! {
    async fn one_controller_per_host_and_database(db: TestDatabase) {
        let (store, host) = (db.store().await, HostId::generate());
        let held = store.lock(host).await.unwrap();
        let second = db.store().await;
        let _other_host = second.lock(HostId::generate()).await.expect("another host's lock is another");
        if db.backend() == Backend::Sqlite {
            // There the file lock does it.
            return;
        }
        let refused = second.lock(host).await;
        let Err(StoreError::Locked { holder }) = refused else { panic!("{refused:?}") };
        assert!(holder.contains(&host.to_string()), "{holder}");
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        assert!(holder.contains("connected from 127.0.0.1 since 2"), "{holder}");

        drop(held);
        // The server takes the lock back once it notices.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            match second.lock(host).await {
                Ok(_) => break,
                Err(StoreError::Locked { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("the lock was not given back: {error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_lock_whose_connection_broke_is_taken_again_or_lost() {
    const BREAK: &str = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                         WHERE application_name LIKE 'infinibayd % pid %' AND datname = current_database()";
    let db = TestDatabase::new(Backend::Postgres).await;
    let (store, host) = (db.store().await, HostId::generate());
    let mut held = store.lock(host).await.unwrap();
    held.hold().await.unwrap();

    db.tamper("", BREAK).await;
    held.hold().await.expect("it is free, so it is taken again");
    assert!(matches!(db.store().await.lock(host).await, Err(StoreError::Locked { .. })));

    db.tamper("", BREAK).await;
    let _quicker = db.store().await.lock(host).await.expect("the lock broke with its connection");
    let lost = held.hold().await;
    assert!(matches!(lost, Err(StoreError::Locked { .. })), "{lost:?}");
}
