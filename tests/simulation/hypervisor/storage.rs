//! Pools, as they are when they are looked through; at times they give no answer.

use async_trait::async_trait;
use infinibay::hypervisor::{HypervisorError, PoolContents, Storage};

use super::{invalid, unreachable};
use crate::simulation::controller::Ports;

#[async_trait]
impl Storage for Ports {
    async fn pool(&self, name: &str) -> Result<PoolContents, HypervisorError> {
        self.world.point(self.life, "before a look at a pool").await;
        let mut state = self.world.state();
        let blind = state.faults.blind;
        if state.chance.one_in(blind) {
            return Err(invalid("pool", "a fault"));
        }
        if !state.host.reachable {
            return Err(unreachable("pool"));
        }
        let volumes = state.host.volumes.keys().filter(|(pool, _)| pool == name);
        let volumes = volumes.map(|(_, volume)| volume.clone()).collect();
        Ok(PoolContents { capacity_bytes: 100 << 30, available_bytes: 50 << 30, volumes })
    }
}
