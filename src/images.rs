//! The image library: a directory with one folder per image, each with a `manifest.toml`.
//!
//! A VM's disk is built on an image's, and QEMU believes what an image says. So images are looked
//! at on every use: declared formats only, no file that names other files, and a checksum that
//! must be right.

mod clusters;
mod digest;
mod folder;
mod incoming;
mod manifest;
mod memory;
mod qcow2;

pub use incoming::{DiskRefusal, INCOMING_DISK, MANIFEST, check_disk, incoming_manifest};

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::vm::{Image, OsFamily, ResourceName, chain};
use digest::Digests;
use folder::{Candidate, FolderError};

/// Most folders looked at.
const MAX_IMAGES: usize = 1000;
/// How long a lookup waits for a disk's checksum.
const PATIENCE: Duration = Duration::from_secs(3);

/// The library. Clones share it.
#[derive(Debug, Clone)]
pub struct Images {
    dir: Arc<Path>,
    digests: Digests,
    families: Arc<[OsFamily]>,
    patience: Duration,
}

/// An image that is there but cannot be used.
#[derive(Debug, Clone)]
pub struct BrokenImage {
    /// Its folder's name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No such image. Code `IMAGE_NOT_FOUND`.
    #[error("there is no image {0:?}")]
    NotFound(String),
    /// It is there, and not fit for use. Code `IMAGE_UNUSABLE`.
    #[error("image {name:?} cannot be used: {reason}")]
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Its disk is still being read: the first time, or since it changed. That goes on by itself.
    /// Code `IMAGE_BEING_CHECKED`.
    #[error("image {0:?} is being checked for the first time; try again")]
    BeingChecked(String),
    /// The library could not be read.
    #[error("the image library {path} cannot be read")]
    Library {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Images {
    /// The library in `dir`, which may be missing: an empty library.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir: dir.into(),
            digests: Digests::new(),
            families: Arc::new(OsFamily::ALL),
            patience: PATIENCE,
        }
    }

    /// The same, with checksums remembered in `file` over restarts. A file that cannot be read is
    /// one that remembers nothing.
    pub async fn remembering(self, file: PathBuf) -> Self {
        match tokio::task::spawn_blocking(move || Digests::remembered(file)).await {
            Ok(digests) => Self { digests, ..self },
            Err(error) => {
                tracing::warn!(%error, "checksums of images are not remembered");
                self
            }
        }
    }

    /// The same, where VMs can only be built of the families that `buildable` names: images of
    /// others are not fit for use.
    #[must_use]
    pub fn only(self, buildable: impl Fn(OsFamily) -> bool) -> Self {
        let families = OsFamily::ALL.into_iter().filter(|family| buildable(*family)).collect();
        Self { families, ..self }
    }

    /// The same, with lookups that wait this long for a disk's checksum; three seconds unless told
    /// otherwise.
    #[must_use]
    pub fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Reads the disks that are not known yet, one after another, and logs which images cannot be
    /// used, so that nobody has to wait for it later.
    pub async fn check_all(&self) {
        let names = match self.names().await {
            Ok((names, _)) => names,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the images could not be checked");
                return;
            }
        };
        for name in names {
            match self.look(&name, None).await {
                // Removed since the folder was listed.
                Ok(_) | Err(ImageError::NotFound(_)) => {}
                Err(error) => tracing::warn!(error = chain(&error), "an image was checked"),
            }
        }
    }

    async fn names(&self) -> Result<(Vec<ResourceName>, Vec<BrokenImage>), ImageError> {
        let dir = self.dir.clone();
        let found = tokio::task::spawn_blocking(move || folder_names(&dir)).await;
        let (names, broken) =
            found.map_err(io::Error::other).and_then(|names| names).map_err(|e| self.unreadable(e))?;
        // Also of images that are not fit for use: what their disks hash to is known, too.
        let folders: HashSet<_> = names.iter().map(|name| self.dir.join(name.as_str())).collect();
        self.digests.retain(|disk| disk.parent().is_some_and(|folder| folders.contains(folder)));
        Ok((names, broken))
    }

    /// All images fit for use, by name, and those that are not, among them those that are still
    /// being checked: see [`Images::get`].
    ///
    /// # Errors
    /// [`ImageError::Library`].
    pub async fn list(&self) -> Result<(Vec<Image>, Vec<BrokenImage>), ImageError> {
        let (names, mut broken) = self.names().await?;
        // All at once: how many disks are read in parallel is decided where they are read.
        let lookups: Vec<_> = names
            .into_iter()
            .map(|name| {
                let this = self.clone();
                tokio::spawn(async move { (this.get(&name).await, name) })
            })
            .collect();
        let mut images = Vec::new();
        for lookup in lookups {
            match lookup.await.map_err(|e| self.unreadable(io::Error::other(e)))? {
                (Ok(image), _) => images.push(image),
                // Removed since the folder was listed.
                (Err(ImageError::NotFound(_)), _) => {}
                (Err(ImageError::Unusable { name, reason }), _) => broken.push(BrokenImage { name, reason }),
                (Err(error @ ImageError::BeingChecked(_)), name) => {
                    broken.push(BrokenImage { name: name.to_string(), reason: error.to_string() });
                }
                (Err(ImageError::Library { path, source }), name) => broken.push(BrokenImage {
                    name: name.to_string(),
                    reason: format!("{} cannot be read: {source}", path.display()),
                }),
            }
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        broken.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((images, broken))
    }

    /// One image, checked: manifest, format, no backing or external data file, checksum. That is
    /// computed once per change of the file and takes as long as it takes to read a whole disk:
    /// whoever asks meanwhile is sent away after a little while.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn get(&self, name: &ResourceName) -> Result<Image, ImageError> {
        self.look(name, Some(self.patience)).await
    }

    async fn look(&self, name: &ResourceName, patience: Option<Duration>) -> Result<Image, ImageError> {
        let (dir, wanted) = (self.dir.clone(), name.clone());
        let opened = tokio::task::spawn_blocking(move || folder::open(&dir, &wanted)).await;
        let unusable = |reason| ImageError::Unusable { name: name.to_string(), reason };
        let Candidate { image, disk, state } = match opened {
            Ok(Ok(candidate)) => candidate,
            Ok(Err(FolderError::Absent)) => return Err(ImageError::NotFound(name.to_string())),
            Ok(Err(FolderError::Unfit(reason))) => return Err(unusable(reason)),
            Ok(Err(FolderError::Io(path, source))) => return Err(ImageError::Library { path, source }),
            Err(e) => return Err(self.unreadable(io::Error::other(e))),
        };
        if !self.families.contains(&image.os_family) {
            return Err(unusable(format!("no domain template for {} VMs yet", image.os_family)));
        }
        let digest = self.digests.of(&image.disk, disk, state);
        let digest = match patience {
            Some(patience) => tokio::time::timeout(patience, digest)
                .await
                .map_err(|_| ImageError::BeingChecked(name.to_string()))?,
            None => digest.await,
        };
        match digest {
            Ok(digest) if digest == image.sha256 => Ok(image),
            Ok(digest) => Err(unusable(format!("the disk's SHA-256 is {digest}, not that of the manifest"))),
            Err(e) => Err(unusable(format!("the disk's checksum cannot be computed: {e}"))),
        }
    }

    fn unreadable(&self, source: io::Error) -> ImageError {
        ImageError::Library { path: self.dir.to_path_buf(), source }
    }
}

/// The names of the folders, and what cannot be one. Blocking.
fn folder_names(dir: &Path) -> io::Result<(Vec<ResourceName>, Vec<BrokenImage>)> {
    let (mut names, mut broken) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((names, broken)),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Hidden folders are images half written; files beside the folders are nobody's business.
        if name.starts_with('.') || entry.file_type()?.is_file() {
            continue;
        }
        if names.len() + broken.len() >= MAX_IMAGES {
            return Err(io::Error::other(format!("there are more than {MAX_IMAGES} images")));
        }
        match name.parse() {
            Ok(name) => names.push(name),
            Err(e) => broken.push(BrokenImage {
                name: name.chars().filter(|c| !c.is_control()).collect(),
                reason: format!("its folder's name is no image name: {e}"),
            }),
        }
    }
    Ok((names, broken))
}
