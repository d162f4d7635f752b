//! Copies of volumes: none are made, here.

use async_trait::async_trait;
use infinibay::{
    hypervisor::{Copied, Copies, Copying, HypervisorError, VolumeCopy},
    vm::VmId,
};

use super::not_simulated;
use crate::simulation::controller::Ports;

#[async_trait]
impl Copies for Ports {
    async fn copy_volume(&self, _id: VmId, _copy: VolumeCopy) -> Result<Copied, HypervisorError> {
        not_simulated("copy_volume")
    }

    async fn copying(&self, _id: VmId) -> Copying {
        Copying::Nothing
    }
}
