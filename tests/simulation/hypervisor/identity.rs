//! Whose a domain is, and what is noted of a VM in it.

use std::path::PathBuf;

use async_trait::async_trait;
use infinibay::{
    domain_xml::Note,
    hypervisor::{Console, DomainDescription, GivenBack, HypervisorError, Identity, Screenshot},
    vm::{IdentityChange, NoteFacts, VmChange, VmId},
};

use super::{invalid, not_simulated};
use crate::simulation::{
    controller::Ports,
    guests,
    host::{File, socket_path},
};

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

    async fn adopt(&self, id: VmId, socket: PathBuf, note: Note) -> Result<bool, HypervisorError> {
        let asked = |change: &VmChange| *change == VmChange::Identity(IdentityChange::Adopt);
        self.world.state().judge_asked(id, "adopt", asked);
        self.call(id, "adopt", move |world| {
            let mut state = world.state();
            let domain = state.domain("adopt", id)?;
            if !domain.persistent {
                return Err(invalid("adopt", "a transient domain"));
            }
            domain.note = NoteFacts::Present(note.digest);
            domain.channel_goes = false;
            domain.channel = Some(socket);
            let active = domain.state.is_active();
            if active {
                state.host.files.insert(socket_path(id), File::Socket { vm: id });
                drop(state);
                guests::go_on(world, id);
            }
            Ok(true)
        })
        .await
    }

    async fn release(&self, id: VmId) -> Result<GivenBack, HypervisorError> {
        let asked = |change: &VmChange| *change == VmChange::Identity(IdentityChange::Release);
        self.world.state().judge_asked(id, "release", asked);
        self.call(id, "release", move |world| {
            let mut state = world.state();
            let stuck = state.chance.one_in(3);
            let Ok(domain) = state.domain("release", id) else { return Ok(GivenBack::Done) };
            domain.note = NoteFacts::Absent;
            if domain.channel.is_some() && domain.state.is_active() && stuck {
                domain.channel_goes = true;
                return Ok(GivenBack::AtNextStart);
            }
            domain.channel = None;
            Ok(GivenBack::Done)
        })
        .await
    }
}

#[async_trait]
impl Console for Ports {
    async fn screenshot(&self, _id: VmId) -> Result<Screenshot, HypervisorError> {
        not_simulated("screenshot")
    }
}
