//! Files out of a disc: an installer is started with its own kernel and initrd, while the disc stays
//! as it is. Where a file stands and how long it is are a stranger's word: held to a bound before a
//! byte is written, and what is written is whole before it has its name.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    Media,
    disc::{Disc, Volume},
};
use crate::{
    store::StoreError,
    vm::{MediumFacts, MediumKind, MediumState, ResourceName},
};

/// Largest kernel, bytes.
pub const MAX_KERNEL: u64 = 64 << 20;
/// Largest initrd, bytes.
pub const MAX_INITRD: u64 = 512 << 20;

/// Where installers have their kernel and their initrd.
const PAIRS: [BootPair; 5] = [
    BootPair { kernel: "casper/vmlinuz", initrd: "casper/initrd" },
    BootPair { kernel: "install.amd/vmlinuz", initrd: "install.amd/initrd.gz" },
    BootPair { kernel: "install.a64/vmlinuz", initrd: "install.a64/initrd.gz" },
    BootPair { kernel: "install/vmlinuz", initrd: "install/initrd.gz" },
    BootPair { kernel: "images/pxeboot/vmlinuz", initrd: "images/pxeboot/initrd.img" },
];

/// What an installer is started with, by path on its disc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPair {
    /// The kernel.
    pub kernel: &'static str,
    /// Its RAM disk.
    pub initrd: &'static str,
}

impl BootPair {
    /// What a disc has of this; none where it has no such pair, as those of Windows.
    #[must_use]
    pub fn of(facts: &MediumFacts) -> Option<Self> {
        let has = |path: &str| facts.boot_files.iter().any(|found| found == path);
        PAIRS.into_iter().find(|pair| has(pair.kernel) && has(pair.initrd))
    }
}

/// Why a file could not be had from a disc.
#[derive(Debug, thiserror::Error)]
pub enum DiscError {
    /// No disc of that name is ready.
    #[error("the library has no disc {0} that is ready")]
    NotReady(ResourceName),
    /// It is no disc that can be read, whatever it was when it came.
    #[error("the disc cannot be read as one: {0}")]
    Broken(String),
    /// The disc has no such file.
    #[error("the disc has no file {0}")]
    NoFile(String),
    /// The file is larger than it may be.
    #[error("{inner} has {length} bytes; {limit} are the most")]
    TooLarge {
        /// The file's path on the disc.
        inner: String,
        /// Its length, bytes.
        length: u64,
        /// The bound, bytes.
        limit: u64,
    },
    /// This host's disk.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The database could not be asked.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

fn io(what: &'static str) -> impl Fn(io::Error) -> DiscError {
    move |source| DiscError::Io { what, source }
}

/// Writes the file `inner` of a disc to `to`, which has it whole or not at all, also after a crash;
/// gives its length in bytes. What stood there is replaced. Never two at once to the same place.
/// Blocking, for as long as `limit` bytes take.
///
/// # Errors
/// See [`DiscError`].
pub fn extract(iso: &Path, inner: &str, to: &Path, limit: u64) -> Result<u64, DiscError> {
    let file = File::open(iso).map_err(io("opening the disc"))?;
    let disc = Disc::new(&file, file.metadata().map_err(io("opening the disc"))?.len());
    let volume = Volume::open(&disc).map_err(|wrong| DiscError::Broken(wrong.to_string()))?;
    let found = disc.locate(&volume, inner).map_err(io("reading the disc"))?;
    let found = found.ok_or_else(|| DiscError::NoFile(inner.to_owned()))?;
    let length = found.length();
    if length > limit {
        return Err(DiscError::TooLarge { inner: inner.to_owned(), length, limit });
    }
    if length == 0 || !disc.holds(&found) {
        return Err(DiscError::Broken(format!("{inner} is empty, or not all of it is there")));
    }
    let draft = draft(to);
    let written = write(&draft, |file| disc.copy(&found, file)).and_then(|()| put(&draft, to));
    if let Err(source) = written {
        // What cannot be removed either is written over by the next attempt.
        remove(&draft).map_err(io("removing what was written of a file"))?;
        return Err(DiscError::Io { what: "writing a file out of the disc", source });
    }
    Ok(length)
}

/// The name that a file has before it is whole.
fn draft(to: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".part");
    to.with_file_name(name)
}

/// A new file: what an attempt before left is removed, and no link followed.
fn write(path: &Path, contents: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    remove(path)?;
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
    contents(&mut file)?;
    file.sync_all()
}

fn put(draft: &Path, to: &Path) -> io::Result<()> {
    fs::rename(draft, to)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Media {
    /// Writes the kernel and the initrd of a ready disc's installer to these places. Nobody may
    /// delete the disc meanwhile who does not wait for whatever names it; a file that is open is
    /// read to its end all the same.
    ///
    /// # Errors
    /// See [`DiscError`].
    pub async fn extract_boot(
        &self,
        name: &ResourceName,
        kernel: PathBuf,
        initrd: PathBuf,
    ) -> Result<BootPair, DiscError> {
        let found = self.store().medium(self.shared.host, name).await?;
        let ready = found
            .filter(|medium| medium.kind == MediumKind::Installation && medium.state == MediumState::Ready)
            .ok_or_else(|| DiscError::NotReady(name.clone()))?;
        let pair = BootPair::of(&ready.facts)
            .ok_or_else(|| DiscError::NoFile("that a Linux installer begins with".to_owned()))?;
        let iso = self.disc(name);
        let work = tokio::task::spawn_blocking(move || {
            extract(&iso, pair.kernel, &kernel, MAX_KERNEL)?;
            extract(&iso, pair.initrd, &initrd, MAX_INITRD)?;
            Ok(pair)
        });
        work.await.map_err(|died| io("writing files out of the disc")(io::Error::other(died)))?
    }
}

#[cfg(test)]
mod tests;
