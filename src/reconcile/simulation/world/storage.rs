//! A pool, simulated: what it holds, unless it is away.

use async_trait::async_trait;

use super::World;
use crate::hypervisor::{HypervisorError, PoolContents, Storage};

#[async_trait]
impl Storage for World {
    async fn pool(&self, name: &str) -> Result<PoolContents, HypervisorError> {
        let operation = || format!("look through pool {name:?}");
        let state = self.state();
        if !state.reachable {
            return Err(HypervisorError::Unreachable { operation: operation(), source: None });
        }
        if state.pool_is_silent {
            let reason = "the pool is not active".to_owned();
            return Err(HypervisorError::Invalid { operation: operation(), reason });
        }
        let capacity_bytes = 100 << 30;
        let available_bytes = if state.pool_is_full { 0 } else { capacity_bytes };
        Ok(PoolContents { capacity_bytes, available_bytes, volumes: state.volumes.iter().cloned().collect() })
    }
}

impl World {
    /// The pool gives no answer from now on, or does again.
    pub(in crate::reconcile::simulation) fn silence_pool(&self, silent: bool) {
        self.state().pool_is_silent = silent;
    }

    /// The pool is full from now on, or is not any more.
    pub(in crate::reconcile::simulation) fn fill_pool(&self, full: bool) {
        self.state().pool_is_full = full;
    }

    /// Somebody removes the VM's volumes; gives them, to be put back.
    pub(in crate::reconcile::simulation) fn take_volumes(&self) -> std::collections::BTreeSet<String> {
        std::mem::take(&mut self.state().volumes)
    }

    /// Somebody puts them back.
    pub(in crate::reconcile::simulation) fn put_volumes(&self, volumes: std::collections::BTreeSet<String>) {
        self.state().volumes.extend(volumes);
    }

    /// The hypervisor pauses the guest because a disk failed.
    pub(in crate::reconcile::simulation) fn starve(&self) {
        let mut state = self.state();
        (state.domain, state.reason) = (Some(crate::vm::DomainState::Paused), 5);
    }
}
