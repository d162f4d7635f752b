//! Discs that were there before their rows: the database was lost, and they were not.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::note;
use crate::{
    store::{
        Store, StoreError,
        audit::OPERATOR,
        column::{JsonText, Word, storable},
        db::on_tx,
        failed,
    },
    vm::{HostId, MediumFacts, MediumId, MediumKind, ResourceName},
};

/// A disc in its place.
#[derive(Debug, Clone)]
pub struct FoundDisc {
    /// Its id from now on.
    pub id: MediumId,
    /// Where it is.
    pub host: HostId,
    /// Its name.
    pub name: ResourceName,
    /// Its file, which is all that is known of where it came from.
    pub path: PathBuf,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// What it was recognised as.
    pub facts: MediumFacts,
}

impl Store {
    /// Stores a disc that is ready, with an audit row; `false`: a medium has its name.
    ///
    /// # Errors
    /// `Database`.
    pub async fn restore_disc(&self, disc: &FoundDisc, now: DateTime<Utc>) -> Result<bool, StoreError> {
        const OPERATION: &str = "restoring a disc";
        let now = storable(now);
        let facts = JsonText::write(OPERATION, &disc.facts)?;
        let mut tx = self.begin(OPERATION).await?;
        let inserted = on_tx!(&mut tx, db => sqlx::query(
            "INSERT INTO media (id, host_id, name, kind, source_kind, source, sha256, state, bytes_done,
                                bytes_total, facts, requested_by, created_at, finished_at)
             VALUES ($1, $2, $3, $4, 'path', $5, $6, 'ready', $7, $7, $8, $9, $10, $10)
             ON CONFLICT DO NOTHING",
        )
        .bind(disc.id.uuid())
        .bind(disc.host.uuid())
        .bind(disc.name.as_str())
        .bind(MediumKind::Installation.word())
        .bind(disc.path.display().to_string())
        .bind(&disc.sha256)
        .bind(i64::try_from(disc.bytes).unwrap_or(i64::MAX))
        .bind(&facts)
        .bind(OPERATOR.uuid())
        .bind(now)
        .execute(db)
        .await
        .map(|done| done.rows_affected() == 1))
        .map_err(failed(OPERATION))?;
        if inserted {
            let details = json!({ "medium": disc.id, "name": disc.name, "sha256": disc.sha256 });
            note(&mut tx, now, OPERATOR, "medium.restore", details).await?;
        }
        tx.commit(OPERATION).await?;
        Ok(inserted)
    }
}
