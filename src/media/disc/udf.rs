//! UDF (ECMA-167), as far as Windows' discs use it: revision 1.02 or 1.50, one plain partition.

use super::{Disc, Extents, MAX_DIRECTORY, MAX_EXTENTS, SECTOR, size, u16_at, u32_at, u64_at};

/// Where the anchor stands.
const ANCHOR: u64 = 256;
/// Volume descriptors that are looked at.
const MAX_DESCRIPTORS: u64 = 64;

/// A volume.
pub(super) struct Udf {
    /// Where the partition begins, bytes.
    partition: u64,
    /// Where it ends, bytes.
    end: u64,
    /// Where the root directory's file entry stands in it, blocks.
    root: u32,
}

/// What a file entry says.
struct FileEntry {
    directory: bool,
    bytes: Extents,
}

impl Udf {
    /// Where there is one that can be read.
    pub(super) fn open(disc: &Disc<'_>) -> Option<Self> {
        let anchor = tagged(disc.sector(ANCHOR)?, 2)?;
        let sectors = u64::from(u32_at(&anchor, 16)?) / SECTOR;
        let first = u64::from(u32_at(&anchor, 20)?);
        let (mut partition, mut files) = (None, None);
        for sector in first..first.checked_add(sectors.min(MAX_DESCRIPTORS))? {
            let descriptor = disc.sector(sector)?;
            match u16_at(&descriptor, 0)? {
                5 => {
                    let begin = u64::from(u32_at(&descriptor, 188)?) * SECTOR;
                    partition = Some((begin, begin + u64::from(u32_at(&descriptor, 192)?) * SECTOR));
                }
                6 => {
                    // One map, of type 1: a partition without tables of its own.
                    let plain = u32_at(&descriptor, 212)? == 2048
                        && u32_at(&descriptor, 268)? == 1
                        && descriptor[440] == 1;
                    files = plain.then(|| u32_at(&descriptor, 252)).flatten();
                }
                8 => break,
                _ => {}
            }
        }
        let (partition, end) = partition?;
        let files = tagged(disc.read(at(partition, files?)?, SECTOR)?, 256)?;
        Some(Self { partition, end, root: u32_at(&files, 404)? })
    }

    /// How long the disc must be for all of the partition to be there, bytes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// A file, by its path, in any case.
    pub(super) fn find(&self, disc: &Disc<'_>, path: &str) -> Option<Extents> {
        let mut here = self.entry(disc, self.root)?;
        for part in path.split('/') {
            if !here.directory {
                return None;
            }
            here = self.entry(disc, self.named(disc, &here.bytes, part)?)?;
        }
        (!here.directory).then_some(here.bytes)
    }

    /// Where the file entry of that name stands.
    fn named(&self, disc: &Disc<'_>, directory: &Extents, name: &str) -> Option<u32> {
        let bytes = disc.read_of(directory, 0, directory.length().min(MAX_DIRECTORY))?;
        let mut rest = bytes.as_slice();
        while u16_at(rest, 0)? == 257 {
            let characteristics = *rest.get(18)?;
            let (id, system) = (usize::from(*rest.get(19)?), usize::from(u16_at(rest, 36)?));
            let begin = 38 + system;
            let text = rest.get(begin..begin + id)?;
            // Neither deleted nor the parent.
            if characteristics & 0x0c == 0
                && decoded(text).is_some_and(|text| text.eq_ignore_ascii_case(name))
            {
                return u32_at(rest, 24);
            }
            rest = rest.get((begin + id).next_multiple_of(4)..)?;
        }
        None
    }

    fn entry(&self, disc: &Disc<'_>, block: u32) -> Option<FileEntry> {
        let place = at(self.partition, block)?;
        let entry = disc.read(place, SECTOR)?;
        let (attributes, allocation) = match u16_at(&entry, 0)? {
            261 => (168, 176),
            266 => (208, 216),
            _ => return None,
        };
        let begin = size(u32_at(&entry, attributes)?).checked_add(allocation)?;
        let length = size(u32_at(&entry, attributes + 4)?);
        let descriptors = entry.get(begin..begin.checked_add(length)?)?;
        let mut left = u64_at(&entry, 56)?;
        let mut bytes = Extents::default();
        let step = match u16_at(&entry, 34)? & 7 {
            0 => 8,
            1 => 16,
            // The bytes themselves stand here.
            3 => {
                let length = u64::try_from(length).ok().filter(|length| left <= *length).map(|_| left)?;
                bytes.0.push((place + u64::try_from(begin).ok()?, length));
                left = 0;
                descriptors.len() + 1
            }
            _ => return None,
        };
        for descriptor in descriptors.chunks_exact(step).take(MAX_EXTENTS) {
            let length = u32_at(descriptor, 0)?;
            let (kind, length) = (length >> 30, u64::from(length & 0x3fff_ffff).min(left));
            if length == 0 {
                break;
            }
            // Bytes that were never written, or a list that goes on elsewhere: no disc has these.
            if kind != 0 {
                return None;
            }
            bytes.0.push((at(self.partition, u32_at(descriptor, 4)?)?, length));
            left -= length;
        }
        // Pieces that are not listed are no file to be trusted.
        if left > 0 {
            return None;
        }
        Some(FileEntry { directory: *entry.get(27)? == 4, bytes })
    }
}

/// A block of the partition, bytes from the disc's beginning.
fn at(partition: u64, block: u32) -> Option<u64> {
    partition.checked_add(u64::from(block) * SECTOR)
}

fn tagged(descriptor: Vec<u8>, tag: u16) -> Option<Vec<u8>> {
    (u16_at(&descriptor, 0)? == tag).then_some(descriptor)
}

/// A name: its first byte says how many bits a character has.
fn decoded(name: &[u8]) -> Option<String> {
    let (kind, text) = name.split_first()?;
    match kind {
        8 => Some(text.iter().map(|&byte| char::from(byte)).collect()),
        16 => {
            let units: Vec<u16> =
                text.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            Some(String::from_utf16_lossy(&units))
        }
        _ => None,
    }
}
