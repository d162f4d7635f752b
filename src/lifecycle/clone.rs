//! Requests for a full copy of a VM that is off.
//!
//! A copy is a VM of its own: other name, UUID and hardware addresses, volumes that share nothing with
//! those they are copied from. What the copied VM is otherwise made of, it is made of too; what belongs
//! to that VM's past is left behind: secrets and packages of its first boot, its snapshots, the media in
//! its drives, and that the host starts it at its own boot.

use chrono::Utc;
use uuid::Uuid;

use super::{Lifecycle, LifecycleError, change::takes, changed, request};
use crate::{
    access::{Action, Actor, Denied, Target, authorize},
    domain_xml::{DiskKind, extra_mac_address, mac_address},
    images::ImageError,
    install,
    store::{NewClone, StoreError, VmView},
    vm::{
        Base, DesiredPower, DiskTarget, Installation, LendChange, NetworkAttachment, NicSource, Operation,
        Origin, Plugged, PluggedDisk, PluggedInterface, PowerKeeping, Provisioning, Unattended, VmChange,
        VmId, VmName, VmRecord, VmSpec, WrongState, truncate_to_micros,
    },
};

/// A request for a copy, as a client wrote it: nothing checked yet.
#[derive(Debug, Clone, Default)]
pub struct CloneVm {
    /// Makes a retry safe.
    pub id: Option<Uuid>,
    /// See [`VmName`].
    pub name: String,
    /// As [`super::CreateVm::network`]; the copied VM's when absent.
    pub network: Option<String>,
    /// The guest's host name; made of the name when absent. Only for guests whose first boot reads
    /// settings.
    pub hostname: Option<String>,
    /// Whether the copy is started once it is made.
    pub start: bool,
}

/// What could be checked without asking anybody.
struct Wanted {
    id: VmId,
    is_given: bool,
    name: VmName,
    network: Option<NetworkAttachment>,
    hostname: Option<String>,
}

impl Wanted {
    /// What the copy is made of.
    fn spec(&self, source: &VmRecord) -> VmSpec {
        let spec = &source.spec;
        let unattended = match reads_settings(spec) {
            true => Unattended { hostname: self.hostname.clone(), ..spec.unattended.without_secrets() },
            false => Unattended::default(),
        };
        VmSpec {
            name: self.name.clone(),
            base: base(&spec.base),
            network: self.network.clone().unwrap_or_else(|| spec.network.clone()),
            unattended,
            origin: Origin::Cloned { from: source.id },
            devices: devices(self.id, &spec.devices),
            keeping: PowerKeeping { autostart: false, ..spec.keeping },
            ..spec.clone()
        }
    }
}

/// Whether a copy's first boot reads settings. What an installer once asked for it does not ask again.
fn reads_settings(spec: &VmSpec) -> bool {
    spec.image().is_some_and(|image| image.provisioning == Provisioning::CloudInit)
}

/// The same system. The installer that put it there has nothing to report of the copy.
fn base(of: &Base) -> Base {
    match of {
        Base::Image(_) => of.clone(),
        Base::Installation(installation) => {
            Base::Installation(Box::new(Installation { token: None, ..(**installation).clone() }))
        }
    }
}

/// The same disks and cards at the same places, under names and addresses of their own.
fn devices(id: VmId, of: &Plugged) -> Plugged {
    let disks = of.disks.iter().map(|disk| PluggedDisk { volume: id.extra_disk_name(), ..disk.clone() });
    let macs = (1..).map(|number| extra_mac_address(id, number)).filter(|mac| *mac != mac_address(id));
    let cards = of.interfaces.iter().zip(macs);
    let interfaces = cards.map(|(card, mac)| PluggedInterface { mac, source: card.source.clone() });
    Plugged { disks: disks.collect(), media: Vec::new(), interfaces: interfaces.collect() }
}

impl Lifecycle {
    /// Accepts a copy of a VM that is off: its intent, its operation, the loan of the VM that is copied
    /// and audit rows are stored before this returns.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn clone_vm(
        &self,
        actor: &Actor,
        from: VmId,
        request: CloneVm,
    ) -> Result<(VmRecord, Operation), LifecycleError> {
        authorize(actor, Action::CreateVm).map_err(|denied| match denied {
            Denied::NotFound => LifecycleError::Forbidden("VMs may not be made"),
            Denied::Forbidden(why) => LifecycleError::Forbidden(why),
        })?;
        let wanted = self.wanted(&request)?;
        // A request that is sent again finds what it made, whatever became of the copied VM since.
        let known = self.store.vm(wanted.id).await.map_err(LifecycleError::Store)?;
        let is_retry = known.is_some_and(|view| {
            view.record.owner == actor.user && view.record.spec.cloned_from() == Some(from)
        });
        if !is_retry {
            self.check_source(actor, from, &wanted).await?;
        }
        let new = NewClone {
            id: wanted.id,
            host: self.host,
            owner: actor.user,
            from,
            name: wanted.name.clone(),
            network: wanted.network.clone(),
            power: if request.start { DesiredPower::Running } else { DesiredPower::Stopped },
        };
        let now = truncate_to_micros(Utc::now());
        let stored = self.store.clone_vm(&new, |source| wanted.spec(source), now).await;
        let accepted = stored.map_err(|error| match error {
            StoreError::NameTaken => LifecycleError::NameTaken(new.name.to_string()),
            StoreError::IdTaken => LifecycleError::IdTaken,
            StoreError::Adopted => LifecycleError::AdoptedSource(from),
            StoreError::ImageGone => ImageError::NotFound("of the VM".to_owned()).into(),
            other => changed(other, from),
        })?;
        self.waker.wake(from);
        self.waker.wake(new.id);
        Ok(accepted)
    }

    fn wanted(&self, request: &CloneVm) -> Result<Wanted, LifecycleError> {
        let given = request::given_id(request.id)?;
        let network = request.network.as_deref().map(|text| request::network(&self.config, text));
        let hostname = Unattended { hostname: request.hostname.clone(), ..Unattended::default() };
        install::check(&hostname).map_err(|wrong| request::invalid("hostname", wrong.reason))?;
        Ok(Wanted {
            id: given.unwrap_or_else(VmId::generate),
            is_given: given.is_some(),
            name: request::name("name", &request.name)?,
            network: network.transpose()?,
            hostname: request.hostname.clone(),
        })
    }

    /// Whether the VM can be copied as it is, as far as that can be told now. What changes later, the
    /// store and the loop find out.
    async fn check_source(&self, actor: &Actor, from: VmId, wanted: &Wanted) -> Result<(), LifecycleError> {
        let found = self.store.vm(from).await.map_err(LifecycleError::Store)?;
        let owner = found.as_ref().map(|view| view.record.owner);
        authorize(actor, Action::ControlVm(Target { vm: from, owner }))
            .map_err(|denied| LifecycleError::denied(denied, from))?;
        let VmView { record, status, .. } = found.ok_or(LifecycleError::NotFound(from))?;
        if record.spec.is_adopted() {
            return Err(LifecycleError::AdoptedSource(from));
        }
        if wanted.hostname.is_some() && !reads_settings(&record.spec) {
            let why = "the guest has no first boot that reads settings; leave it out";
            return Err(request::invalid("hostname", why));
        }
        let mut cards = record.spec.devices.interfaces.iter();
        if authorize(actor, Action::UseBridge).is_err()
            && cards.any(|card| matches!(card.source, NicSource::Bridge(_)))
        {
            let why = "the VM has a network card on a bridge of the host, which is for admins to choose";
            return Err(LifecycleError::Forbidden(why));
        }
        let loan = VmChange::Lend(LendChange { to: wanted.id, still: false });
        takes(&loan, &record, status.as_ref())?;
        self.check_host(wanted.is_given.then_some(wanted.id), &wanted.spec(&record)).await?;
        self.check_disks(&record).await
    }

    /// A copy of other disks than the domain has would be no copy.
    async fn check_disks(&self, source: &VmRecord) -> Result<(), LifecycleError> {
        let (id, spec) = (source.id, &source.spec);
        let hardware = self.hypervisor.hardware(id).await.map_err(LifecycleError::Hypervisor)?;
        let wrong = |target: &str| {
            LifecycleError::WrongState(WrongState(format!(
                "disk {target} of its domain is not the volume that was made for it: somebody changed the domain, or \
                 a snapshot beside the disks stands between"
            )))
        };
        let root = (DiskTarget::root(), spec.pool.as_str(), id.disk_name());
        let plugged = spec
            .devices
            .disks
            .iter()
            .map(|disk| (disk.target.clone(), disk.pool.as_str(), disk.volume.clone()));
        let ours: Vec<_> = std::iter::once(root).chain(plugged).collect();
        let mut there = hardware.config.disks.iter().filter(|disk| disk.kind != DiskKind::Drive);
        if let Some(strange) =
            there.find(|disk| ours.iter().all(|(target, ..)| target.as_str() != disk.target))
        {
            return Err(wrong(&strange.target));
        }
        for (target, pool, volume) in ours {
            let path = self.hypervisor.volume_path(id, pool, &volume).await;
            let path = path.map_err(LifecycleError::Hypervisor)?;
            let disk = hardware.config.disk(target.as_str());
            if path.is_none() || disk.is_none_or(|disk| disk.source != path) {
                return Err(wrong(target.as_str()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Disc, FirstBootSecret, InstallFamily};

    #[test]
    fn a_copy_of_an_installed_vm_reports_nothing() {
        let installation = Installation {
            disc: Disc { medium: "debian".parse().unwrap(), path: "/media/debian.iso".into() },
            family: InstallFamily::Debian,
            label: Some("Debian 13".to_owned()),
            kernel: None,
            drivers: None,
            mirror: None,
            edition: None,
            medium_language: None,
            agent: true,
            token: Some(FirstBootSecret::new("token".to_owned())),
        };
        let expected = Installation { token: None, ..installation.clone() };
        assert_eq!(base(&Base::Installation(Box::new(installation))), Base::Installation(Box::new(expected)));
    }

    #[test]
    fn a_copys_devices_are_its_own() {
        let (source, id) = (VmId::generate(), VmId::generate());
        let of = Plugged {
            disks: ["vdb", "vdd"]
                .map(|target| PluggedDisk {
                    target: target.parse().unwrap(),
                    pool: "p".parse().unwrap(),
                    volume: source.extra_disk_name(),
                    bytes: 7,
                })
                .to_vec(),
            media: Vec::new(),
            interfaces: vec![
                PluggedInterface {
                    mac: extra_mac_address(source, 1),
                    source: NicSource::Network("n".parse().unwrap()),
                };
                2
            ],
        };
        let copy = devices(id, &of);
        let names: std::collections::BTreeSet<_> = copy.disks.iter().map(|disk| &disk.volume).collect();
        assert_eq!(names.len(), 2);
        for (disk, original) in copy.disks.iter().zip(&of.disks) {
            assert!(disk.volume.starts_with(&format!("infinibay-{id}-")), "{}", disk.volume);
            assert_eq!((&disk.target, disk.bytes), (&original.target, 7));
        }
        let macs: std::collections::BTreeSet<_> = copy.interfaces.iter().map(|card| &card.mac).collect();
        assert_eq!(macs.len(), 2);
        assert!(!macs.contains(&of.interfaces[0].mac));
    }
}
