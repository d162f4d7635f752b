//! One image's folder: what is in it, opened without following links.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{digest::FileState, manifest::Manifest, qcow2};
use crate::vm::{Image, ImageFormat, KernelBoot, ResourceName};

const MAX_MANIFEST: u64 = 64 * 1024;
const SECTOR: u64 = 512;

/// An image whose manifest and formats are in order; its checksum is still to be compared.
#[derive(Debug)]
pub(super) struct Candidate {
    /// What it will be.
    pub(super) image: Image,
    /// The disk, opened, at its beginning.
    pub(super) disk: File,
    /// The disk's state before anything was read of it.
    pub(super) state: FileState,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum FolderError {
    /// No such folder.
    Absent,
    /// It is there, and not fit for use.
    Unfit(String),
    /// It could not be looked at.
    Io(PathBuf, io::Error),
}

/// Reads the folder `name` of the library `dir`. Blocking.
pub(super) fn open(dir: &Path, name: &ResourceName) -> Result<Candidate, FolderError> {
    let folder = dir.join(name.as_str());
    match fs::symlink_metadata(&folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return unfit("it is not a folder"),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(FolderError::Absent);
        }
        Err(e) => return Err(FolderError::Io(folder, e)),
    }
    let manifest = Manifest::parse(&read_manifest(&folder)?).map_err(FolderError::Unfit)?;
    let kernel = match &manifest.kernel {
        Some(kernel) => {
            open_regular(&folder, &kernel.kernel)?;
            if let Some(initrd) = &kernel.initrd {
                open_regular(&folder, initrd)?;
            }
            Some(KernelBoot {
                kernel: folder.join(&kernel.kernel),
                initrd: kernel.initrd.as_ref().map(|initrd| folder.join(initrd)),
                cmdline: kernel.cmdline.clone(),
            })
        }
        None => None,
    };
    let mut disk = open_regular(&folder, &manifest.disk)?;
    let path = folder.join(&manifest.disk);
    let io = |e| FolderError::Io(path.clone(), e);
    let state = FileState::of(&disk).map_err(io)?;
    let virtual_bytes = match manifest.format {
        ImageFormat::Qcow2 => {
            let size = qcow2::virtual_size(&disk).map_err(|e| FolderError::Unfit(e.to_string()))?;
            disk.rewind().map_err(io)?;
            size
        }
        ImageFormat::Raw if state.length == 0 => return unfit("the disk is empty"),
        // What is not a whole number of sectors, no guest can see whole.
        ImageFormat::Raw if state.length % SECTOR != 0 => {
            return unfit("the disk's length is not a multiple of 512 bytes");
        }
        ImageFormat::Raw => state.length,
    };
    let image = Image {
        name: name.clone(),
        description: manifest.description,
        os_family: manifest.os_family,
        provisioning: manifest.provisioning,
        disk: path,
        format: manifest.format,
        virtual_bytes,
        sha256: manifest.sha256,
        kernel,
    };
    Ok(Candidate { image, disk, state })
}

fn unfit<T>(reason: impl Into<String>) -> Result<T, FolderError> {
    Err(FolderError::Unfit(reason.into()))
}

/// A regular file of the folder. Never a link, which would lead out of it; never a device or a
/// pipe, on which even opening may block.
fn open_regular(folder: &Path, name: &str) -> Result<File, FolderError> {
    let path = folder.join(name);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return unfit(format!("{name} is not a regular file")),
        Err(e) => return unfit(format!("{name} cannot be read: {e}")),
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(e) => return unfit(format!("{name} cannot be read: {e}")),
    };
    // Looked at again: it may have been replaced in between.
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => unfit(format!("{name} is not a regular file")),
        Err(e) => Err(FolderError::Io(path, e)),
    }
}

fn read_manifest(folder: &Path) -> Result<String, FolderError> {
    let file = open_regular(folder, "manifest.toml")?;
    let mut text = String::new();
    match file.take(MAX_MANIFEST + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 > MAX_MANIFEST => unfit("manifest.toml has more than 64 KiB"),
        Ok(_) => Ok(text),
        Err(e) => unfit(format!("manifest.toml cannot be read: {e}")),
    }
}
