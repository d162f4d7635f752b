//! The schema's versions: one numbered series of migrations per database, part of the program.

use sqlx::{ConnectOptions, Connection, migrate::Migrator};

use super::{
    Store, StoreError,
    db::{Db, on_pool},
    failed,
};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// How the database's schema compares with this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// The same.
    Current,
    /// This many migrations have not run.
    Behind(usize),
    /// A newer program was here: this many migrations are unknown to this one.
    Ahead(usize),
}

impl Store {
    /// Brings the schema up to date.
    ///
    /// # Errors
    /// `Migrate`; each migration is a transaction, so that a failed one leaves nothing.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.db {
            Db::Sqlite(pool) => SQLITE.run(pool).await,
            Db::Postgres(pool) => {
                // On a connection of its own: a migration may take longer than any statement should.
                let options = (*pool.connect_options()).clone();
                let mut connection = options
                    .options([("statement_timeout", "0"), ("lock_timeout", "0")])
                    .connect()
                    .await
                    .map_err(failed("connecting to migrate the database"))?;
                let outcome = POSTGRES.run(&mut connection).await;
                if let Err(error) = connection.close().await {
                    tracing::debug!(%error, "the connection that migrated did not close cleanly");
                }
                outcome
            }
        }
        .map_err(StoreError::Migrate)
    }

    /// Compares the schema with this program's, changing nothing.
    ///
    /// # Errors
    /// `Database`.
    pub async fn schema_state(&self) -> Result<SchemaState, StoreError> {
        const OPERATION: &str = "reading the schema's version";
        let (known, exists) = match self.db {
            Db::Sqlite(_) => (&SQLITE, "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'"),
            Db::Postgres(_) => {
                (&POSTGRES, "SELECT count(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')")
            }
        };
        let exists: i64 = on_pool!(self, db => sqlx::query_scalar(exists).fetch_one(db).await)
            .map_err(failed(OPERATION))?;
        let applied: Vec<i64> = if exists == 0 {
            Vec::new()
        } else {
            let sql = "SELECT version FROM _sqlx_migrations WHERE success";
            on_pool!(self, db => sqlx::query_scalar(sql).fetch_all(db).await).map_err(failed(OPERATION))?
        };
        let unknown = applied.iter().filter(|version| !known.version_exists(**version)).count();
        let missing = known.iter().filter(|migration| !applied.contains(&migration.version)).count();
        Ok(match (unknown, missing) {
            (0, 0) => SchemaState::Current,
            (0, missing) => SchemaState::Behind(missing),
            (unknown, _) => SchemaState::Ahead(unknown),
        })
    }
}
