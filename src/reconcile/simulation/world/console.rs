//! Screens, simulated: the loop never looks at one.

use async_trait::async_trait;

use super::World;
use crate::{
    hypervisor::{Console, HypervisorError, Screenshot},
    vm::VmId,
};

#[async_trait]
impl Console for World {
    async fn screenshot(&self, id: VmId) -> Result<Screenshot, HypervisorError> {
        Err(HypervisorError::NotFound { operation: format!("take a picture of the screen of domain {id}") })
    }
}
