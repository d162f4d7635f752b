//! One prepared insert into SQLite, row by row in one transaction: what the store's insert is measured
//! against. It goes through the same driver as the store, which hands each row to a thread of its own.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, Connection as _, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

/// A value of a row, whatever the schema has there.
#[derive(Clone)]
enum Cell {
    Null,
    Whole(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// What stands in a database's `vm_metrics`, and how the table is made.
pub(crate) struct Stored {
    schema: Vec<String>,
    insert: Arc<str>,
    rows: Vec<Vec<Cell>>,
}

impl Stored {
    /// All of it.
    pub(crate) async fn read(from: &Path) -> Self {
        let mut source =
            SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(from)).await.unwrap();
        let schema = sqlx::query_scalar(
            "SELECT sql FROM sqlite_master WHERE tbl_name = 'vm_metrics' AND sql IS NOT NULL ORDER BY type DESC",
        )
        .fetch_all(&mut source)
        .await
        .unwrap();
        let rows =
            sqlx::query("SELECT * FROM vm_metrics ORDER BY rowid").fetch_all(&mut source).await.unwrap();
        let columns: Vec<&str> = rows[0].columns().iter().map(sqlx::Column::name).collect();
        let places = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO vm_metrics ({}) VALUES ({places})", columns.join(", ")).into();
        let rows = rows.iter().map(|row| (0..columns.len()).map(|n| cell(row, n)).collect()).collect();
        Self { schema, insert, rows }
    }

    /// Rows that [`Self::insert`] inserts.
    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }

    /// How long it takes to insert them into a new database with the same schema and the settings that
    /// the store has.
    pub(crate) async fn insert(&self, to: &Path) -> Duration {
        let options = SqliteConnectOptions::new()
            .filename(to)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut target = SqliteConnection::connect_with(&options).await.unwrap();
        for sql in &self.schema {
            sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut target).await.unwrap();
        }
        // What is bound is given away.
        let rows = self.rows.clone();
        let begun = Instant::now();
        let mut tx = target.begin().await.unwrap();
        for row in rows {
            let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&self.insert)));
            for cell in row {
                query = match cell {
                    Cell::Null => query.bind(None::<i64>),
                    Cell::Whole(value) => query.bind(value),
                    Cell::Real(value) => query.bind(value),
                    Cell::Text(value) => query.bind(value),
                    Cell::Bytes(value) => query.bind(value),
                };
            }
            query.execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        begun.elapsed()
    }
}

fn cell(row: &SqliteRow, index: usize) -> Cell {
    let value = row.try_get_raw(index).unwrap();
    if value.is_null() {
        return Cell::Null;
    }
    let kind = value.type_info().name().to_owned();
    match kind.as_str() {
        "INTEGER" => Cell::Whole(row.get_unchecked(index)),
        "REAL" => Cell::Real(row.get_unchecked(index)),
        "TEXT" => Cell::Text(row.get_unchecked(index)),
        _ => Cell::Bytes(row.get_unchecked(index)),
    }
}
