//! The host's files: seed media, console logs, left-over sockets.
//!
//! Every write is whole or not at all, every removal is idempotent, no path comes from outside:
//! names are made of VM ids, directories of the configuration.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    agents::{SocketOwners, inspect_socket},
    config::SealPolicy,
    domain_xml::mac_address,
    failpoint::failpoint,
    install::{
        AgentFiles, Recipes, SealDelivery, SeedFile, SeedInputs, build_iso, scrubbed_seed_files, seed_files,
    },
    reconcile::{
        observation::InstallSigns,
        ports::{Files, FilesError, SeedPlace},
    },
    vm::{InstallerBoot, SealKey, SocketObservation, VmId, VmSpec},
};

use super::{
    disk_looks::DiskLooks,
    hold,
    installer::{self, Kit, hidden_drafts},
};

/// How long a listener is given to show itself before its socket counts as left over.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Files of this host.
#[derive(Debug, Clone)]
pub struct HostFiles {
    pub(super) base_dir: PathBuf,
    pub(super) guest_url: Option<String>,
    pub(super) kit: Kit,
    /// Whether agents are told to obey nothing but what is sealed.
    pub(super) seal_demanded: bool,
    owners: Arc<SocketOwners>,
    disks: DiskLooks,
}

impl HostFiles {
    /// `base_dir` holds the agent that is put into guests; `guests` is where guests reach us, if
    /// they can; `owners` are the users whose sockets are trusted; `recipes` are the answers that
    /// installers are given.
    #[must_use]
    pub fn new(base_dir: PathBuf, guests: Option<SocketAddr>, owners: &str, recipes: Recipes) -> Self {
        let guest_url = guests.map(|address| format!("http://{address}/infiniservice"));
        let kit = Kit { recipes, reports: guests };
        Self {
            base_dir,
            guest_url,
            kit,
            seal_demanded: false,
            owners: Arc::new(SocketOwners::resolve(owners)),
            disks: DiskLooks::default(),
        }
    }

    /// Agents that are given a key are told what it is worth.
    #[must_use]
    pub fn sealing(self, policy: SealPolicy) -> Self {
        Self { seal_demanded: policy == SealPolicy::Require, ..self }
    }

    pub(super) fn delivery<'a>(&self, seal: Option<&'a SealKey>) -> Option<SealDelivery<'a>> {
        seal.map(|key| SealDelivery { key, demanded: self.seal_demanded })
    }

    fn inputs<'a>(&'a self, vm: VmId, spec: &'a VmSpec, mac: &'a str) -> SeedInputs<'a> {
        SeedInputs { id: vm, spec, mac, url: self.guest_url.as_deref(), seal: None }
    }
}

#[async_trait]
impl Files for HostFiles {
    async fn write_seed(
        &self,
        vm: VmId,
        spec: &VmSpec,
        seal: Option<&SealKey>,
        place: SeedPlace<'_>,
    ) -> Result<(), FilesError> {
        let (files, spec, seal) = (self.clone(), spec.clone(), seal.cloned());
        let (dir, name) = (place.dir.to_owned(), place.name.to_owned());
        blocking("writing the seed medium", move || {
            let agent = AgentFiles::read(&files.base_dir).map_err(failed("reading the agent's files"))?;
            let mac = mac_address(vm);
            let seal = files.delivery(seal.as_ref());
            let contents = seed_files(&SeedInputs { seal, ..files.inputs(vm, &spec, &mac) }, &agent)
                .map_err(failed("laying out the seed medium"))?;
            let iso = image(&contents)?;
            write_whole(&dir, &name, &iso).map_err(failed("writing the seed medium"))
        })
        .await
    }

    async fn scrub_seed(&self, vm: VmId, spec: &VmSpec, place: SeedPlace<'_>) -> Result<(), FilesError> {
        let (files, spec) = (self.clone(), spec.clone());
        let path = place.dir.join(place.name);
        blocking("scrubbing the seed medium", move || {
            let mac = mac_address(vm);
            let contents = scrubbed_seed_files(&files.inputs(vm, &spec, &mac))
                .map_err(failed("laying out the scrubbed seed medium"))?;
            let iso = image(&contents)?;
            overwrite(&path, &iso).map_err(failed("scrubbing the seed medium"))
        })
        .await
    }

    async fn write_installer(
        &self,
        vm: VmId,
        spec: &VmSpec,
        seal: Option<&SealKey>,
        dir: &Path,
    ) -> Result<InstallerBoot, FilesError> {
        let (files, spec, seal, dir) = (self.clone(), spec.clone(), seal.cloned(), dir.to_owned());
        let write = move || files.put_installer(vm, &spec, seal.as_ref(), &dir);
        blocking("writing the installer's files", write).await
    }

    async fn installer_boot(&self, vm: VmId, spec: &VmSpec, dir: &Path) -> Result<InstallerBoot, FilesError> {
        let (files, spec, dir) = (self.clone(), spec.clone(), dir.to_owned());
        blocking("laying out the installer's boot", move || files.name_installer(vm, &spec, &dir)).await
    }

    async fn shred(&self, dir: &Path, name: &str) -> Result<(), FilesError> {
        let (dir, name) = (dir.to_owned(), name.to_owned());
        blocking("removing secrets", move || {
            let failed = |error| failed(format!("overwriting and removing {name}"))(error);
            overwrite(&dir.join(&name), &[]).map_err(failed)?;
            failpoint!("clear-installer.overwritten");
            remove_with_siblings(&dir, &name).map_err(failed)
        })
        .await
    }

    async fn begin_console(&self, log: &Path) -> Result<(), FilesError> {
        let log = log.to_owned();
        blocking("making the console's log", move || {
            hold::begin_log(&log).map_err(failed("making the console's log"))
        })
        .await
    }

    async fn install_signs(&self, console: &Path, disk: Option<&Path>) -> InstallSigns {
        let console = console.to_owned();
        let shown = tokio::task::spawn_blocking(move || installer::signs(&console)).await;
        let disk_bytes = match disk {
            Some(disk) => self.disks.allocated(disk).await,
            None => None,
        };
        InstallSigns { disk_bytes, ..shown.unwrap_or_default() }
    }

    async fn remove(&self, dir: &Path, name: &str) -> Result<(), FilesError> {
        let (dir, name) = (dir.to_owned(), name.to_owned());
        blocking("removing files", move || {
            remove_with_siblings(&dir, &name).map_err(failed(format!("removing {name}")))
        })
        .await
    }

    async fn has_file(&self, path: &Path) -> Result<bool, FilesError> {
        let path = path.to_owned();
        blocking("looking for a file", move || match fs::symlink_metadata(&path) {
            Ok(found) => Ok(found.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("looking for a file")(error)),
        })
        .await
    }

    async fn inspect_socket(&self, path: &Path) -> SocketObservation {
        let (path, owners) = (path.to_owned(), self.owners.clone());
        tokio::task::spawn_blocking(move || inspect_socket(&path, &owners))
            .await
            .unwrap_or(SocketObservation::Unknown)
    }

    async fn remove_socket(&self, path: &Path) -> Result<(), FilesError> {
        let operation = || "removing the left-over socket".to_owned();
        // Our own words, which name nothing of the host, are for everybody who asks.
        let refuse = |why: &str| FilesError {
            operation: format!("the left-over socket cannot be removed: {why}"),
            source: format!("{}", path.display()).into(),
        };
        match self.inspect_socket(path).await {
            SocketObservation::Missing => return Ok(()),
            SocketObservation::Present => {}
            SocketObservation::Untrusted(what) => return Err(refuse(&what)),
            SocketObservation::Unknown => return Err(refuse("it cannot be looked at")),
        }
        match tokio::time::timeout(PROBE_LIMIT, tokio::net::UnixStream::connect(path)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(Err(error)) => return Err(FilesError { operation: operation(), source: error.into() }),
            Ok(Ok(_)) | Err(_) => return Err(refuse("somebody listens on it")),
        }
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FilesError { operation: operation(), source: error.into() })
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn failed<E: Error + Send + Sync + 'static>(
    operation: impl Into<String>,
) -> impl FnOnce(E) -> FilesError {
    move |source| FilesError { operation: operation.into(), source: Box::new(source) }
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, FilesError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(operation)(error)))
}

fn image(contents: &[SeedFile]) -> Result<Vec<u8>, FilesError> {
    build_iso(contents).map_err(failed("building the seed medium"))
}

/// Beside the place first, then renamed into it: a crash leaves the old one or the new one.
pub(super) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join(format!("{name}.draft"));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    hold::keep(&file)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// In place, over the whole length: a running QEMU holds this very file open, and a new file
/// beside it would leave the old bytes on the disk.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).custom_flags(nofollow()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytes)?;
    let zeros = [0u8; 64 * 1024];
    let mut left = length.saturating_sub(bytes.len() as u64);
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    file.sync_all()
}

pub(super) fn nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// The file, an unfinished draft of it, and what a log daemon rotated away (`name.0`, …).
fn remove_with_siblings(dir: &Path, name: &str) -> io::Result<()> {
    for draft in hidden_drafts(dir, name) {
        match fs::remove_file(draft) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error);
            }
            _ => {}
        }
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(rest) = file_name.to_str().and_then(|file| file.strip_prefix(name)) else { continue };
        let rotated =
            rest.strip_prefix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if rest.is_empty() || rest == ".draft" || rotated {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::*;

    #[test]
    fn a_seed_is_written_whole_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.iso.draft"), "left over").unwrap();
        write_whole(dir.path(), "a.iso", b"seed").unwrap();
        let path = dir.path().join("a.iso");
        assert_eq!(fs::read(&path).unwrap(), b"seed");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn scrubbing_leaves_nothing_of_the_old_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.iso");
        fs::write(&path, "secret".repeat(40_000)).unwrap();
        overwrite(&path, b"clean").unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!((bytes.len(), &bytes[..5]), (240_000, &b"clean"[..]));
        assert!(bytes[5..].iter().all(|&b| b == 0));
        overwrite(&dir.path().join("missing"), b"clean").unwrap();
    }

    #[test]
    fn removal_takes_rotated_siblings_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let left_over = ["vm.log.draft", ".vm.log.part", ".vm.log.draft.part"];
        for name in ["vm.log", "vm.log.0", "vm.log.12", "vm.log.old", "other"].iter().chain(&left_over) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_with_siblings(dir.path(), "vm.log").unwrap();
        remove_with_siblings(dir.path(), "vm.log").unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", "vm.log.old"]);
    }

    #[tokio::test]
    async fn only_a_socket_without_a_listener_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = HostFiles::new(PathBuf::from("/nowhere"), None, "", Recipes::load(None).unwrap());
        let path = dir.path().join("vm.sock");
        files.remove_socket(&path).await.unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        files.remove_socket(&path).await.unwrap_err();
        assert!(path.exists(), "a socket with a listener was removed");
        drop(listener);
        files.remove_socket(&path).await.unwrap();
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        files.remove_socket(&path).await.unwrap_err();
        assert!(path.exists(), "a file was removed");
    }
}
