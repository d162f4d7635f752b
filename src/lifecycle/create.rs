//! A request for a VM: from what was asked to what is stored, or why it is not.

use chrono::Utc;

use super::{
    Lifecycle, LifecycleError, check_places, install,
    request::{self, AskedBase, CreateVm},
};
use crate::{
    access::{Action, Actor, Denied, authorize},
    images::ImageError,
    store::{NewVm, StoreError},
    vm::{
        Base, DomainObservation, Operation, OperationId, Plugged, PowerKeeping, VmId, VmRecord, VmSpec,
        truncate_to_micros,
    },
};

impl Lifecycle {
    /// Accepts a VM: intent, operation and audit row are stored before this returns.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn create(
        &self,
        actor: &Actor,
        request: CreateVm,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        authorize(actor, Action::CreateVm).map_err(|denied| match denied {
            Denied::NotFound => LifecycleError::Forbidden("VMs may not be made"),
            Denied::Forbidden(why) => LifecycleError::Forbidden(why),
        })?;
        let parsed = request.parse(&self.config)?;
        let id = parsed.id.unwrap_or_else(VmId::generate);
        // A request that is sent again finds what it made: it must not fail because the image, the
        // medium or the pool went away meanwhile. Whether it is the same request, the store decides.
        let known = match parsed.id {
            Some(id) => self.store.vm(id).await.map_err(LifecycleError::Store)?,
            None => None,
        };
        let stored = known.as_ref().map(|view| &view.record).filter(|record| record.owner == actor.user);
        let (base, disk_bytes) = self.base(actor, parsed.base, parsed.disk_bytes, stored).await?;
        let os_family = match &base {
            Base::Image(image) => image.os_family,
            Base::Installation(installation) => installation.family.os_family(),
        };
        let unattended = request::unattended(request.unattended, os_family).await?;
        if let Base::Image(image) = &base {
            request::check_provisioning(image, &unattended)?;
        }
        let spec = VmSpec {
            disk_bytes,
            base,
            firmware: parsed.firmware,
            tpm: parsed.tpm,
            name: parsed.name,
            vcpus: parsed.vcpus,
            memory_mib: parsed.memory_mib,
            pool: parsed.pool,
            network: parsed.network,
            unattended,
            keeping: PowerKeeping::default(),
            devices: Plugged::default(),
            origin: crate::vm::Origin::Created,
        };
        spec.check().map_err(request::spec_error)?;
        install::check_machine(&spec)?;
        if known.is_none() {
            self.check_answers(id, &spec).await?;
            self.check_host(parsed.id, &spec).await?;
        }
        let new = NewVm { id, host: self.host, owner: actor.user, spec };
        let created =
            self.store.create_vm(&new, OperationId::generate(), truncate_to_micros(Utc::now())).await;
        let accepted = created.map_err(|error| match error {
            StoreError::NameTaken => LifecycleError::NameTaken(new.spec.name.to_string()),
            StoreError::IdTaken => LifecycleError::IdTaken,
            StoreError::ImageGone => ImageError::NotFound(new.spec.base_name().to_string()).into(),
            StoreError::MediumGone(medium) => LifecycleError::NoMedium(medium.to_string()),
            other => LifecycleError::Store(other),
        })?;
        self.waker.wake(id);
        Ok(accepted)
    }

    /// What the disk is made of, and its size: as it was stored, where it was.
    async fn base(
        &self,
        actor: &Actor,
        asked: AskedBase,
        disk_bytes: Option<u64>,
        stored: Option<&VmRecord>,
    ) -> Result<(Base, u64), LifecycleError> {
        match asked {
            AskedBase::Image(name) => {
                let image = match stored.and_then(|record| record.spec.image()) {
                    Some(image) if image.name == name => image.clone(),
                    _ => self.images.get(&name).await?,
                };
                let disk_bytes = disk_bytes.unwrap_or(image.virtual_bytes);
                Ok((Base::Image(image), disk_bytes))
            }
            AskedBase::Install { asked, disk_bytes } => {
                let installation = match stored.and_then(|record| record.spec.installation()) {
                    Some(installation) if installation.disc.medium == asked.medium => installation.clone(),
                    _ => self.installation(actor, asked).await?,
                };
                Ok((Base::Installation(Box::new(installation)), disk_bytes))
            }
        }
    }

    /// What the host has to say: are name and id free among domains that others made, are pool,
    /// network, firmware and TPM there? The store has the last word on names; the loop finds out what changes
    /// later. `given` is the client's own choice of an id.
    pub(super) async fn check_host(&self, given: Option<VmId>, spec: &VmSpec) -> Result<(), LifecycleError> {
        let with_id = async {
            match given {
                Some(id) => self.hypervisor.observe(id).await.map(|found| found != DomainObservation::Absent),
                None => Ok(false),
            }
        };
        let (named, taken, host) =
            tokio::join!(self.hypervisor.domain_named(spec.name.as_str()), with_id, self.hypervisor.host());
        // A VM is the domain with its id: one with the id of a stranger's domain would be that
        // domain, to be started, stopped and deleted.
        let taken = taken.map_err(LifecycleError::Hypervisor)?.then_some(LifecycleError::IdTaken);
        let named = named.map_err(LifecycleError::Hypervisor)?;
        let named = named.map(|_| LifecycleError::NameTaken(spec.name.to_string()));
        if let Some(conflict) = taken.or(named) {
            // Unless the same request has made it meanwhile.
            return match given {
                Some(id) if self.store.vm(id).await.map_err(LifecycleError::Store)?.is_some() => Ok(()),
                _ => Err(conflict),
            };
        }
        let host = host.map_err(LifecycleError::Hypervisor)?;
        check_places(&host, spec)?;
        host.machine.lacks(spec.firmware, spec.tpm).map_or(Ok(()), |lacking| Err(lacking.into()))
    }
}
