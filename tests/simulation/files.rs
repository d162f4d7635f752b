//! The simulated host's files.

use std::path::Path;

use async_trait::async_trait;
use infinibay::{
    reconcile::{Files, FilesError, InstallSigns, SeedPlace},
    vm::{IdentityChange, InstallerBoot, ResourceKind, SealKey, SocketObservation, VmChange, VmId, VmSpec},
};

use super::{
    controller::Ports,
    host::{Domain, File},
    installers,
    watch::Seen,
    world::State,
};

fn fault(operation: &str) -> FilesError {
    FilesError { operation: operation.to_owned(), source: "a fault".into() }
}

impl Ports {
    /// Changes files, unless it fails; also where it succeeds, it may be told otherwise.
    async fn change(
        &self,
        name: &str,
        work: impl FnOnce(&mut State) -> Result<(), FilesError> + Send,
    ) -> Result<(), FilesError> {
        self.world.point(self.life, &format!("before {name}")).await;
        let takes = {
            let mut state = self.world.state();
            state.chance.millis(1, 50)
        };
        tokio::time::sleep(takes).await;
        let outcome = {
            let mut state = self.world.state();
            let rate = state.faults.files;
            if state.chance.one_in(rate) {
                state.note(format_args!("{name}: a fault"));
                Err(fault(name))
            } else {
                state.note(format_args!("{name}"));
                let done = work(&mut state);
                if state.chance.one_in(rate) { Err(fault(name)) } else { done }
            }
        };
        self.world.point(self.life, &format!("after {name}")).await;
        outcome
    }
}

#[async_trait]
impl Files for Ports {
    async fn write_seed(
        &self,
        vm: VmId,
        _spec: &VmSpec,
        _seal: Option<&SealKey>,
        place: SeedPlace<'_>,
    ) -> Result<(), FilesError> {
        let path = place.dir.join(place.name);
        self.change("write_seed", |state| {
            state.has_row(vm, ResourceKind::Seed, "the seed");
            state.host.once_had_seed.insert(vm);
            if state.chance.one_in(8) {
                // The draft was written, and could not be renamed.
                let draft = format!("{}.draft", path.display());
                state.host.files.insert(draft.into(), File::Other { vm });
                return Err(fault("write_seed"));
            }
            state.host.files.remove(Path::new(&format!("{}.draft", path.display())));
            state.host.files.insert(path, File::Seed { vm, scrubbed: false });
            Ok(())
        })
        .await
    }

    async fn scrub_seed(&self, vm: VmId, _spec: &VmSpec, place: SeedPlace<'_>) -> Result<(), FilesError> {
        let path = place.dir.join(place.name);
        self.change("scrub_seed", |state| {
            if let Some(file) = state.host.files.get_mut(&path) {
                *file = File::Seed { vm, scrubbed: true };
            }
            Ok(())
        })
        .await
    }

    async fn write_installer(
        &self,
        vm: VmId,
        spec: &VmSpec,
        _seal: Option<&SealKey>,
        dir: &Path,
    ) -> Result<InstallerBoot, FilesError> {
        let boot = installers::boot(vm, spec, dir);
        let made = installers::made(&boot);
        self.change("write_installer", |state| {
            state.has_row(vm, ResourceKind::Seed, "the installer");
            state.host.once_had_seed.insert(vm);
            let broken = state.chance.one_in(8);
            // All but the last one, and the draft of that.
            let whole = made.len() - usize::from(broken);
            for path in &made[..whole] {
                state.host.files.insert(path.clone(), File::Installer { vm });
            }
            for path in &made {
                state.host.files.remove(Path::new(&format!("{}.draft", path.display())));
            }
            if broken {
                let draft = format!("{}.draft", made[whole].display());
                state.host.files.insert(draft.into(), File::Installer { vm });
                return Err(fault("write_installer"));
            }
            Ok(())
        })
        .await
        .map(|()| boot)
    }

    async fn installer_boot(&self, vm: VmId, spec: &VmSpec, dir: &Path) -> Result<InstallerBoot, FilesError> {
        let mut state = self.world.state();
        let rate = state.faults.files;
        if state.chance.one_in(rate) {
            Err(fault("installer_boot"))
        } else {
            Ok(installers::boot(vm, spec, dir))
        }
    }

    async fn shred(&self, dir: &Path, name: &str) -> Result<(), FilesError> {
        let path = dir.join(name);
        let whose = self.world.state().database.whose(name);
        self.change("shred", |state| {
            whose.into_iter().for_each(|vm| state.judge_shredding(vm, &path));
            let draft = format!("{}.draft", path.display());
            for gone in [path.as_path(), Path::new(&draft)] {
                if let Some(File::Stranger | File::Intruder) = state.host.files.remove(gone) {
                    state.violate(format_args!("a stranger's file {} was shredded", gone.display()));
                }
            }
            Ok(())
        })
        .await
    }

    async fn install_signs(&self, console: &Path, _: Option<&Path>) -> InstallSigns {
        let mut state = self.world.state();
        let rate = state.faults.files;
        if state.chance.one_in(rate) {
            return InstallSigns::default();
        }
        let whose = state.database.whose(&console.display().to_string());
        whose.map(|vm| state.signs(vm)).unwrap_or_default()
    }

    async fn remove(&self, dir: &Path, name: &str) -> Result<(), FilesError> {
        let whose = self.world.state().database.whose(name);
        let path = dir.join(name).display().to_string();
        let gone = [path.clone(), format!("{path}.draft"), format!("{path}.0")];
        let there = gone.iter().any(|path| self.world.state().host.files.contains_key(Path::new(path)));
        // What is not there is removed from nobody.
        if let Some(vm) = whose.filter(|_| there) {
            self.world.state().judge_destruction(vm, "removal of a file", &[Seen::Absent]);
        }
        self.change("remove", |state| {
            for gone in gone {
                let gone = state.host.files.remove(Path::new(&gone));
                if matches!(gone, Some(File::Stranger | File::Intruder)) {
                    state.violate(format_args!("a stranger's file {path} was removed"));
                }
            }
            whose.into_iter().for_each(|vm| state.touch(vm));
            Ok(())
        })
        .await
    }

    async fn has_file(&self, path: &Path) -> Result<bool, FilesError> {
        let mut state = self.world.state();
        let rate = state.faults.files;
        match state.chance.one_in(rate) {
            true => Err(fault("has_file")),
            false => Ok(state.host.files.contains_key(path)),
        }
    }

    async fn inspect_socket(&self, path: &Path) -> SocketObservation {
        let mut state = self.world.state();
        let rate = state.faults.files;
        if state.chance.one_in(rate) {
            return SocketObservation::Unknown;
        }
        match state.host.files.get(path) {
            None => SocketObservation::Missing,
            Some(File::Socket { .. }) => SocketObservation::Present,
            Some(_) => SocketObservation::Untrusted("somebody else's".to_owned()),
        }
    }

    async fn remove_socket(&self, path: &Path) -> Result<(), FilesError> {
        let path = path.to_owned();
        let whose = path.file_name().and_then(|name| name.to_str()).and_then(VmId::from_socket_name);
        if let Some(vm) = whose {
            let mut state = self.world.state();
            if !state.is_asked(vm, |change| *change == VmChange::Identity(IdentityChange::Release)) {
                state.judge_destruction(vm, "removal of a socket", &[Seen::Absent]);
            }
        }
        self.change("remove_socket", |state| {
            match state.host.files.get(&path) {
                Some(File::Socket { vm }) => {
                    let listens = |domain: &Domain| domain.state.is_active() && domain.channel.is_some();
                    if state.host.domains.get(vm).is_some_and(listens) {
                        return Err(fault("somebody listens"));
                    }
                    state.host.files.remove(&path);
                }
                Some(_) => return Err(fault("not a socket of ours")),
                None => {}
            }
            whose.into_iter().for_each(|vm| state.touch(vm));
            Ok(())
        })
        .await
    }
}
