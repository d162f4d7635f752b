//! Between a row of `media` and what it means.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    store::{
        StoreError,
        column::{JsonText, Word, words},
    },
    vm::{DiskFacts, Medium, MediumFailure, MediumKind, MediumSource, MediumState},
};

words!(MediumKind { DiskImage => "disk_image", Installation => "installation" });
words!(MediumState {
    Queued => "queued",
    Downloading => "downloading",
    Checking => "checking",
    Ready => "ready",
    Failed => "failed",
    Deleting => "deleting",
});

/// The stored words of a source's kind.
pub(super) fn source_word(source: &MediumSource) -> (&'static str, &str) {
    match source {
        MediumSource::Url(url) => ("url", url),
        MediumSource::Path(path) => ("path", path),
    }
}

#[derive(Debug, sqlx::FromRow)]
pub(super) struct MediumRow {
    id: Uuid,
    host_id: Uuid,
    name: String,
    kind: String,
    source_kind: String,
    source: String,
    expected_sha256: Option<String>,
    sha256: Option<String>,
    disk: Option<JsonText>,
    state: String,
    bytes_done: i64,
    bytes_total: Option<i64>,
    validator: Option<String>,
    partial: bool,
    discard: bool,
    facts: JsonText,
    error_code: Option<String>,
    error_message: Option<String>,
    requested_by: Uuid,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl MediumRow {
    pub(super) fn read(self, operation: &'static str) -> Result<Medium, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { operation, reason };
        let source = match self.source_kind.as_str() {
            "url" => MediumSource::Url(self.source),
            "path" => MediumSource::Path(self.source),
            other => return Err(corrupt(format!("{other:?} is no kind of source"))),
        };
        let disk = self.disk.map(|disk| disk.read::<DiskFacts>(operation, self.id)).transpose()?;
        Ok(Medium {
            id: self.id.into(),
            host: self.host_id.into(),
            name: self.name.parse().map_err(|error| corrupt(format!("row {}: {error}", self.id)))?,
            kind: MediumKind::read(operation, &self.kind)?,
            source,
            expected_sha256: self.expected_sha256,
            sha256: self.sha256,
            disk,
            state: MediumState::read(operation, &self.state)?,
            bytes_done: self.bytes_done.unsigned_abs(),
            bytes_total: self.bytes_total.map(i64::unsigned_abs),
            validator: self.validator,
            partial: self.partial,
            discard: self.discard,
            facts: self.facts.read(operation, self.id)?,
            failure: self
                .error_code
                .map(|code| MediumFailure { code, message: self.error_message.unwrap_or_default() }),
            requested_by: self.requested_by.into(),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}
