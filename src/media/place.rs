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
    failpoint::failpoint,
    images::{INCOMING_DISK, MANIFEST},
    vm::{Medium, MediumId, MediumKind, ResourceName, disc_file_name},
};

/// How the putting in its place went.
#[derive(Debug)]
pub(super) enum Put {
    /// It stands there, and stays.
    Done,
    /// Something else stands there.
    Taken,
    /// There is nothing to put there.
    Lost,
    /// It stands there, and can neither be made to stay nor be taken back.
    Loose(io::Error),
}

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

    /// Puts the whole file in its place, with the manifest of a disk image. Blocking.
    pub(super) fn put(&self, medium: &Medium, manifest: Option<&str>) -> io::Result<Put> {
        self.put_and(medium, manifest, sync_entry)
    }

    fn put_and(
        &self,
        medium: &Medium,
        manifest: Option<&str>,
        sync: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Put> {
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
        failpoint!("import-medium.described");
        let whole = self.whole(medium);
        match rustix::fs::renameat_with(CWD, &hidden, CWD, &whole, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => return Ok(Put::Taken),
            Err(error) => return Err(error.into()),
        }
        failpoint!("import-medium.placed");
        self.keep_and(medium, sync)
    }

    /// Has what stands in its place stay there. Blocking.
    pub(super) fn keep(&self, medium: &Medium) -> io::Result<Put> {
        self.keep_and(medium, sync_entry)
    }

    /// What cannot be made to stay is taken back: of an import that is given up, nothing stands in
    /// its place.
    fn keep_and(&self, medium: &Medium, sync: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Put> {
        let (whole, hidden) = (self.whole(medium), self.hidden(medium, "part"));
        let Err(error) = sync(&whole) else { return Ok(Put::Done) };
        match rustix::fs::renameat_with(CWD, &whole, CWD, &hidden, RenameFlags::NOREPLACE) {
            Ok(()) => Err(error),
            Err(_) => Ok(Put::Loose(error)),
        }
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
        failpoint!("delete-medium.hidden");
        self.discard(medium)
    }
}

/// The name of this is on the disk.
fn sync_entry(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{
        DiskFacts, HostId, ImageFormat, MediumFacts, MediumSource, MediumState, OsFamily, Provisioning,
        UserId,
    };

    fn medium(kind: MediumKind) -> Medium {
        let disk = DiskFacts {
            description: String::new(),
            os_family: OsFamily::Linux,
            provisioning: Provisioning::None,
            format: ImageFormat::Qcow2,
        };
        Medium {
            id: MediumId::generate(),
            host: HostId::generate(),
            name: "fresh".parse().unwrap(),
            kind,
            source: MediumSource::Path("/source".to_owned()),
            expected_sha256: None,
            sha256: None,
            disk: (kind == MediumKind::DiskImage).then_some(disk),
            state: MediumState::Checking,
            bytes_done: 4,
            bytes_total: Some(4),
            validator: None,
            partial: true,
            discard: false,
            facts: MediumFacts::default(),
            failure: None,
            requested_by: UserId::generate(),
            created_at: chrono::Utc::now(),
            started_at: None,
            finished_at: None,
        }
    }

    #[test]
    fn what_may_not_stay_is_not_in_its_place() {
        for (kind, manifest) in
            [(MediumKind::Installation, None), (MediumKind::DiskImage, Some("description = \"\"\n"))]
        {
            let dir = tempfile::tempdir().unwrap();
            let places = Places { discs: dir.path().join("discs"), images: dir.path().join("images") };
            let medium = medium(kind);
            places.prepare(&medium).unwrap();
            fs::write(places.partial(&medium), "disc").unwrap();
            let broken = |_: &Path| Err(io::Error::other("the disk is broken"));
            let told = places.put_and(&medium, manifest, broken).unwrap_err();
            assert_eq!(told.to_string(), "the disk is broken");
            assert!(!places.is_taken(kind, &medium.name).unwrap(), "{kind:?}: it stands there all the same");
            assert_eq!(fs::read(places.partial(&medium)).unwrap(), b"disc", "{kind:?}");

            // Asked for again.
            assert!(matches!(places.put(&medium, manifest).unwrap(), Put::Done));
            assert_eq!(fs::read(places.file(&medium)).unwrap(), b"disc", "{kind:?}");
            // From before a crash, with somebody's file where it could go back to.
            fs::write(places.hidden(&medium, "part"), "in the way").unwrap();
            assert!(matches!(places.keep_and(&medium, broken).unwrap(), Put::Loose(_)));
            assert!(places.is_taken(kind, &medium.name).unwrap());
            assert!(matches!(places.keep(&medium).unwrap(), Put::Done));
        }
    }
}
