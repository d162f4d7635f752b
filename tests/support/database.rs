//! A fresh database for each story, of either kind.
//!
//! PostgreSQL: one private cluster, shared by all test processes that run at the same time (see
//! [`cluster`]); in it a database per story, copied from a template that has the schema. Nothing
//! stays behind: the story drops its database, the cluster ends with its last user.
#![allow(dead_code)] // each story uses a part of it

mod cluster;
pub(crate) mod server;

use std::time::Duration;

use infinibay::store::Store;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use uuid::Uuid;

use cluster::Cluster;
pub(crate) use cluster::binaries;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// A database of its own, with the schema; gone when dropped.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// For `DATABASE_URL` or [`Store::open`].
    pub(crate) url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Sqlite(TempDir),
    Postgres { cluster: &'static Cluster, name: String },
}

/// Writes each story once and runs it on both databases, as tests `story::sqlite` and
/// `story::postgres`:
///
/// ```ignore
/// on_both! {
///     async fn what_is_stored_comes_back(db: TestDatabase) { … }
/// }
/// ```
#[allow(unused_macros)]
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($db:ident: TestDatabase) $body:block)+) => {$(
        $(#[$meta])*
        async fn $name($db: $crate::support::database::TestDatabase) $body

        mod $name {
            use $crate::support::database::{Backend, TestDatabase};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name(TestDatabase::new(Backend::Sqlite).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$name(TestDatabase::new(Backend::Postgres).await).await;
            }
        }
    )+};
}

impl TestDatabase {
    /// A database with the schema.
    pub(crate) async fn new(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let database = Self::empty(backend).await;
                let store = database.store().await;
                store.migrate().await.expect("migrating the SQLite database");
                store.close().await;
                database
            }
            Backend::Postgres => {
                let cluster = cluster().await;
                let template = cluster.template().await;
                Self::on_postgres(cluster, template).await
            }
        }
    }

    /// A database without anything in it.
    pub(crate) async fn empty(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let dir = tempfile::tempdir().expect("making a directory for the database");
                let url = format!("sqlite:{}", dir.path().join("test.db").display());
                Self { url, place: Place::Sqlite(dir) }
            }
            Backend::Postgres => Self::on_postgres(cluster().await, "template0").await,
        }
    }

    async fn on_postgres(cluster: &'static Cluster, template: &str) -> Self {
        let name = format!("t_{}", Uuid::new_v4().simple());
        let mut admin = cluster.admin().await;
        // Both names are of our making: letters, digits and '_'.
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await.expect("creating the story's database");
        admin.close().await.expect("closing the administrator's connection");
        Self { url: cluster.url(&name), place: Place::Postgres { cluster, name } }
    }

    /// Which kind it is.
    pub(crate) fn backend(&self) -> Backend {
        match self.place {
            Place::Sqlite(_) => Backend::Sqlite,
            Place::Postgres { .. } => Backend::Postgres,
        }
    }

    /// The directory of the database's files, where it is SQLite.
    pub(crate) fn directory(&self) -> Option<&std::path::Path> {
        match &self.place {
            Place::Sqlite(dir) => Some(dir.path()),
            Place::Postgres { .. } => None,
        }
    }

    /// Asks the database itself for a number.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let asked = match self.backend() {
            Backend::Sqlite => {
                let mut connection = self.sqlite().await;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
            Backend::Postgres => {
                let mut connection = self.postgres().await;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
        };
        asked.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Asks the database itself for bytes.
    pub(crate) async fn bytes(&self, sql: &'static str) -> Vec<u8> {
        let asked = match self.backend() {
            Backend::Sqlite => {
                let mut connection = self.sqlite().await;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
            Backend::Postgres => {
                let mut connection = self.postgres().await;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
        };
        asked.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Does something to the database behind the store's back.
    pub(crate) async fn tamper(&self, sqlite: &'static str, postgres: &'static str) {
        match self.backend() {
            Backend::Sqlite => {
                let mut connection = self.sqlite().await;
                sqlx::raw_sql(sqlite).execute(&mut connection).await.map(drop)
            }
            Backend::Postgres => {
                let mut connection = self.postgres().await;
                sqlx::raw_sql(postgres).execute(&mut connection).await.map(drop)
            }
        }
        .expect("tampering with the story's database");
    }

    /// What the database says to this; nothing where it goes well.
    pub(crate) async fn tried(&self, sql: &'static str) -> String {
        let tried = match self.backend() {
            Backend::Sqlite => {
                let mut connection = self.sqlite().await;
                sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
            }
            Backend::Postgres => {
                let mut connection = self.postgres().await;
                sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
            }
        };
        tried.err().map(|error| error.to_string()).unwrap_or_default()
    }

    async fn sqlite(&self) -> SqliteConnection {
        let file = self.directory().expect("a SQLite database").join("test.db");
        let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(30));
        SqliteConnection::connect_with(&options).await.expect("opening the story's database")
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("opening the story's database")
    }

    /// A handle on it. Call again for another, as another process would.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.url, 8, Duration::from_secs(30)).await.expect("opening the story's database")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Place::Postgres { cluster, name } = &self.place else { return };
        // A runtime cannot be entered twice on one thread, and the story's is still there.
        let dropped = std::thread::scope(|scope| scope.spawn(|| drop_database(cluster, name)).join());
        match dropped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the story's database {name} was not dropped: {error}"),
            Err(_) => eprintln!("the story's database {name} was not dropped: panicked"),
        }
    }
}

fn drop_database(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut admin = PgConnection::connect(&cluster.url("postgres")).await?;
        let sql = format!("DROP DATABASE {name} WITH (FORCE)");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await?;
        admin.close().await?;
        Ok(())
    })
}

async fn cluster() -> &'static Cluster {
    tokio::time::timeout(Duration::from_secs(180), tokio::task::spawn_blocking(Cluster::shared))
        .await
        .expect("the PostgreSQL test cluster did not come up in time")
        .expect("starting the PostgreSQL test cluster panicked; see above")
}
