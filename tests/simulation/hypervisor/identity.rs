//! What is noted of a VM in its domain.

use std::path::PathBuf;

use async_trait::async_trait;
use infinibay::{
    domain_xml::Note,
    hypervisor::{Console, DomainDescription, GivenBack, HypervisorError, Identity, Screenshot},
    vm::{NoteFacts, VmId},
};

use super::not_simulated;
use crate::simulation::controller::Ports;

#[async_trait]
impl Identity for Ports {
    async fn describe(&self, _id: VmId) -> Result<Option<DomainDescription>, HypervisorError> {
        not_simulated("describe")
    }

    async fn note(&self, id: VmId, note: Note) -> Result<(), HypervisorError> {
        self.call(id, "note", move |world| {
            world.state().domain("note", id)?.note = NoteFacts::Present(note.digest);
            Ok(())
        })
        .await
    }

    async fn adopt(&self, _id: VmId, _socket: PathBuf, _note: Note) -> Result<bool, HypervisorError> {
        not_simulated("adopt")
    }

    async fn release(&self, _id: VmId) -> Result<GivenBack, HypervisorError> {
        not_simulated("release")
    }
}

#[async_trait]
impl Console for Ports {
    async fn screenshot(&self, _id: VmId) -> Result<Screenshot, HypervisorError> {
        not_simulated("screenshot")
    }
}
