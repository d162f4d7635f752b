//! What storage pools hold, and what room they have.

use std::collections::HashSet;

use async_trait::async_trait;

use super::HypervisorError;

/// A pool that is active, as of one look.
#[derive(Debug, Clone, Default)]
pub struct PoolContents {
    /// Bytes.
    pub capacity_bytes: u64,
    /// Bytes.
    pub available_bytes: u64,
    /// The names of all its volumes; and of whatever else stands beside them, where they are files.
    pub volumes: HashSet<String>,
}

/// See the module.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Looks through a pool, and gives what it holds: complete, or an error. Neither starts a pool nor
    /// stops one, whatever its storage answers. A few calls, whatever it holds; but on a slow file system they take their time.
    ///
    /// # Errors
    /// A pool that is not there, not active or gives no answer: of its volumes nothing is known then.
    async fn pool(&self, name: &str) -> Result<PoolContents, HypervisorError>;
}
