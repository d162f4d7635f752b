//! The image library: a directory with one folder per image, each with a `manifest.toml`.
//!
//! A VM's disk is built on an image's, and QEMU believes what an image says. So images are looked
//! at on every use: declared formats only, no file that names other files, and a checksum that
//! must be right.

mod digest;
mod folder;
mod manifest;
mod qcow2;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::vm::{Image, ResourceName};
use digest::Digests;
use folder::{Candidate, FolderError};

/// Most folders looked at.
const MAX_IMAGES: usize = 1000;

/// The library. Clones share it.
#[derive(Debug, Clone)]
pub struct Images {
    dir: Arc<Path>,
    digests: Digests,
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
        Self { dir: dir.into(), digests: Digests::new() }
    }

    /// All images fit for use, by name, and those that are not. The first time, and after an
    /// image changed, this reads whole disks; what was begun goes on when the caller goes away.
    ///
    /// # Errors
    /// [`ImageError::Library`].
    pub async fn list(&self) -> Result<(Vec<Image>, Vec<BrokenImage>), ImageError> {
        let dir = self.dir.clone();
        let found = tokio::task::spawn_blocking(move || folder_names(&dir)).await;
        let (names, mut broken) =
            found.map_err(io::Error::other).and_then(|names| names).map_err(|e| self.unreadable(e))?;
        // Also of images that are not fit for use: what their disks hash to is known, too.
        let folders: HashSet<_> = names.iter().map(|name| self.dir.join(name.as_str())).collect();
        self.digests.retain(|disk| disk.parent().is_some_and(|folder| folders.contains(folder)));
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

    /// One image, checked: manifest, format, no backing or external data file, checksum (computed
    /// once per change of the file).
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn get(&self, name: &ResourceName) -> Result<Image, ImageError> {
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
        let digest = self.digests.of(&image.disk, disk, state).await;
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
