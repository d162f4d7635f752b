//! Reading an installation disc, as far as it takes to say what it is.
//!
//! Every number on a disc is a stranger's. So nothing is walked: a fixed list of short paths is
//! looked up, each directory and file read has a bound, and so has everything read together; a
//! directory that contains itself, or says that it is as long as the sea, costs no more than any.

mod iso9660;
mod udf;
mod wim;

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt};

pub(super) use iso9660::{Volume, Wrong};
pub(super) use wim::WindowsImage;

/// Bytes of one sector, of all discs that are taken.
const SECTOR: u64 = 2048;
/// Longest directory that is read, bytes.
const MAX_DIRECTORY: u64 = 1 << 20;
/// Longest text file that is read, bytes.
const MAX_TEXT: u64 = 64 << 10;
/// Read of one disc altogether, bytes.
const MAX_READ: u64 = 64 << 20;
/// Read at once of a file that is copied, bytes.
const PIECE: usize = 1 << 20;
/// Pieces of one file.
const MAX_EXTENTS: usize = 256;

/// What an installation begins with, by family. Found ones are told.
const BOOT_FILES: [&str; 21] = [
    "casper/vmlinuz",
    "casper/initrd",
    "install.amd/vmlinuz",
    "install.amd/initrd.gz",
    "install.a64/vmlinuz",
    "install.a64/initrd.gz",
    "install/vmlinuz",
    "install/initrd.gz",
    // Debian's trees for booting from the network, and its smallest disc.
    "linux",
    "initrd.gz",
    "debian-installer/amd64/linux",
    "debian-installer/amd64/initrd.gz",
    "images/pxeboot/vmlinuz",
    "images/pxeboot/initrd.img",
    "sources/boot.wim",
    "sources/install.wim",
    "sources/install.esd",
    "sources/install.swm",
    "bootmgr",
    "efi/boot/bootx64.efi",
    "efi/boot/bootaa64.efi",
];

/// What a disc says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traces {
    pub(super) label: String,
    /// `.disk/info`: Debian and its children.
    pub(super) disk_info: Option<String>,
    /// `.treeinfo`: Fedora and its relatives.
    pub(super) treeinfo: Option<String>,
    /// What `sources/install.wim` holds: Windows.
    pub(super) windows: Option<WindowsImage>,
    /// Of the files that installations begin with.
    pub(super) boot_files: Vec<String>,
    /// Whether firmware finds something to boot.
    pub(super) bootable: bool,
}

/// A disc's bytes, within bounds.
pub(super) struct Disc<'a> {
    file: &'a File,
    length: u64,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    read: u64,
    fault: Option<io::Error>,
}

/// Where a file's bytes are on the disc: places and lengths, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extents(Vec<(u64, u64)>);

impl Extents {
    pub(super) fn length(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, length)| sum.saturating_add(*length))
    }
}

impl<'a> Disc<'a> {
    /// Of an open file of this length.
    pub(super) fn new(file: &'a File, length: u64) -> Self {
        Self { file, length, state: RefCell::default() }
    }

    /// So many bytes from there; none where the disc, or the bound, ends before.
    fn read(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        let mut state = self.state.borrow_mut();
        let end = at.checked_add(length)?;
        let read = state.read.checked_add(length)?;
        if end > self.length || read > MAX_READ || state.fault.is_some() {
            return None;
        }
        state.read = read;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Some(bytes),
            Err(fault) => {
                state.fault = Some(fault);
                None
            }
        }
    }

    fn sector(&self, sector: u64) -> Option<Vec<u8>> {
        self.read(sector.checked_mul(SECTOR)?, SECTOR)
    }

    /// A part of a file.
    fn read_of(&self, file: &Extents, mut from: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut left = length;
        for &(at, extent) in &file.0 {
            if from >= extent {
                from -= extent;
                continue;
            }
            let take = left.min(extent - from);
            bytes.extend(self.read(at.checked_add(from)?, take)?);
            left -= take;
            from = 0;
            if left == 0 {
                return Some(bytes);
            }
        }
        (left == 0).then_some(bytes)
    }

    /// The beginning of a text file; what is no UTF-8 becomes a question mark.
    fn text(&self, file: &Extents) -> Option<String> {
        let bytes = self.read_of(file, 0, file.length().min(MAX_TEXT))?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where a file stands, by its path: in ISO 9660, or in UDF.
    ///
    /// # Errors
    /// The disc could not be read.
    pub(super) fn locate(&self, volume: &Volume, path: &str) -> io::Result<Option<Extents>> {
        let in_udf = || udf::Udf::open(self).and_then(|udf| udf.find(self, path));
        let found = volume.find(self, path).or_else(in_udf);
        match self.state.borrow_mut().fault.take() {
            Some(fault) => Err(fault),
            None => Ok(found),
        }
    }

    /// Whether every piece of the file is on the disc.
    pub(super) fn holds(&self, file: &Extents) -> bool {
        file.0.iter().all(|(at, length)| at.checked_add(*length).is_some_and(|end| end <= self.length))
    }

    /// Writes a whole file somewhere else, piece by piece. The bound on what is read to recognise a
    /// disc is not for this: whoever asks has looked at the length.
    ///
    /// # Errors
    /// The disc could not be read, or not all of it was there; or the writer's.
    pub(super) fn copy(&self, file: &Extents, to: &mut impl io::Write) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        for &(begin, length) in &file.0 {
            let (mut at, mut left) = (begin, length);
            while left > 0 {
                let part = piece.get_mut(..usize::try_from(left).unwrap_or(PIECE).min(PIECE));
                let Some(part) = part else { break };
                self.file.read_exact_at(part, at)?;
                to.write_all(part)?;
                at += part.len() as u64;
                left -= part.len() as u64;
            }
        }
        Ok(())
    }

    /// What the disc says of itself.
    ///
    /// # Errors
    /// The file could not be read.
    pub(super) fn traces(&self, volume: &Volume) -> io::Result<Traces> {
        let udf = udf::Udf::open(self);
        // Windows' own discs hold a note in ISO 9660, and everything in UDF.
        let find = |path: &str| {
            volume.find(self, path).or_else(|| udf.as_ref().and_then(|udf| udf.find(self, path)))
        };
        let text = |path: &str| find(path).and_then(|file| self.text(&file));
        let windows = ["sources/install.wim", "sources/install.esd", "sources/install.swm"]
            .iter()
            .find_map(|path| find(path))
            .and_then(|file| wim::read(self, &file));
        let traces = Traces {
            label: volume.label.clone(),
            disk_info: text(".disk/info"),
            treeinfo: text(".treeinfo"),
            windows,
            boot_files: BOOT_FILES
                .iter()
                .filter(|path| find(path).is_some())
                .map(|&path| path.to_owned())
                .collect(),
            bootable: volume.bootable,
        };
        match self.state.take().fault {
            Some(fault) => Err(fault),
            None => Ok(traces),
        }
    }
}

/// Numbers of a piece of a disc, little-endian; none past its end.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
