//! The head of a qcow2 file, read only as far as it says whether the image is safe to use.
//!
//! A qcow2 file can name other files of the host, as backing file or as external data file, and
//! QEMU would open them for the guest. Such images are refused, and nothing is left to a probe.
//! The layout is that of QEMU's `docs/interop/qcow2.txt`; all numbers are big-endian.

use std::io::{self, Read};

const MAGIC: [u8; 4] = *b"QFI\xfb";
const HEAD_V2: usize = 72;
const HEAD_V3: usize = 104;
/// Header and header extensions stand in the first cluster; we look no further than this.
const MAX_READ: u64 = 64 * 1024;

/// Incompatible features (version 3).
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTERNAL_DATA_NAME: u32 = 0x4441_5441;

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Qcow2Error {
    /// The file could not be read.
    #[error("reading the disk: {0}")]
    Read(#[from] io::Error),
    /// It is not what the manifest says, or nothing we use.
    #[error("the disk is not a qcow2 image that can be used: {0}")]
    Refused(&'static str),
}

/// The reason of what is no qcow2 at all.
pub(super) const NO_HEADER: &str = "it does not begin with a qcow2 header";

fn refuse<T>(reason: &'static str) -> Result<T, Qcow2Error> {
    Err(Qcow2Error::Refused(reason))
}

/// Checks the head of an image and gives the size that a guest sees, bytes.
pub(super) fn virtual_size(file: impl Read) -> Result<u64, Qcow2Error> {
    let mut head = Vec::new();
    file.take(MAX_READ).read_to_end(&mut head)?;
    if head.len() < HEAD_V2 || !head.starts_with(&MAGIC) {
        return refuse(NO_HEADER);
    }
    let version = u32_at(&head, 4)?;
    if u64_at(&head, 8)? != 0 || u32_at(&head, 16)? != 0 {
        return refuse("it is built on another file (backing file); flatten it with qemu-img convert");
    }
    let cluster_bits = u32_at(&head, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return refuse("its cluster size is out of range");
    }
    if u32_at(&head, 32)? != 0 {
        return refuse("it is encrypted");
    }
    let extensions = match version {
        2 => HEAD_V2,
        3 => {
            check_features(u64_at(&head, 72)?)?;
            let length = usize::try_from(u32_at(&head, 100)?).unwrap_or(usize::MAX);
            if length < HEAD_V3 || length % 8 != 0 || length > 1 << cluster_bits {
                return refuse("its header length is out of range");
            }
            length
        }
        _ => return refuse("its version is neither 2 nor 3"),
    };
    check_extensions(&head, extensions, 1 << cluster_bits)?;
    match u64_at(&head, 24)? {
        0 => refuse("it has no size"),
        // QEMU's own limit.
        size if size > 1 << 62 => refuse("its size is out of range"),
        size => Ok(size),
    }
}

fn check_features(incompatible: u64) -> Result<(), Qcow2Error> {
    if incompatible & EXTERNAL_DATA != 0 {
        return refuse("it keeps its data in another file (external data file)");
    }
    if incompatible & (DIRTY | CORRUPT) != 0 {
        return refuse("it was not closed properly or is marked corrupt; check it with qemu-img check");
    }
    if incompatible & !(COMPRESSION | EXTENDED_L2) != 0 {
        return refuse("it needs a feature that is not known here");
    }
    Ok(())
}

/// Walks the header extensions: type, length, data padded to eight bytes.
fn check_extensions(head: &[u8], start: usize, end: usize) -> Result<(), Qcow2Error> {
    let mut at = start;
    // A cluster larger than what was read may hold more of them; only the end mark ends it.
    while at + 8 <= end {
        let kind = u32_at(head, at)?;
        let length = usize::try_from(u32_at(head, at + 4)?).unwrap_or(usize::MAX);
        match kind {
            END => return Ok(()),
            EXTERNAL_DATA_NAME => {
                return refuse("it keeps its data in another file (external data file)");
            }
            BACKING_FORMAT => return refuse("it names the format of a backing file"),
            _ => {}
        }
        let next = length.checked_next_multiple_of(8).and_then(|padded| padded.checked_add(at + 8));
        match next {
            Some(next) if next <= end => at = next,
            _ => return refuse("a header extension is longer than its cluster"),
        }
    }
    Ok(())
}

fn bytes_at<const N: usize>(head: &[u8], at: usize) -> Result<[u8; N], Qcow2Error> {
    match head.get(at..at + N).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => Ok(bytes),
        None => refuse("its header is cut short"),
    }
}

fn u32_at(head: &[u8], at: usize) -> Result<u32, Qcow2Error> {
    bytes_at(head, at).map(u32::from_be_bytes)
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, Qcow2Error> {
    bytes_at(head, at).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::{Qcow2Error, virtual_size};
    use proptest::prelude::*;

    fn header(version: u32) -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[20..24].copy_from_slice(&16_u32.to_be_bytes());
        head[24..32].copy_from_slice(&(5_u64 << 30).to_be_bytes());
        head[100..104].copy_from_slice(&104_u32.to_be_bytes());
        head
    }

    fn with(version: u32, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = header(version);
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn the_size_is_read_of_both_versions() {
        for version in [2, 3] {
            assert_eq!(virtual_size(&header(version)[..]).unwrap(), 5 << 30);
        }
        // zstd compression and subclusters are no danger.
        assert!(virtual_size(&with(3, 72, &0b1_1000_u64.to_be_bytes())[..]).is_ok());
        // An unknown extension is passed over, padded to eight bytes.
        let extension = [b"\x01\x02\x03\x04\0\0\0\x05hello\0\0\0\0\0\0\0\0\0\0\0".as_slice()].concat();
        assert!(virtual_size(&with(3, 104, &extension)[..]).is_ok());
    }

    #[test]
    fn what_is_dangerous_or_broken_is_refused_with_the_reason() {
        let feature = |bit: u64| with(3, 72, &(1_u64 << bit).to_be_bytes());
        let table = [
            (Vec::new(), "header"),
            (header(3)[..71].to_vec(), "header"),
            (header(3)[..90].to_vec(), "cut short"),
            (with(3, 0, b"\x7fELF"), "header"),
            (with(1, 0, b""), "version"),
            (with(4, 0, b""), "version"),
            (with(2, 15, &[80]), "backing file"),
            (with(2, 19, &[80]), "backing file"),
            (with(3, 15, &[80]), "backing file"),
            (with(3, 35, &[1]), "encrypted"),
            (with(3, 20, &8_u32.to_be_bytes()), "cluster size"),
            (with(3, 20, &22_u32.to_be_bytes()), "cluster size"),
            (with(3, 24, &0_u64.to_be_bytes()), "no size"),
            (with(3, 24, &u64::MAX.to_be_bytes()), "out of range"),
            (with(3, 100, &0_u32.to_be_bytes()), "header length"),
            (with(3, 100, &u32::MAX.to_be_bytes()), "header length"),
            (feature(0), "closed"),
            (feature(1), "corrupt"),
            (feature(2), "external data"),
            (feature(5), "not known"),
            (feature(63), "not known"),
            (with(3, 104, b"DATA\0\0\0\x01x"), "external data"),
            (with(3, 104, b"\xe2\x79\x2a\xca\0\0\0\x03raw"), "backing file"),
            (with(2, 72, b"DATA\0\0\0\x01x"), "external data"),
            (with(3, 104, b"\x01\x02\x03\x04\xff\xff\xff\xff"), "longer"),
        ];
        for (head, expected) in table {
            match virtual_size(&head[..]) {
                Err(Qcow2Error::Refused(reason)) => {
                    assert!(reason.contains(expected), "{reason}, not {expected}")
                }
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(mut noise in prop::collection::vec(any::<u8>(), 0..300), version in 0_u32..5) {
            let _ = virtual_size(&noise[..]);
            if noise.len() >= 8 {
                noise[..4].copy_from_slice(b"QFI\xfb");
                noise[4..8].copy_from_slice(&version.to_be_bytes());
            }
            let _ = virtual_size(&noise[..]);
        }
    }
}
