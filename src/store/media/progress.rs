//! What the importer writes. Each statement names the state it expects; `false` says that a
//! request came in between, and that the importer has to leave its hands off.

use chrono::{DateTime, Utc};

use super::{id, row::MediumRow};
use crate::{
    store::{
        Store, StoreError,
        column::{JsonText, storable, storable_text},
        db::on_pool,
        failed,
    },
    vm::{HostId, Medium, MediumFacts, MediumFailure, MediumId},
};

/// Longest stored reason, characters.
const MAX_MESSAGE: usize = 500;

/// How an import ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediumEnd {
    /// It is in its place.
    Ready,
    /// It was given up.
    Failed {
        /// Why.
        failure: MediumFailure,
        /// Whether what was read is of use when it is asked for again.
        keep: bool,
    },
}

impl Store {
    /// What there is to do for the importer, oldest first: to bring in, to remove, to clean up.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn media_to_do(&self, host: HostId) -> Result<Vec<Medium>, StoreError> {
        const OPERATION: &str = "looking for media to work on";
        on_pool!(self, db => sqlx::query_as::<_, MediumRow>(
            "SELECT * FROM media
             WHERE host_id = $1 AND (state IN ('queued', 'downloading', 'checking', 'deleting') OR discard)
             ORDER BY id LIMIT 1000",
        )
        .bind(host.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?
        .into_iter()
        .map(|row| row.read(OPERATION))
        .collect()
    }

    /// Work on an import begins, or begins again: from here on there may be a file.
    ///
    /// # Errors
    /// `Database`.
    pub async fn medium_started(&self, medium: MediumId, now: DateTime<Utc>) -> Result<bool, StoreError> {
        on_pool!(self, db => sqlx::query(
            "UPDATE media SET state = 'downloading', partial = TRUE, started_at = COALESCE(started_at, $2)
             WHERE id = $1 AND state IN ('queued', 'downloading')",
        )
        .bind(id(medium))
        .bind(storable(now))
        .execute(db)
        .await
        .map(|done| done.rows_affected() == 1))
        .map_err(failed("noting that an import began"))
    }

    /// So many bytes are on the disk for certain.
    ///
    /// # Errors
    /// `Database`.
    pub async fn medium_progress(
        &self,
        medium: MediumId,
        done: u64,
        total: Option<u64>,
        validator: Option<&str>,
    ) -> Result<bool, StoreError> {
        on_pool!(self, db => sqlx::query(
            "UPDATE media SET bytes_done = $2, bytes_total = $3, validator = $4
             WHERE id = $1 AND state = 'downloading'",
        )
        .bind(id(medium))
        .bind(number(done))
        .bind(total.map(number))
        .bind(validator.map(storable_text))
        .execute(db)
        .await
        .map(|done| done.rows_affected() == 1))
        .map_err(failed("noting an import's progress"))
    }

    /// All bytes are there, they hash to this, and this is what they are. From here on the file
    /// may be in its place.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn medium_checked(
        &self,
        medium: MediumId,
        bytes: u64,
        sha256: &str,
        facts: &MediumFacts,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "noting what a medium is";
        let facts = JsonText::write(OPERATION, facts)?;
        on_pool!(self, db => sqlx::query(
            "UPDATE media SET state = 'checking', bytes_done = $2, bytes_total = $2, sha256 = $3, facts = $4
             WHERE id = $1 AND state IN ('downloading', 'checking')",
        )
        .bind(id(medium))
        .bind(number(bytes))
        .bind(sha256)
        .bind(&facts)
        .execute(db)
        .await
        .map(|done| done.rows_affected() == 1))
        .map_err(failed(OPERATION))
    }

    /// The import is over.
    ///
    /// # Errors
    /// `Database`.
    pub async fn medium_ended(
        &self,
        medium: MediumId,
        end: &MediumEnd,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let (state, failure, discard) = match end {
            MediumEnd::Ready => ("ready", None, false),
            MediumEnd::Failed { failure, keep } => ("failed", Some(failure), !keep),
        };
        let message = failure
            .map(|failure| storable_text(&failure.message.chars().take(MAX_MESSAGE).collect::<String>()));
        on_pool!(self, db => sqlx::query(
            "UPDATE media SET state = $2, error_code = $3, error_message = $4, finished_at = $5,
                              partial = CASE WHEN $2 = 'ready' THEN FALSE ELSE partial END,
                              discard = $6
             WHERE id = $1 AND state IN ('queued', 'downloading', 'checking')",
        )
        .bind(id(medium))
        .bind(state)
        .bind(failure.map(|failure| failure.code.as_str()))
        .bind(message)
        .bind(storable(now))
        .bind(discard)
        .execute(db)
        .await
        .map(|done| done.rows_affected() == 1))
        .map_err(failed("noting an import's end"))
    }

    /// The unfinished file of an import that was given up is gone.
    ///
    /// # Errors
    /// `Database`.
    pub async fn medium_discarded(&self, medium: MediumId) -> Result<(), StoreError> {
        on_pool!(self, db => sqlx::query(
            "UPDATE media SET partial = FALSE, discard = FALSE, bytes_done = 0, validator = NULL
             WHERE id = $1 AND state = 'failed'",
        )
        .bind(id(medium))
        .execute(db)
        .await
        .map(drop))
        .map_err(failed("noting that an unfinished file is gone"))
    }

    /// Everything of the medium is gone from the disk: its row goes, too.
    ///
    /// # Errors
    /// `Database`.
    pub async fn medium_gone(&self, medium: MediumId) -> Result<(), StoreError> {
        on_pool!(self, db => sqlx::query("DELETE FROM media WHERE id = $1 AND state = 'deleting'")
            .bind(id(medium))
            .execute(db)
            .await
            .map(drop))
        .map_err(failed("removing a medium's row"))
    }
}

/// No disk has more bytes than the database's numbers.
fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
