//! The simulated hypervisor, as the gate before libvirt shows it: each call at work in libvirtd for a
//! while, one at a time on a domain, waited for until a deadline, and not over when that is past.

mod calls;
mod copies;
mod devices;
mod guest;
mod identity;
mod looks;
mod snapshots;
mod storage;

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use infinibay::{
    domain_xml::{read_facts, read_hardware},
    hypervisor::{
        DomainType, HostFacts, HostObservation, Hypervisor, HypervisorError, HypervisorEvent, Lease,
        OverlayVolume,
    },
    store::VmBundle,
    vm::{DomainObservation, DomainState, ResourceKind, VmId},
};
use tokio::sync::broadcast;

use super::{
    controller::Ports,
    guests,
    host::{Domain, File, Volume},
    installers,
    watch::Seen,
    world::State,
};

/// How long a call is waited for.
pub const LIMIT: Duration = Duration::from_secs(30);

/// libvirt's words for why a domain is off: it was destroyed.
const DESTROYED: i32 = 2;

pub fn invalid(operation: &str, reason: &str) -> HypervisorError {
    HypervisorError::Invalid { operation: operation.to_owned(), reason: reason.to_owned() }
}

pub fn unreachable(operation: &str) -> HypervisorError {
    HypervisorError::Unreachable { operation: operation.to_owned(), source: None }
}

/// What the loop never asks for: it serves who looks at a VM.
fn not_simulated<T>(operation: &str) -> Result<T, HypervisorError> {
    Err(invalid(operation, "this is not simulated"))
}

fn not_found(operation: &str) -> HypervisorError {
    HypervisorError::NotFound { operation: operation.to_owned() }
}

impl State {
    pub fn domain(&mut self, operation: &str, vm: VmId) -> Result<&mut Domain, HypervisorError> {
        if self.host.strangers.contains_key(&vm) {
            self.violate(format_args!("{operation} of a stranger's domain"));
        }
        self.host.domains.get_mut(&vm).ok_or_else(|| not_found(operation))
    }
}

#[async_trait]
impl Hypervisor for Ports {
    async fn observe_all(&self) -> Result<HostObservation, HypervisorError> {
        self.look_at_all().await
    }

    async fn observe(&self, id: VmId) -> Result<DomainObservation, HypervisorError> {
        self.look_at(id).await
    }

    fn is_reachable(&self) -> bool {
        self.world.state().host.reachable
    }

    fn is_busy(&self, id: VmId) -> bool {
        self.world.state().host.is_busy(self.life, id)
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.world.events.subscribe()
    }

    async fn domain_type(&self) -> Result<DomainType, HypervisorError> {
        if self.world.state().host.reachable { Ok(DomainType::Kvm) } else { Err(unreachable("domain type")) }
    }

    async fn define(&self, id: VmId, xml: String) -> Result<(), HypervisorError> {
        self.call(id, "define", move |world| {
            let mut state = world.state();
            let facts = read_facts(&xml).map_err(|error| invalid("define", &error.to_string()))?;
            if facts.id != id {
                let label = state.label(id);
                state.violate(format_args!("the XML defined for {label} is another's"));
            }
            let known =
                state.host.volumes.get(&(super::host::POOL.to_owned(), format!("infinibay-{id}.qcow2")));
            if !known.is_some_and(|volume| volume.whole) && !state.watch.robbed.contains(&id) {
                state.violate(format_args!("a domain was defined without a whole disk"));
            }
            let noted = |bundle: &VmBundle| bundle.record.milestones.defined.is_some();
            let noted = state.database.vms.get(&id).is_some_and(noted);
            if noted && !state.host.domains.contains_key(&id) {
                state.violate(format_args!("a domain that somebody took away was silently made again"));
            }
            state.host.once_defined.insert(id);
            state.judge_disks(id, &xml);
            let channel = facts.channel.map(|channel| channel.path);
            let note = facts.about.note;
            let hardware = read_hardware(&xml).map_err(|error| invalid("define", &error.to_string()))?;
            let fresh = Domain::new(&mut state.chance);
            let domain = state.host.domains.entry(id).or_insert(fresh);
            domain.config = hardware;
            domain.boots = installers::boot_of(&xml);
            domain.name = facts.name;
            domain.channel = channel;
            domain.persistent = true;
            domain.note = note;
            Ok(())
        })
        .await
    }

    async fn start(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(id, "start", move |world| {
            let mut state = world.state();
            let has_disk = state.host.root(id).is_some_and(|volume| volume.whole);
            let domain = state.domain("start", id)?;
            if domain.state.is_active() {
                return Ok(());
            }
            let is_foreign = domain.is_foreign;
            if !has_disk && !is_foreign {
                return Err(invalid("start", "the disk is gone"));
            }
            if let Some(file) = state.host.lacks_file(id) {
                return Err(invalid("start", &format!("{} is gone", file.display())));
            }
            state.judge_install(id);
            if !state.judge_loan(id) {
                return Err(invalid("start", "the disk is being read"));
            }
            state.host.power_on(id);
            if !is_foreign {
                state.has_row(id, ResourceKind::ConsoleLog, "the console's log");
                state.host.files.insert(format!("/console/vm-{id}.log").into(), File::Other { vm: id });
                if state.chance.one_in(4) {
                    let rotated = format!("/console/vm-{id}.log.0");
                    state.host.files.insert(rotated.into(), File::Other { vm: id });
                }
            }
            drop(state);
            guests::boot(world, id);
            Ok(())
        })
        .await
    }

    async fn request_shutdown(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(id, "request_shutdown", move |world| {
            let state = world.state();
            if state.host.domains.contains_key(&id) {
                drop(state);
                guests::press_power_button(world, id);
            }
            Ok(())
        })
        .await
    }

    async fn resume(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(id, "resume", move |world| {
            let mut state = world.state();
            let domain = state.domain("resume", id)?;
            if !domain.state.is_active() {
                return Err(invalid("resume", "the domain is not running"));
            }
            domain.state = DomainState::Running;
            domain.reason = 0;
            drop(state);
            guests::go_on(world, id);
            Ok(())
        })
        .await
    }

    async fn destroy(&self, id: VmId) -> Result<(), HypervisorError> {
        if self.world.state().host.is_busy(self.life, id) {
            return self.destroy_beside(id).await;
        }
        self.world.state().judge_destruction(id, "destroy", &[Seen::Active, Seen::Crashed]);
        self.world.state().judge_grace(id);
        self.call(id, "destroy", move |world| {
            let mut state = world.state();
            let clean = state.chance.one_in(2);
            match state.domain("destroy", id) {
                Ok(domain) if domain.state != DomainState::Shutoff => {
                    state.host.power_off(id, DESTROYED, clean);
                }
                Ok(_) | Err(_) => {}
            }
            Ok(())
        })
        .await
    }

    async fn undefine(&self, id: VmId) -> Result<(), HypervisorError> {
        self.world.state().judge_destruction(id, "undefine", &[Seen::Off]);
        self.call(id, "undefine", move |world| {
            let mut state = world.state();
            match state.domain("undefine", id) {
                Ok(domain) if domain.state.is_active() => domain.persistent = false,
                Ok(_) => {
                    state.host.domains.remove(&id);
                }
                Err(_) => {}
            }
            Ok(())
        })
        .await
    }

    async fn create_overlay(&self, id: VmId, volume: OverlayVolume) -> Result<PathBuf, HypervisorError> {
        let path = PathBuf::from("/pool").join(&volume.name);
        self.call(id, "create_overlay", move |world| {
            let mut state = world.state();
            state.has_row(id, ResourceKind::Volume, &volume.name);
            state.host.once_had_volume.insert(id);
            let key = (volume.pool, volume.name);
            if state.host.volumes.get(&key).is_some_and(|old| old.vm.is_none()) {
                state.violate(format_args!("a stranger's volume was made anew"));
            }
            let bytes = volume.capacity_bytes;
            let whole = Volume {
                vm: Some(id),
                whole: true,
                installed: false,
                has_system: true,
                spoiled: false,
                bytes,
            };
            let old = state.host.volumes.entry(key).or_insert_with(|| whole.clone());
            if !old.whole {
                *old = whole;
            }
            Ok(())
        })
        .await
        .map(|()| path)
    }

    async fn volume_path(
        &self,
        id: VmId,
        pool: &str,
        name: &str,
    ) -> Result<Option<PathBuf>, HypervisorError> {
        let key = (pool.to_owned(), name.to_owned());
        self.read(id, "volume_path", move |state| state.host.volumes.contains_key(&key))
            .await
            .map(|there| there.then(|| PathBuf::from("/pool").join(name)))
    }

    async fn delete_volume(&self, id: VmId, pool: &str, name: &str) -> Result<(), HypervisorError> {
        self.world.state().judge_removal(id, pool, name);
        let key = (pool.to_owned(), name.to_owned());
        self.call(id, "delete_volume", move |world| {
            let mut state = world.state();
            if state.host.is_copied(&key.0, &key.1) {
                return Err(invalid("delete_volume", "the volume is in use"));
            }
            if let Some(gone) = state.host.volumes.remove(&key)
                && gone.vm != Some(id)
            {
                state.violate(format_args!("volume {}/{} is not the VM's and was removed", key.0, key.1));
            }
            Ok(())
        })
        .await
    }

    async fn host(&self) -> Result<HostFacts, HypervisorError> {
        Ok(HostFacts::default())
    }

    async fn leases(&self, _network: &str) -> Result<Vec<Lease>, HypervisorError> {
        Ok(Vec::new())
    }

    async fn domain_named(&self, name: &str) -> Result<Option<VmId>, HypervisorError> {
        let state = self.world.state();
        if !state.host.reachable {
            return Err(unreachable("domain named"));
        }
        let mut domains = state.host.domains.iter();
        Ok(domains.find(|(_, domain)| domain.name == name).map(|(vm, _)| *vm))
    }
}
