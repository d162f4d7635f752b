//! Snapshots, as the API shows them.

use async_graphql::{Enum, SimpleObject};
use chrono::{DateTime, Utc};

use crate::vm::{Quiesce, Quiesced, Snapshot, SnapshotState};

/// Whether a guest's file systems are brought to rest before a snapshot.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "Quiesce")]
pub(in crate::api) enum SnapshotQuiesce {
    /// Not at all.
    Never,
    /// Where the QEMU agent in the guest does it; the snapshot is taken in any case.
    IfPossible,
    /// Without it no snapshot is taken. Only for `memory: false`.
    Required,
}

/// What a revert to a snapshot leaves.
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "SnapshotState", name = "VmSnapshotState")]
pub(in crate::api) enum SnapshotStateName {
    /// The guest runs on from there: its memory is kept.
    Running,
    /// The VM is off, as it was then.
    Shutoff,
    /// The VM is off, with its disks as they were while the guest ran.
    Disk,
}

/// A snapshot of a VM. `parent` makes a tree of them.
#[derive(SimpleObject, Debug, Clone)]
pub(in crate::api) struct VmSnapshot {
    /// Its name. One that was made beside this API may be called anything.
    name: String,
    /// The name of the snapshot that it builds on; null for the first.
    parent: Option<String>,
    /// What people wrote about it.
    description: String,
    /// When it was taken.
    created_at: DateTime<Utc>,
    /// What a revert to it leaves.
    state: SnapshotStateName,
    /// Whether the VM's present state builds on it.
    current: bool,
    /// Whether the guest's file systems were at rest. Null where there was nothing to do, because
    /// the VM was off or its memory was kept, and where it is not known, because it was made beside
    /// this API.
    quiesced: Option<bool>,
    /// Why they were not.
    quiesced_reason: Option<String>,
}

impl From<Snapshot> for VmSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        let quiesced = snapshot.tag.map(|tag| tag.quiesced);
        Self {
            name: snapshot.name,
            parent: snapshot.parent,
            description: snapshot.description,
            created_at: snapshot.created_at,
            state: snapshot.state.into(),
            current: snapshot.current,
            quiesced: quiesced.and_then(Quiesced::answer),
            quiesced_reason: quiesced.and_then(Quiesced::reason).map(str::to_owned),
        }
    }
}
