//! Media: what is asked for, and how the bringing in fares.
//!
//! Requests come with their audit row, in one transaction. What the importer writes names the
//! state that it expects, so that a request that came meanwhile (a cancellation, a deletion) is
//! never overwritten.

mod found;
mod progress;
mod row;
mod uses;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

pub use found::FoundDisc;
pub use progress::MediumEnd;
pub use uses::MediumUses;

pub(super) use uses::{hold_image, hold_medium, hold_volume};

use super::{
    Page, PageOf, Store, StoreError,
    audit::{self, AuditRow},
    column::{JsonText, Word, storable},
    db::{Tx, on_pool, on_tx},
    failed,
};
use crate::{
    failpoint::failpoint,
    vm::{
        DiskFacts, HostId, Medium, MediumFacts, MediumId, MediumKind, MediumSource, MediumState,
        ResourceName, UserId,
    },
};
use row::{MediumRow, source_word};

/// A medium that is asked for.
#[derive(Debug, Clone)]
pub struct NewMedium {
    /// Its id.
    pub id: MediumId,
    /// Where it goes.
    pub host: HostId,
    /// Unique on the host.
    pub name: ResourceName,
    /// What for.
    pub kind: MediumKind,
    /// Where from.
    pub source: MediumSource,
    /// What its SHA-256 must be, lower-case hexadecimal.
    pub expected_sha256: Option<String>,
    /// Of a disk image.
    pub disk: Option<DiskFacts>,
    /// Who asks.
    pub by: UserId,
}

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub struct MediaBounds {
    /// Imports that wait or are under way.
    pub open: u32,
    /// Media at all.
    pub all: u32,
}

/// Why a request for a medium was not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotAsked {
    /// Another medium has the name.
    #[error("a medium of that name exists")]
    NameTaken,
    /// There is no such medium.
    #[error("there is no such medium")]
    NotFound,
    /// One of the bounds is reached.
    #[error("there are too many")]
    TooMany(u32),
    /// VMs use it; some of their names.
    #[error("it is in use")]
    InUse(MediumUses),
    /// Its state forbids it.
    #[error("its state forbids it")]
    WrongState(MediumState),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Stores a request for a medium, with its audit row. The same request again gives what there
    /// is; where that was given up, it is queued anew, and goes on where it was broken off.
    ///
    /// # Errors
    /// `NameTaken`, `TooMany`, `Store`.
    pub async fn ask_for_medium(
        &self,
        new: &NewMedium,
        bounds: MediaBounds,
        now: DateTime<Utc>,
    ) -> Result<Medium, NotAsked> {
        const OPERATION: &str = "storing a request for a medium";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let open = count(&mut tx, new.host, true).await?;
        let inserted = insert(&mut tx, new, now).await?;
        let found = locked(&mut tx, OPERATION, new.host, &new.name).await?;
        if !inserted {
            let same = found.kind == new.kind
                && found.source == new.source
                && found.expected_sha256 == new.expected_sha256
                && found.disk == new.disk;
            match found.state {
                _ if !same => return Err(NotAsked::NameTaken),
                MediumState::Deleting => return Err(NotAsked::NameTaken),
                MediumState::Failed => {}
                _ => return Ok(found),
            }
            // What is being removed must be gone before anything is written there again.
            if found.discard {
                return Err(NotAsked::WrongState(found.state));
            }
            on_tx!(&mut tx, db => sqlx::query(
                "UPDATE media SET state = 'queued', error_code = NULL, error_message = NULL,
                                  started_at = NULL, finished_at = NULL WHERE id = $1",
            )
            .bind(found.id.uuid())
            .execute(db)
            .await
            .map(drop))
            .map_err(failed(OPERATION))?;
        }
        if open >= i64::from(bounds.open) {
            return Err(NotAsked::TooMany(bounds.open));
        }
        if inserted && count(&mut tx, new.host, false).await? > i64::from(bounds.all) {
            return Err(NotAsked::TooMany(bounds.all));
        }
        let details = json!({
            "medium": found.id, "name": new.name, "kind": new.kind.word(), "source": new.source.shown(),
            "sha256": new.expected_sha256,
        });
        note(&mut tx, now, new.by, "medium.import", details).await?;
        let stored = locked(&mut tx, OPERATION, new.host, &new.name).await?;
        tx.commit(OPERATION).await?;
        failpoint!("import-medium.stored");
        Ok(stored)
    }

    /// Gives an import up, with its audit row. What was read of it is to be removed.
    ///
    /// # Errors
    /// `NotFound`; `WrongState`: it is over.
    pub async fn cancel_medium(
        &self,
        host: HostId,
        name: &ResourceName,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<Medium, NotAsked> {
        const OPERATION: &str = "cancelling an import";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let found = locked_or_none(&mut tx, OPERATION, host, name).await?.ok_or(NotAsked::NotFound)?;
        // Once its place is being taken, it is as good as ready: a deletion takes it away again.
        if !matches!(found.state, MediumState::Queued | MediumState::Downloading) {
            return Err(NotAsked::WrongState(found.state));
        }
        on_tx!(&mut tx, db => sqlx::query(
            "UPDATE media SET state = 'failed', error_code = 'CANCELLED',
                              error_message = 'somebody cancelled it', discard = partial,
                              finished_at = $2 WHERE id = $1",
        )
        .bind(found.id.uuid())
        .bind(now)
        .execute(db)
        .await
        .map(drop))
        .map_err(failed(OPERATION))?;
        let details = json!({ "medium": found.id, "name": name });
        note(&mut tx, now, by, "medium.cancel", details).await?;
        let stored = locked(&mut tx, OPERATION, host, name).await?;
        tx.commit(OPERATION).await?;
        failpoint!("cancel-medium.stored");
        Ok(stored)
    }

    /// Marks a medium for deletion, with its audit row; asked again, gives it as it is. `file` is
    /// the path by which VMs may name it.
    ///
    /// # Errors
    /// `NotFound`; `InUse`; `WrongState`: an import under way has to be cancelled first.
    pub async fn delete_medium(
        &self,
        host: HostId,
        name: &ResourceName,
        file: &str,
        by: UserId,
        now: DateTime<Utc>,
    ) -> Result<Medium, NotAsked> {
        const OPERATION: &str = "storing a request for a medium's deletion";
        let now = storable(now);
        let mut tx = self.begin(OPERATION).await?;
        let found = locked_or_none(&mut tx, OPERATION, host, name).await?.ok_or(NotAsked::NotFound)?;
        match found.state {
            MediumState::Deleting => return Ok(found),
            MediumState::Ready | MediumState::Failed => {}
            open => return Err(NotAsked::WrongState(open)),
        }
        // The row is locked: whoever makes a VM of it waits, and then finds it going.
        let uses = uses::of(&mut tx, &found, file).await?;
        if uses.count > 0 {
            return Err(NotAsked::InUse(uses));
        }
        on_tx!(&mut tx, db => sqlx::query("UPDATE media SET state = 'deleting', finished_at = NULL WHERE id = $1")
            .bind(found.id.uuid())
            .execute(db)
            .await
            .map(drop))
        .map_err(failed(OPERATION))?;
        let details = json!({ "medium": found.id, "name": name });
        note(&mut tx, now, by, "medium.delete", details).await?;
        let stored = locked(&mut tx, OPERATION, host, name).await?;
        tx.commit(OPERATION).await?;
        failpoint!("delete-medium.stored");
        Ok(stored)
    }

    /// One medium, by name.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn medium(&self, host: HostId, name: &ResourceName) -> Result<Option<Medium>, StoreError> {
        const OPERATION: &str = "reading a medium";
        let sql = "SELECT * FROM media WHERE host_id = $1 AND name = $2";
        on_pool!(self, db => sqlx::query_as::<_, MediumRow>(sql)
            .bind(host.uuid())
            .bind(name.as_str())
            .fetch_optional(db)
            .await)
        .map_err(failed(OPERATION))?
        .map(|row| row.read(OPERATION))
        .transpose()
    }

    /// One medium, by id.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn medium_by_id(&self, host: HostId, medium: MediumId) -> Result<Option<Medium>, StoreError> {
        const OPERATION: &str = "reading a medium by its id";
        let sql = "SELECT * FROM media WHERE host_id = $1 AND id = $2";
        on_pool!(self, db => sqlx::query_as::<_, MediumRow>(sql)
            .bind(host.uuid())
            .bind(id(medium))
            .fetch_optional(db)
            .await)
        .map_err(failed(OPERATION))?
        .map(|row| row.read(OPERATION))
        .transpose()
    }

    /// Media, newest first; only those that are ready, where asked so.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn media(
        &self,
        host: HostId,
        ready_only: bool,
        page: Page,
    ) -> Result<PageOf<Medium>, StoreError> {
        const OPERATION: &str = "listing media";
        let rows = on_pool!(self, db => sqlx::query_as::<_, MediumRow>(
            "SELECT * FROM media WHERE host_id = $1 AND (NOT $2 OR state = 'ready')
               AND ($3 IS NULL OR id < $3) ORDER BY id DESC LIMIT $4",
        )
        .bind(host.uuid())
        .bind(ready_only)
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        page.cut(rows, |row| row.read(OPERATION))
    }
}

async fn insert(tx: &mut Tx, new: &NewMedium, now: DateTime<Utc>) -> Result<bool, StoreError> {
    const OPERATION: &str = "storing a medium";
    let disk = new.disk.as_ref().map(|disk| JsonText::write(OPERATION, disk)).transpose()?;
    let facts = JsonText::write(OPERATION, &MediumFacts::default())?;
    let (source_kind, source) = source_word(&new.source);
    on_tx!(tx, db => sqlx::query(
        "INSERT INTO media (id, host_id, name, kind, source_kind, source, expected_sha256, disk, state,
                            facts, requested_by, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $9, $10, $11)
         ON CONFLICT DO NOTHING",
    )
    .bind(new.id.uuid())
    .bind(new.host.uuid())
    .bind(new.name.as_str())
    .bind(new.kind.word())
    .bind(source_kind)
    .bind(source)
    .bind(new.expected_sha256.as_deref())
    .bind(disk)
    .bind(&facts)
    .bind(new.by.uuid())
    .bind(now)
    .execute(db)
    .await
    .map(|done| done.rows_affected() == 1))
    .map_err(failed(OPERATION))
}

/// How many there are, or how many of them are open.
async fn count(tx: &mut Tx, host: HostId, open: bool) -> Result<i64, StoreError> {
    on_tx!(tx, db => sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM media
         WHERE host_id = $1 AND (NOT $2 OR state IN ('queued', 'downloading', 'checking'))",
    )
    .bind(host.uuid())
    .bind(open)
    .fetch_one(db)
    .await)
    .map_err(failed("counting media"))
}

async fn note(
    tx: &mut Tx,
    at: DateTime<Utc>,
    user: UserId,
    action: &'static str,
    details: serde_json::Value,
) -> Result<(), StoreError> {
    audit::record(tx, &AuditRow { at, user, action, vm: None, details }).await
}

async fn locked(
    tx: &mut Tx,
    operation: &'static str,
    host: HostId,
    name: &ResourceName,
) -> Result<Medium, StoreError> {
    locked_or_none(tx, operation, host, name).await?.ok_or(StoreError::NotFound)
}

/// Reads a medium's row and keeps others from changing it until the transaction ends.
async fn locked_or_none(
    tx: &mut Tx,
    operation: &'static str,
    host: HostId,
    name: &ResourceName,
) -> Result<Option<Medium>, StoreError> {
    let sql = tx.sql(
        "SELECT * FROM media WHERE host_id = $1 AND name = $2",
        "SELECT * FROM media WHERE host_id = $1 AND name = $2 FOR UPDATE",
    );
    on_tx!(tx, db => sqlx::query_as::<_, MediumRow>(sql)
        .bind(host.uuid())
        .bind(name.as_str())
        .fetch_optional(db)
        .await)
    .map_err(failed(operation))?
    .map(|row| row.read(operation))
    .transpose()
}

/// The id as both databases take it.
fn id(medium: MediumId) -> Uuid {
    medium.uuid()
}
