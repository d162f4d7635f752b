//! An archive that the kernel unpacks into the initial RAM disk, after the installer's own.
//!
//! A `newc` cpio in a gzip member of stored blocks: appended to an initrd, a gzip member may begin
//! at any byte, a bare archive only at every fourth. There is next to nothing in it to compress.

use std::collections::BTreeSet;

use super::{iso::is_plain_name, seed::SeedFile};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const FILE: u32 = 0o100_444;
const FOLDER: u32 = 0o040_755;
/// What is one block for other programs.
const BLOCK: usize = 512;
const MAX_FILES: usize = 256;
const MAX_TOTAL: usize = 256 << 20;
/// Longest stored block of deflate.
const STORED: usize = 65_535;

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// A path that is not a plain name, or two with a folder between.
    #[error("{0:?} cannot be the name of a file in an initial RAM disk")]
    Name(String),
    /// More than an installer is ever given.
    #[error("an initial RAM disk is given at most {MAX_FILES} files and {MAX_TOTAL} bytes")]
    TooLarge,
}

/// The archive, to be appended to an initrd. Files stand in the root or in one folder, belong to
/// root and can be read by everybody.
///
/// # Errors
/// See [`CpioError`].
pub fn initrd_archive(files: &[SeedFile]) -> Result<Vec<u8>, CpioError> {
    let total = files.iter().try_fold(0_usize, |sum, file| sum.checked_add(file.contents.len()));
    if files.len() > MAX_FILES || total.is_none_or(|total| total > MAX_TOTAL) {
        return Err(CpioError::TooLarge);
    }
    let mut names = BTreeSet::new();
    let mut archive = Vec::new();
    let mut inode = 0;
    for file in files {
        let refuse = || CpioError::Name(file.path.clone());
        if let Some((folder, name)) = file.path.split_once('/') {
            if !is_plain_name(folder) || !is_plain_name(name) {
                return Err(refuse());
            }
            if names.insert(format!("{folder}/")) {
                inode += 1;
                entry(&mut archive, inode, FOLDER, folder, &[])?;
            }
        } else if !is_plain_name(&file.path) {
            return Err(refuse());
        }
        // A name is a file's or a folder's, and once.
        if names.contains(&format!("{}/", file.path)) || !names.insert(file.path.clone()) {
            return Err(refuse());
        }
        inode += 1;
        entry(&mut archive, inode, FILE, &file.path, &file.contents)?;
    }
    if let Some(both) = names.iter().find(|name| name.strip_suffix('/').is_some_and(|n| names.contains(n))) {
        return Err(CpioError::Name(both.clone()));
    }
    entry(&mut archive, 0, 0, TRAILER, &[])?;
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    Ok(gzip_stored(&archive))
}

fn entry(archive: &mut Vec<u8>, inode: u32, mode: u32, path: &str, contents: &[u8]) -> Result<(), CpioError> {
    let size = u32::try_from(contents.len()).map_err(|_| CpioError::TooLarge)?;
    let name = u32::try_from(path.len() + 1).map_err(|_| CpioError::TooLarge)?;
    let links = if mode == FOLDER { 2 } else { 1 };
    // inode, mode, user, group, links, time, size, device (2), special device (2), name, checksum
    archive.extend_from_slice(MAGIC.as_bytes());
    for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0] {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(4), 0);
    Ok(())
}

/// A gzip member whose blocks are stored as they are.
fn gzip_stored(bytes: &[u8]) -> Vec<u8> {
    // Deflate, no flags, no time, no hints, of no system in particular.
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut blocks = bytes.chunks(STORED).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("a chunk is no longer than asked for");
        member.push(u8::from(blocks.peek().is_none()));
        member.extend_from_slice(&length.to_le_bytes());
        member.extend_from_slice(&(!length).to_le_bytes());
        member.extend_from_slice(block);
    }
    member.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    let length = u32::try_from(bytes.len() & 0xffff_ffff).expect("masked to 32 bits");
    member.extend_from_slice(&length.to_le_bytes());
    member
}

#[cfg(test)]
mod tests {
    use super::{CpioError, SeedFile, initrd_archive};

    fn file(path: &str) -> SeedFile {
        SeedFile { path: path.to_owned(), contents: b"x".to_vec() }
    }

    #[test]
    fn names_that_clash_or_climb_are_refused() {
        for bad in ["", "/a", "a/", "../a", "a/../b", ".a", "a/b/c", "a b", "a\n", "ä"] {
            assert!(matches!(initrd_archive(&[file(bad)]), Err(CpioError::Name(_))), "{bad:?}");
        }
        for clash in [["a", "a"], ["a", "a/b"], ["a/b", "a"]] {
            let refused = initrd_archive(&clash.map(file));
            assert!(matches!(refused, Err(CpioError::Name(_))), "{clash:?}");
        }
        let many: Vec<_> = (0..257).map(|n| file(&format!("f{n}"))).collect();
        assert!(matches!(initrd_archive(&many), Err(CpioError::TooLarge)));
    }
}
