//! What is plugged into a domain, and how large it is.
//!
//! Configurations are changed by editing the domain's inactive XML and defining it anew: every
//! driver can do that, and what others wrote there stays.

mod plug;
mod volume;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use virt::{domain::Domain, sys};

use super::{
    LibvirtHypervisor, ffi,
    gate::{Lane, Subject},
    scan::state,
    session::Call,
};
use crate::{
    domain_xml::{DeviceName, HardwareError, Injection, NewDevice, read_hardware, set_size},
    failpoint::failpoint,
    hypervisor::{
        BlankVolume, Devices, DomainHardware, HypervisorError, Live, Unplugged, VolumeFacts, VolumePlace,
    },
    vm::VmId,
};

#[async_trait]
impl Devices for LibvirtHypervisor {
    async fn hardware(&self, id: VmId) -> Result<DomainHardware, HypervisorError> {
        self.on_domain("look at the devices of", id, move |call| hardware(call, id)).await
    }

    async fn resize(&self, id: VmId, vcpus: u32, memory_mib: u64) -> Result<(), HypervisorError> {
        self.on_domain("resize", id, move |call| resize(call, id, vcpus, memory_mib)).await
    }

    async fn create_blank(&self, id: VmId, volume: BlankVolume) -> Result<PathBuf, HypervisorError> {
        let operation = format!("create volume {:?} in pool {:?}", volume.name, volume.pool);
        let limit = self.config.call_timeout;
        self.call(operation, Some(Subject::Domain(id)), Lane::Work, move |call| {
            volume::create(call, &volume, limit)
        })
        .await
    }

    async fn volume(&self, id: VmId, pool: &str, name: &str) -> Result<Option<VolumeFacts>, HypervisorError> {
        let operation = format!("look at volume {name:?} of pool {pool:?}");
        let (pool, name) = (pool.to_owned(), name.to_owned());
        self.call(operation, Some(Subject::Domain(id)), Lane::Work, move |call| {
            volume::facts(call, &pool, &name)
        })
        .await
    }

    async fn volume_at(&self, id: VmId, path: &Path) -> Result<Option<VolumePlace>, HypervisorError> {
        let path = path.to_owned();
        self.on_domain("find the volume of a disk of", id, move |call| volume::at(call, &path)).await
    }

    async fn grow_volume(&self, id: VmId, pool: &str, name: &str, bytes: u64) -> Result<(), HypervisorError> {
        let operation = format!("grow volume {name:?} of pool {pool:?}");
        let (pool, name) = (pool.to_owned(), name.to_owned());
        self.call(operation, Some(Subject::Domain(id)), Lane::Work, move |call| {
            volume::grow(call, &pool, &name, bytes)
        })
        .await
    }

    async fn grow_disk(&self, id: VmId, target: &str, bytes: u64) -> Result<(), HypervisorError> {
        let target = target.to_owned();
        self.on_domain("grow a disk of", id, move |call| volume::grow_live(call, id, &target, bytes)).await
    }

    async fn plug(&self, id: VmId, device: NewDevice) -> Result<Live, HypervisorError> {
        self.on_domain("plug a device into", id, move |call| plug::plug(call, id, &device)).await
    }

    async fn unplug(&self, id: VmId, device: DeviceName) -> Result<Unplugged, HypervisorError> {
        self.on_domain("unplug a device from", id, move |call| plug::unplug(call, id, &device)).await
    }

    async fn set_medium(
        &self,
        id: VmId,
        target: &str,
        medium: Option<PathBuf>,
    ) -> Result<Live, HypervisorError> {
        let target = target.to_owned();
        self.on_domain("change a medium of", id, move |call| {
            plug::change_medium(call, id, &target, medium.as_deref())
        })
        .await
    }

    async fn boot_from_disk(&self, id: VmId, media: Vec<PathBuf>) -> Result<(), HypervisorError> {
        self.on_domain("have boot from its disk", id, move |call| plug::boot_from_disk(call, id, &media))
            .await
    }
}

fn is_active(call: &Call<'_>, domain: &Domain) -> Result<bool, HypervisorError> {
    Ok(state(call.ask(|_| ffi::domain_state(domain))?).is_active())
}

fn config_xml(call: &Call<'_>, domain: &Domain) -> Result<String, HypervisorError> {
    // With its secrets: without them, defining it anew would lose a console's password.
    call.ask(|_| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE))
}

fn live_xml(call: &Call<'_>, domain: &Domain) -> Result<String, HypervisorError> {
    call.ask(|_| domain.xml_desc(0))
}

/// Defines the domain anew, if the edit changes anything.
fn edit_config(
    call: &Call<'_>,
    domain: &Domain,
    edit: impl FnOnce(&str) -> Result<Injection, HardwareError>,
) -> Result<(), HypervisorError> {
    if !call.ask(|_| domain.is_persistent())? {
        // Defining it would make it stay.
        let reason = "the domain is transient and has no configuration to change; define it with virsh";
        return Err(HypervisorError::Unfit { operation: call.operation(), reason: reason.to_owned() });
    }
    let edited = edit(&config_xml(call, domain)?).map_err(|error| match error {
        HardwareError::LaidOut(_) => {
            HypervisorError::Unfit { operation: call.operation(), reason: error.to_string() }
        }
        error => call.invalid(error),
    })?;
    if edited.changed {
        call.ask(|conn| conn.define_domain_xml(&edited.xml))?;
    }
    Ok(())
}

fn hardware(call: &Call<'_>, id: VmId) -> Result<DomainHardware, HypervisorError> {
    let domain = call.domain(id)?;
    let read = |xml: String| read_hardware(&xml).map_err(|error| call.invalid(error));
    let config = read(config_xml(call, &domain)?)?;
    let live = if is_active(call, &domain)? { Some(read(live_xml(call, &domain)?)?) } else { None };
    Ok(DomainHardware {
        saved: live.is_none() && call.ask(|_| domain.has_managed_save(0))?,
        has_snapshots: call.ask(|_| domain.num_snapshots(0))? > 0,
        config,
        live,
    })
}

fn resize(call: &Call<'_>, id: VmId, vcpus: u32, memory_mib: u64) -> Result<(), HypervisorError> {
    let domain = call.domain(id)?;
    edit_config(call, &domain, |xml| set_size(xml, vcpus, memory_mib))?;
    failpoint!("resize.configured");
    if !is_active(call, &domain)? {
        return Ok(());
    }
    let live = read_hardware(&live_xml(call, &domain)?).map_err(|error| call.invalid(error))?;
    if live.vcpus != vcpus && vcpus <= live.max_vcpus {
        let outcome = call.ask(|_| domain.set_vcpus_flags(vcpus, sys::VIR_DOMAIN_VCPU_LIVE));
        unless_refused(outcome.map(drop), "processors")?;
    }
    failpoint!("resize.processors");
    if live.memory_mib != memory_mib && memory_mib <= live.max_memory_mib {
        let kib = memory_mib.saturating_mul(1024);
        let outcome = call.ask(|_| domain.set_memory_flags(kib, sys::VIR_DOMAIN_MEM_LIVE));
        unless_refused(outcome.map(drop), "memory")?;
    }
    Ok(())
}

/// What a running domain refuses, its next start brings.
fn unless_refused(outcome: Result<(), HypervisorError>, what: &str) -> Result<(), HypervisorError> {
    match outcome {
        Err(HypervisorError::Refused { operation, source }) => {
            tracing::info!(operation, what, error = %source, "refused live; it waits for the next start");
            Ok(())
        }
        outcome => outcome,
    }
}
