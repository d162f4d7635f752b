//! The file that is being written, and the checksum of what is in it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

const CHUNK: usize = 1 << 20;

/// Everything here blocks.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    hash: Sha256,
    written: u64,
}

impl Sink {
    /// Opens the file and keeps its first `keep` bytes, which are read again for the checksum;
    /// fewer where there are fewer.
    pub(super) fn open(path: &Path, keep: u64) -> io::Result<Self> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("what stands there is not a regular file"));
        }
        let (hash, written) = digest(&mut file, keep)?;
        file.set_len(written)?;
        Ok(Self { file, hash, written })
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hash = Sha256::new();
        self.written = 0;
        Ok(())
    }

    /// Waits until it is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The file, from its beginning, and its checksum in lower-case hexadecimal.
    pub(super) fn finish(mut self) -> io::Result<(File, String)> {
        self.sync()?;
        self.file.rewind()?;
        Ok((self.file, hexadecimal(self.hash)))
    }

    /// What the file system that it stands on has left, bytes.
    pub(super) fn room(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.file)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// The checksum of a file's first bytes, and how many these were. The file stands after them.
fn digest(file: &mut File, bytes: u64) -> io::Result<(Sha256, u64)> {
    let mut hash = Sha256::new();
    file.rewind()?;
    let mut read = 0;
    let mut chunk = vec![0; CHUNK];
    let mut part = file.take(bytes);
    loop {
        match part.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&chunk[..count]);
                read += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    part.into_inner().seek(SeekFrom::Start(read))?;
    Ok((hash, read))
}

/// The checksum of a whole file.
pub(super) fn sha256_of(file: &mut File) -> io::Result<String> {
    digest(file, u64::MAX).map(|(hash, _)| hexadecimal(hash))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_counts_for_the_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let mut sink = Sink::open(&path, 0).unwrap();
        sink.write(b"abXXX").unwrap();
        drop(sink);
        let mut sink = Sink::open(&path, 2).unwrap();
        assert_eq!(sink.written(), 2);
        sink.write(b"c").unwrap();
        let (mut file, sum) = sink.finish().unwrap();
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256_of(&mut file).unwrap(), sum);
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        let mut sink = Sink::open(&path, 100).unwrap();
        assert_eq!(sink.written(), 3);
        sink.restart().unwrap();
        assert_eq!(
            sink.finish().unwrap().1,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), &path).unwrap();
        assert!(Sink::open(&path, 0).is_err());
    }
}
