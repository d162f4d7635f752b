//! Which VMs use a medium. What a VM is made of, and what is about to be changed of it, is JSON
//! that names images by name, and discs by path, by name or as a volume of a pool over their
//! directory; all of that is looked for there. What a system is installed from is used until its domain
//! boots from its own disk.

use serde_json::Value;
use uuid::Uuid;

use super::row::MediumRow;
use crate::{
    store::{
        Store, StoreError,
        column::{JsonText, Word},
        db::{Tx, on_pool, on_tx},
        failed,
    },
    vm::{HostId, Medium, MediumKind, MediumState, ResourceName},
};

/// Names that are told at most.
const MAX_NAMES: usize = 5;

/// The VMs that use a medium.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediumUses {
    /// How many.
    pub count: usize,
    /// Some of their names.
    pub some: Vec<String>,
}

/// Keys under which a medium may stand by its name.
const NAME_KEYS: [&str; 4] = ["medium", "media", "iso", "installation"];

/// Whether a VM's JSON names the medium: as the image it was made of, by a path of its file, or
/// by name where a medium's name stands. Its installation counts unless it is done.
fn mentions(value: &mut Value, done: bool, medium: &Medium, file: &str) -> bool {
    if done && let Some(spec) = value.as_object_mut() {
        spec.remove("installation");
    }
    let name = medium.name.as_str();
    let image = medium.kind == MediumKind::DiskImage
        && value.get("image").and_then(|image| image.get("name")).and_then(Value::as_str) == Some(name);
    image || names(value, None, name, file)
}

/// Whether it is the file's name alone: a pool over the directory calls its volume so.
fn is_volume(text: &str, file: &str) -> bool {
    file.rsplit('/').next() == Some(text)
}

fn names(value: &Value, key: Option<&str>, name: &str, file: &str) -> bool {
    match value {
        Value::String(text) => {
            text == file
                || is_volume(text, file)
                || (text == name && key.is_some_and(|key| NAME_KEYS.contains(&key)))
        }
        Value::Array(items) => items.iter().any(|item| names(item, key, name, file)),
        Value::Object(entries) => entries.iter().any(|(key, item)| names(item, Some(key), name, file)),
        _ => false,
    }
}

/// What of this host's VMs may name the medium: only rows whose text holds the name are read.
const CANDIDATES_SQLITE: &str = "SELECT v.id, v.name, v.spec AS text,
            (v.installed_at IS NOT NULL OR v.boot_replaced_at IS NOT NULL) AS done FROM vms v
     WHERE v.host_id = $1 AND instr(v.spec, $2) > 0
     UNION ALL SELECT v.id, v.name, o.change AS text, FALSE AS done FROM operations o JOIN vms v ON v.id = o.vm_id
     WHERE v.host_id = $1 AND o.finished_at IS NULL AND o.change IS NOT NULL AND instr(o.change, $2) > 0";
const CANDIDATES_POSTGRES: &str = "SELECT v.id, v.name, v.spec AS text,
            (v.installed_at IS NOT NULL OR v.boot_replaced_at IS NOT NULL) AS done FROM vms v
     WHERE v.host_id = $1 AND strpos(v.spec::text, $2) > 0
     UNION ALL SELECT v.id, v.name, o.change AS text, FALSE AS done FROM operations o JOIN vms v ON v.id = o.vm_id
     WHERE v.host_id = $1 AND o.finished_at IS NULL AND o.change IS NOT NULL
       AND strpos(o.change::text, $2) > 0";

type Candidate = (Uuid, String, JsonText, bool);

fn counted(candidates: Vec<Candidate>, medium: &Medium, file: &str) -> Result<MediumUses, StoreError> {
    let mut users = std::collections::BTreeMap::new();
    for (id, name, text, done) in candidates {
        let mut value: Value = text.read("looking for a medium's uses", id)?;
        if mentions(&mut value, done, medium, file) {
            users.insert(id, name);
        }
    }
    Ok(MediumUses { count: users.len(), some: users.into_values().take(MAX_NAMES).collect() })
}

/// Looked up in the transaction of what depends on it.
pub(super) async fn of(tx: &mut Tx, medium: &Medium, file: &str) -> Result<MediumUses, StoreError> {
    let sql = tx.sql(CANDIDATES_SQLITE, CANDIDATES_POSTGRES);
    let candidates = on_tx!(tx, db => sqlx::query_as::<_, Candidate>(sql)
        .bind(medium.host.uuid())
        .bind(medium.name.as_str())
        .fetch_all(db)
        .await)
    .map_err(failed("looking for a medium's uses"))?;
    counted(candidates, medium, file)
}

impl Store {
    /// The VMs that use a medium. `file` is the path by which they may name it.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn medium_uses(&self, medium: &Medium, file: &str) -> Result<MediumUses, StoreError> {
        let sql = self.sql(CANDIDATES_SQLITE, CANDIDATES_POSTGRES);
        let candidates = on_pool!(self, db => sqlx::query_as::<_, Candidate>(sql)
            .bind(medium.host.uuid())
            .bind(medium.name.as_str())
            .fetch_all(db)
            .await)
        .map_err(failed("looking for a medium's uses"))?;
        counted(candidates, medium, file)
    }
}

/// Keeps an image that was brought in from being deleted until the transaction ends.
///
/// # Errors
/// `ImageGone`: it is on its way out.
pub(in crate::store) async fn hold_image(
    tx: &mut Tx,
    host: HostId,
    image: &ResourceName,
) -> Result<(), StoreError> {
    // One that somebody put into the library by hand has no row.
    match held(tx, host, image, MediumKind::DiskImage).await? {
        Some(MediumState::Deleting) => Err(StoreError::ImageGone),
        _ => Ok(()),
    }
}

/// Keeps an installation medium from being deleted until the transaction ends.
///
/// # Errors
/// `MediumGone`: there is none of that name, or it is not ready.
pub(in crate::store) async fn hold_medium(
    tx: &mut Tx,
    host: HostId,
    medium: &ResourceName,
) -> Result<(), StoreError> {
    match held(tx, host, medium, MediumKind::Installation).await? {
        Some(MediumState::Ready) => Ok(()),
        _ => Err(StoreError::MediumGone(medium.clone())),
    }
}

/// The same for a volume of a pool, which may be a disc's file: a pool can stand over their
/// directory. What is no disc of ours is not our affair.
///
/// # Errors
/// `MediumGone`: it is on its way out.
pub(in crate::store) async fn hold_volume(
    tx: &mut Tx,
    host: HostId,
    volume: &ResourceName,
) -> Result<(), StoreError> {
    let Some(disc) = volume.as_str().strip_suffix(".iso").and_then(|name| name.parse().ok()) else {
        return Ok(());
    };
    match held(tx, host, &disc, MediumKind::Installation).await? {
        Some(MediumState::Deleting) => Err(StoreError::MediumGone(disc)),
        _ => Ok(()),
    }
}

/// The state of a medium, which stays until the transaction ends.
async fn held(
    tx: &mut Tx,
    host: HostId,
    name: &ResourceName,
    kind: MediumKind,
) -> Result<Option<MediumState>, StoreError> {
    const OPERATION: &str = "holding a medium";
    // SQLite's transaction holds the whole database's write lock already.
    let sql = tx.sql(
        "SELECT * FROM media WHERE host_id = $1 AND name = $2 AND kind = $3",
        "SELECT * FROM media WHERE host_id = $1 AND name = $2 AND kind = $3 FOR SHARE",
    );
    let found = on_tx!(tx, db => sqlx::query_as::<_, MediumRow>(sql)
        .bind(host.uuid())
        .bind(name.as_str())
        .bind(kind.word())
        .fetch_optional(db)
        .await)
    .map_err(failed(OPERATION))?;
    Ok(found.map(|row| row.read(OPERATION)).transpose()?.map(|medium| medium.state))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::names;

    #[test]
    fn a_medium_is_found_by_path_or_where_a_name_stands() {
        let file = "/var/lib/infinibay/media/debian.iso";
        for (used, spec) in [
            (true, json!({ "cdroms": [{ "file": file }] })),
            (true, json!({ "change": { "medium": "debian" } })),
            (true, json!({ "media": ["other", "debian"] })),
            (true, json!({ "devices": { "media": [{ "target": "sda", "medium": "debian" }] } })),
            (true, json!({ "device": { "insert_medium": { "medium": "debian", "drive": null } } })),
            (true, json!({ "devices": { "media": [{ "pool": "discs", "volume": "debian.iso" }] } })),
            (false, json!({ "name": "debian" })),
            (false, json!({ "cdroms": [{ "file": "/elsewhere/debian.iso" }] })),
            (false, json!({ "medium": "debian-13", "vcpus": 1 })),
        ] {
            assert_eq!(names(&spec, None, "debian", file), used, "{spec}");
        }
    }
}
