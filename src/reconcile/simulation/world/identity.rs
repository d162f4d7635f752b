//! What is noted in domains, simulated.

use std::path::PathBuf;

use async_trait::async_trait;

use super::World;
use crate::{
    domain_xml::Note,
    hypervisor::{DomainDescription, GivenBack, HypervisorError, Identity},
    vm::{NoteFacts, VmId},
};

#[async_trait]
impl Identity for World {
    async fn describe(&self, _id: VmId) -> Result<Option<DomainDescription>, HypervisorError> {
        let state = self.state();
        let facts = state.domain.map(|domain| super::facts(domain, &state));
        Ok(facts.map(|facts| DomainDescription { facts, note: None }))
    }

    async fn note(&self, _id: VmId, note: Note) -> Result<(), HypervisorError> {
        self.on_host("note", |state| {
            assert!(state.domain.is_some(), "an absent domain was noted in");
            state.notes += 1;
            state.note = NoteFacts::Present(note.digest);
        })
        .await
    }

    async fn adopt(&self, _id: VmId, _socket: PathBuf, note: Note) -> Result<bool, HypervisorError> {
        self.on_host("adopt", |state| state.note = NoteFacts::Present(note.digest)).await.map(|()| true)
    }

    async fn release(&self, _id: VmId) -> Result<GivenBack, HypervisorError> {
        self.on_host("release", |state| state.note = NoteFacts::Absent).await.map(|()| GivenBack::Done)
    }
}
