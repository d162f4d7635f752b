//! Taking one step. Every step is idempotent, and rows come before things: a crash between any
//! two lines leaves nothing that the next look would not find.

use std::{path::PathBuf, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    change::{self, ChangeError},
    copy, note,
    ports::{Clock, Files, FilesError, LoopStore, SeedPlace},
    step::Step,
};
use crate::{
    domain_xml::{
        DomainInputs, DomainKind, HardwareError, Malformed, RenderError, Templates, put_note, render,
    },
    failpoint::failpoint,
    hypervisor::{BlankVolume, DomainType, Hypervisor, HypervisorError, OverlayVolume},
    store::{ChangeOutcome, StoreError, VmBundle},
    vm::{
        Base, Effect, ImageFormat, Milestone, Operation, OperationError, OperationId, OperationStatus,
        Resource, ResourceKind, ResourceState, VmId,
    },
};

/// Where things are put.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seed media.
    pub seeds_dir: PathBuf,
    /// Discs of the library.
    pub discs_dir: PathBuf,
    /// Serial console logs.
    pub console_dir: PathBuf,
    /// Agent channels' sockets.
    pub socket_dir: PathBuf,
    /// Domain templates.
    pub templates: Templates,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("rendering the domain template")]
    Render(#[from] RenderError),
    #[error("noting the VM in its domain's XML")]
    Note(#[from] Malformed),
    #[error("plugging devices into the domain's XML")]
    Plug(#[from] HardwareError),
    #[error("carrying out the change")]
    Change(#[source] ChangeError),
    #[error("volume {name:?} of pool {pool:?} is gone")]
    DiskGone { pool: String, name: String },
}

impl StepError {
    /// What everybody who may see the VM can be told of it, where that is all there is to say.
    pub(super) fn told(&self) -> Option<&str> {
        match self {
            Self::Change(ChangeError::Waiting(words)) => Some(words),
            _ => None,
        }
    }

    /// Whether it says something about the VM, rather than about who could not be asked.
    pub(super) fn is_counted(&self) -> bool {
        match self {
            Self::Store(_) | Self::Change(ChangeError::Store(_) | ChangeError::Waiting(_)) => false,
            Self::Hypervisor(error) | Self::Change(ChangeError::Hypervisor(error)) => {
                !matches!(error, HypervisorError::Unreachable { .. } | HypervisorError::Deadline { .. })
            }
            _ => true,
        }
    }
}

/// What steps are taken with.
pub(super) struct Hands {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) store: Arc<dyn LoopStore>,
    pub(super) files: Arc<dyn Files>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
}

impl Hands {
    /// Gives the operation that ended with the step, if one did.
    pub(super) async fn apply(&self, bundle: &VmBundle, step: &Step) -> Result<Option<Operation>, StepError> {
        match step {
            Step::Change(operation) => return self.change(bundle, *operation).await,
            Step::Settle(operation) => {
                let outcome = ChangeOutcome { effect: Some(Effect::Live), ..ChangeOutcome::default() };
                let now = self.clock.now();
                let ended = self.store.finish_change(bundle.record.id, *operation, &outcome, now).await?;
                failpoint!("settle.ended");
                return Ok(ended);
            }
            _ => {}
        }
        self.act(bundle, step).await.map(|()| None)
    }

    async fn act(&self, bundle: &VmBundle, step: &Step) -> Result<(), StepError> {
        let id = bundle.record.id;
        match step {
            Step::Change(_) | Step::Settle(_) => {}
            Step::RequestReboot(_) => {
                self.hypervisor.request_reboot(id).await?;
                failpoint!("reboot.requested");
            }
            Step::Thaw(_) => change::thaw(self, bundle).await.map_err(StepError::Change)?,
            Step::CreateDisk => self.create_disk(bundle).await?,
            Step::CopyDisks => copy::copy_disks(self, bundle).await?,
            Step::Lend(operation) => copy::lend(self, bundle, *operation).await?,
            Step::WriteSeed => self.write_seed(bundle).await?,
            Step::Define => self.define(bundle).await?,
            Step::ReplaceBoot => self.replace_boot(bundle).await?,
            Step::PressKey => {
                self.press_key(id).await;
                failpoint!("press-key.pressed");
            }
            Step::Start | Step::Restart => {
                self.hypervisor.start(id).await?;
                failpoint!("start.started");
            }
            Step::DiscardSaved => {
                self.hypervisor.discard_saved(id).await?;
                failpoint!("discard-saved.discarded");
            }
            Step::Suspend => {
                self.hypervisor.suspend(id).await?;
                failpoint!("suspend.suspended");
            }
            Step::Save => {
                self.hypervisor.save(id).await?;
                failpoint!("save.saved");
            }
            Step::Resume => {
                self.hypervisor.resume(id).await?;
                failpoint!("resume.resumed");
            }
            Step::RequestShutdown => {
                self.hypervisor.request_shutdown(id).await?;
                failpoint!("shutdown.requested");
            }
            Step::Destroy => {
                self.hypervisor.destroy(id).await?;
                failpoint!("destroy.destroyed");
            }
            Step::Undefine => {
                self.hypervisor.undefine(id).await?;
                failpoint!("undefine.undefined");
            }
            Step::ScrubSeed => self.scrub_seed(bundle).await?,
            Step::Note => self.note(bundle).await?,
            Step::RemoveSocket => {
                self.files.remove_socket(&self.socket_path(id)).await?;
                failpoint!("remove-socket.removed");
            }
            Step::Remove(resource) => self.remove(resource).await?,
            Step::Forget => {
                self.store.finish_delete(id, self.clock.now()).await?;
                failpoint!("forget.forgotten");
            }
        }
        Ok(())
    }

    /// Carries a change out and ends its operation: well, or with the reason why it never can be.
    async fn change(&self, bundle: &VmBundle, id: OperationId) -> Result<Option<Operation>, StepError> {
        let asked = bundle.operations.iter().find(|operation| operation.id == id);
        let Some(change) = asked.and_then(|operation| operation.change.as_ref()) else { return Ok(None) };
        let now = self.clock.now();
        match change::carry_out(self, bundle, change).await {
            Ok(outcome) => match self.finish_change(bundle.record.id, id, &outcome, now).await {
                // Another VM was asked for under the new name meanwhile.
                Err(StoreError::NameTaken) => {
                    change::take_name_back(self, bundle).await.map_err(StepError::Change)?;
                    failpoint!("take-name-back.renamed");
                    let message = "another VM has that name by now; choose another name".to_owned();
                    self.refuse(id, "NAME_TAKEN", message, now).await
                }
                ended => Ok(ended?),
            },
            Err(ChangeError::Refused { code, message }) => self.refuse(id, code, message, now).await,
            Err(error) => Err(StepError::Change(error)),
        }
    }

    /// Ends the operation of a change that never can be.
    async fn refuse(
        &self,
        id: OperationId,
        code: &str,
        message: String,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StepError> {
        let error = OperationError { code: code.to_owned(), message };
        let ended = self.store.finish_operation(id, OperationStatus::Failed, Some(error), now).await?;
        failpoint!("refuse.ended");
        Ok(ended)
    }

    async fn finish_change(
        &self,
        vm: VmId,
        id: OperationId,
        outcome: &ChangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<Option<Operation>, StoreError> {
        failpoint!("change.done");
        let ended = self.store.finish_change(vm, id, outcome, now).await?;
        failpoint!("change.ended");
        Ok(ended)
    }

    pub(super) fn socket_path(&self, id: VmId) -> PathBuf {
        self.settings.socket_dir.join(id.socket_name())
    }

    async fn create_disk(&self, bundle: &VmBundle) -> Result<(), StepError> {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        let volume = disk(id, spec.pool.as_str());
        self.store.reserve_resource(&volume).await?;
        failpoint!("create-disk.reserved");
        let (pool, name, capacity_bytes) = (volume.place.clone(), volume.name.clone(), spec.disk_bytes);
        match &spec.base {
            Base::Image(image) => {
                let (backing_path, backing_format) = (image.disk.clone(), backing_format(image.format));
                let overlay = OverlayVolume { pool, name, capacity_bytes, backing_path, backing_format };
                self.hypervisor.create_overlay(id, overlay).await?;
            }
            Base::Installation(_) => {
                self.hypervisor.create_blank(id, BlankVolume { pool, name, capacity_bytes }).await?;
            }
        }
        failpoint!("create-disk.made");
        self.store.resource_created(&volume).await?;
        failpoint!("create-disk.noted");
        self.store.pass_milestone(id, Milestone::DiskCreated, self.clock.now()).await?;
        failpoint!("create-disk.passed");
        Ok(())
    }

    async fn write_seed(&self, bundle: &VmBundle) -> Result<(), StepError> {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        if spec.installation().is_some() {
            return self.write_installer(bundle).await;
        }
        let seed = self.seed(id);
        self.store.reserve_resource(&seed).await?;
        failpoint!("write-seed.reserved");
        let place = SeedPlace { dir: &self.settings.seeds_dir, name: &seed.name };
        self.files.write_seed(id, spec, bundle.seal.as_ref(), place).await?;
        failpoint!("write-seed.made");
        self.store.resource_created(&seed).await?;
        failpoint!("write-seed.noted");
        self.store.pass_milestone(id, Milestone::SeedWritten, self.clock.now()).await?;
        failpoint!("write-seed.passed");
        Ok(())
    }

    async fn define(&self, bundle: &VmBundle) -> Result<(), StepError> {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        let volume = disk(id, spec.pool.as_str());
        let Some(disk_path) = self.hypervisor.volume_path(id, &volume.place, &volume.name).await? else {
            return Err(StepError::DiskGone { pool: volume.place, name: volume.name });
        };
        let console = self.console(id);
        self.store.reserve_resource(&console).await?;
        failpoint!("define.reserved");
        let installer = self.installer_boot(bundle).await?;
        let has_seed = bundle.record.milestones.seed_written.is_some() && spec.installation().is_none();
        let seed_path = has_seed.then(|| self.settings.seeds_dir.join(self.seed(id).name));
        let console_path = self.settings.console_dir.join(&console.name);
        self.files.begin_console(&console_path).await?;
        let inputs = DomainInputs {
            id,
            spec,
            kind: match self.hypervisor.domain_type().await? {
                DomainType::Kvm => DomainKind::Kvm,
                DomainType::Qemu => DomainKind::Qemu,
                DomainType::Test => DomainKind::Test,
            },
            disk_path: &disk_path,
            seed_path: seed_path.as_deref(),
            socket_path: &self.socket_path(id),
            console_log: Some(&console_path),
            installer: installer.as_ref(),
        };
        let xml = render(&self.settings.templates, &inputs)?;
        let xml = copy::plug(self, bundle, xml).await?;
        let made = bundle
            .resources
            .iter()
            .filter(|other| (other.kind, &other.name) != (console.kind, &console.name));
        let note = note::write(self, &bundle.record, made.chain([&console])).await?;
        let xml = put_note(&xml, id, &note)?;
        self.hypervisor.define(id, xml).await?;
        failpoint!("define.made");
        self.store.resource_created(&console).await?;
        failpoint!("define.noted");
        self.store.pass_milestone(id, Milestone::Defined, self.clock.now()).await?;
        failpoint!("define.passed");
        Ok(())
    }

    async fn scrub_seed(&self, bundle: &VmBundle) -> Result<(), StepError> {
        let (id, spec) = (bundle.record.id, &bundle.record.spec);
        if spec.installation().is_some() {
            return self.clear_installer(bundle).await;
        }
        let seed = self.seed(id);
        let place = SeedPlace { dir: &self.settings.seeds_dir, name: &seed.name };
        self.files.scrub_seed(id, spec, place).await?;
        failpoint!("scrub-seed.scrubbed");
        self.store.forget_secrets(id, self.clock.now()).await?;
        failpoint!("scrub-seed.forgotten");
        Ok(())
    }

    async fn note(&self, bundle: &VmBundle) -> Result<(), StepError> {
        // What was passed in the look that asked for this is not in the bundle it was asked with.
        let Some(bundle) = self.store.load_vm(bundle.record.id).await? else { return Ok(()) };
        let note = note::write(self, &bundle.record, &bundle.resources).await?;
        self.hypervisor.note(bundle.record.id, note).await?;
        failpoint!("note.written");
        Ok(())
    }

    async fn remove(&self, resource: &Resource) -> Result<(), StepError> {
        match resource.kind {
            ResourceKind::Volume => {
                self.hypervisor.delete_volume(resource.vm, &resource.place, &resource.name).await?;
                failpoint!("remove.volume");
            }
            ResourceKind::Seed | ResourceKind::ConsoleLog => {
                self.files.remove(resource.place.as_ref(), &resource.name).await?;
                failpoint!("remove.file");
            }
        }
        self.store.release_resource(resource).await?;
        failpoint!("remove.released");
        Ok(())
    }

    fn seed(&self, id: VmId) -> Resource {
        Resource {
            vm: id,
            kind: ResourceKind::Seed,
            place: self.settings.seeds_dir.display().to_string(),
            name: format!("vm-{id}.iso"),
            state: ResourceState::Creating,
        }
    }

    pub(super) fn console(&self, id: VmId) -> Resource {
        Resource {
            vm: id,
            kind: ResourceKind::ConsoleLog,
            place: self.settings.console_dir.display().to_string(),
            name: format!("vm-{id}.log"),
            state: ResourceState::Creating,
        }
    }
}

fn backing_format(format: ImageFormat) -> String {
    match format {
        ImageFormat::Qcow2 => "qcow2".to_owned(),
        ImageFormat::Raw => "raw".to_owned(),
    }
}

/// The volume of the disk that a VM is made with.
pub(super) fn disk(id: VmId, pool: &str) -> Resource {
    Resource {
        vm: id,
        kind: ResourceKind::Volume,
        place: pool.to_owned(),
        name: id.disk_name(),
        state: ResourceState::Creating,
    }
}
