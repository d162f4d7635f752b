//! Where a medium's files are: one hidden place while it is written, named by its row's id, and
//! one for good, named by its name. What is in the second is whole; what was there before is
//! never written over.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, OFlags, RenameFlags};

use crate::{
    images::{INCOMING_DISK, MANIFEST},
    vm::{Medium, MediumId, MediumKind, ResourceName, disc_file_name},
};

/// The two directories.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) discs: PathBuf,
    pub(super) images: PathBuf,
}

impl Places {
    /// A ready disc's file.
    pub(super) fn disc(&self, name: &ResourceName) -> PathBuf {
        self.discs.join(disc_file_name(name))
    }

    /// What a ready medium is: a disc's file, or an image's folder.
    fn whole(&self, medium: &Medium) -> PathBuf {
        match medium.kind {
            MediumKind::DiskImage => self.images.join(medium.name.as_str()),
            MediumKind::Installation => self.disc(&medium.name),
        }
    }

    /// The hidden place: a file, or a folder.
    fn hidden(&self, medium: &Medium, what: &str) -> PathBuf {
        let name = hidden_name(medium.id, what);
        match medium.kind {
            MediumKind::DiskImage => self.images.join(name),
            MediumKind::Installation => self.discs.join(name),
        }
    }

    /// The file that is being written.
    pub(super) fn partial(&self, medium: &Medium) -> PathBuf {
        let hidden = self.hidden(medium, "part");
        match medium.kind {
            MediumKind::DiskImage => hidden.join(INCOMING_DISK),
            MediumKind::Installation => hidden,
        }
    }

    /// The finished file.
    pub(super) fn file(&self, medium: &Medium) -> PathBuf {
        match medium.kind {
            MediumKind::DiskImage => self.whole(medium).join(INCOMING_DISK),
            MediumKind::Installation => self.whole(medium),
        }
    }

    /// Whether something stands where the medium would go.
    pub(super) fn is_taken(&self, kind: MediumKind, name: &ResourceName) -> io::Result<bool> {
        let place = match kind {
            MediumKind::DiskImage => self.images.join(name.as_str()),
            MediumKind::Installation => self.disc(name),
        };
        match fs::symlink_metadata(place) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the directories that the partial file stands in; gives its directory. QEMU's user
    /// has to get through. Blocking.
    pub(super) fn prepare(&self, medium: &Medium) -> io::Result<PathBuf> {
        let make = |dir: &Path| fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        match medium.kind {
            MediumKind::DiskImage => {
                make(&self.images)?;
                let hidden = self.hidden(medium, "part");
                make(&hidden)?;
                Ok(hidden)
            }
            MediumKind::Installation => {
                make(&self.discs)?;
                Ok(self.discs.clone())
            }
        }
    }

    /// Puts the whole file in its place, with the manifest of a disk image; `false` where
    /// something stands there already. Blocking.
    pub(super) fn put(&self, medium: &Medium, manifest: Option<&str>) -> io::Result<bool> {
        let hidden = self.hidden(medium, "part");
        if let Some(manifest) = manifest {
            let flags = OFlags::NOFOLLOW.bits().cast_signed();
            let path = hidden.join(MANIFEST);
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .custom_flags(flags)
                .open(path)?;
            file.write_all(manifest.as_bytes())?;
            file.sync_all()?;
            File::open(&hidden)?.sync_all()?;
        }
        let whole = self.whole(medium);
        match rustix::fs::renameat_with(CWD, &hidden, CWD, &whole, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let directory = whole.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all()?;
        Ok(true)
    }

    /// Removes what is not in its place yet. Blocking.
    pub(super) fn discard(&self, medium: &Medium) -> io::Result<()> {
        remove(&self.hidden(medium, "part"))?;
        remove(&self.hidden(medium, "gone"))
    }

    /// Removes a medium that is in its place: out of everybody's sight at once, then piece by
    /// piece. Blocking.
    pub(super) fn remove(&self, medium: &Medium) -> io::Result<()> {
        let gone = self.hidden(medium, "gone");
        match fs::rename(self.whole(medium), &gone) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.discard(medium)
    }
}

fn hidden_name(id: MediumId, what: &str) -> String {
    format!(".{id}.{what}")
}

/// A file or a folder; no link is followed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
