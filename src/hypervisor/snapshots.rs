//! A domain's snapshots.

/// See the module.
pub trait Snapshots: Send + Sync {}
