//! What was made on the host for a VM, so that deletion removes exactly that.

use serde::{Deserialize, Serialize};

use super::VmId;

/// The kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// A volume in a libvirt storage pool; `place` is the pool.
    Volume,
    /// The seed medium; `place` is the directory.
    Seed,
    /// The serial console's log; `place` is the directory.
    ConsoleLog,
}

/// How far it got. The row comes first: a crash between the row and the thing leaves nothing
/// unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceState {
    /// It may or may not exist.
    Creating,
    /// It was made.
    Created,
}

/// One thing made for one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Whose it is.
    pub vm: VmId,
    /// What it is.
    pub kind: ResourceKind,
    /// The pool or directory.
    pub place: String,
    /// The volume's or file's name, with the VM's id in it.
    pub name: String,
    /// How far it got.
    pub state: ResourceState,
}
