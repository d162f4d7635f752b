//! What is plugged into a domain: nothing is, here.

use std::path::PathBuf;

use async_trait::async_trait;
use infinibay::{
    domain_xml::{DeviceName, NewDevice},
    hypervisor::{BlankVolume, Devices, DomainHardware, HypervisorError, Live, Unplugged, VolumeFacts},
    vm::VmId,
};

use super::not_simulated;
use crate::simulation::controller::Ports;

#[async_trait]
impl Devices for Ports {
    async fn hardware(&self, _id: VmId) -> Result<DomainHardware, HypervisorError> {
        not_simulated("hardware")
    }

    async fn resize(&self, _id: VmId, _vcpus: u32, _memory_mib: u64) -> Result<(), HypervisorError> {
        not_simulated("resize")
    }

    async fn create_blank(&self, _id: VmId, _volume: BlankVolume) -> Result<PathBuf, HypervisorError> {
        not_simulated("create_blank")
    }

    async fn volume(
        &self,
        _id: VmId,
        _pool: &str,
        _name: &str,
    ) -> Result<Option<VolumeFacts>, HypervisorError> {
        not_simulated("volume")
    }

    async fn grow_volume(
        &self,
        _id: VmId,
        _pool: &str,
        _name: &str,
        _bytes: u64,
    ) -> Result<(), HypervisorError> {
        not_simulated("grow_volume")
    }

    async fn grow_disk(&self, _id: VmId, _target: &str, _bytes: u64) -> Result<(), HypervisorError> {
        not_simulated("grow_disk")
    }

    async fn plug(&self, _id: VmId, _device: NewDevice) -> Result<Live, HypervisorError> {
        not_simulated("plug")
    }

    async fn unplug(&self, _id: VmId, _device: DeviceName) -> Result<Unplugged, HypervisorError> {
        not_simulated("unplug")
    }

    async fn set_medium(
        &self,
        _id: VmId,
        _target: &str,
        _medium: Option<PathBuf>,
    ) -> Result<Live, HypervisorError> {
        not_simulated("set_medium")
    }
    async fn boot_from_disk(&self, _id: VmId, _media: Vec<PathBuf>) -> Result<(), HypervisorError> {
        not_simulated("boot_from_disk")
    }
}
