//! Whether a qcow2 file has everything that its tables point at: one that was cut short begins
//! like a whole one, and would fail its guest much later.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::incoming::DiskRefusal;

/// QEMU's own limit of the first table, bytes.
const MAX_L1: u64 = 32 << 20;
/// Tables of the second level that are read, bytes; those of a disk of 8 TiB.
const MAX_L2: u64 = 1 << 30;
/// Where an entry points to.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const EXTENDED_L2: u64 = 1 << 4;

/// Looks up every place that the tables name. The head was checked before.
pub(super) fn check(file: &File, length: u64) -> Result<(), DiskRefusal> {
    let mut head = [0; 104];
    let known = usize::try_from(length.min(104)).unwrap_or(104);
    file.read_exact_at(&mut head[..known], 0).map_err(DiskRefusal::Read)?;
    let number =
        |at: usize| u64::from(u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let place = |at: usize| number(at) << 32 | number(at + 4);
    let cluster = 1_u64 << number(20);
    let extended = number(4) == 3 && place(72) & EXTENDED_L2 != 0;
    let (l1, l1_bytes) = (place(40), number(36) * 8);
    if l1_bytes > MAX_L1 {
        return Err(DiskRefusal::Unusable("its first table is longer than QEMU takes".to_owned()));
    }
    let first = table(file, length, l1, l1_bytes)?;
    table_is_there(length, place(48), number(56) * cluster)?;
    let (step, mut read) = (if extended { 16 } else { 8 }, 0_u64);
    for entry in entries(&first, 8).map(|entry| entry & OFFSET).filter(|entry| *entry != 0) {
        read += cluster;
        if read > MAX_L2 {
            return Err(DiskRefusal::Unusable("it has more tables than are looked at".to_owned()));
        }
        for entry in entries(&table(file, length, entry, cluster)?, step) {
            let target = if entry & COMPRESSED == 0 {
                entry & OFFSET
            } else {
                // Place and number of sectors share the entry; the place is its lower part.
                entry & ((1 << (62 - (number(20) - 8))) - 1)
            };
            if target >= length && target != 0 {
                return Err(cut(length));
            }
        }
    }
    Ok(())
}

fn cut(length: u64) -> DiskRefusal {
    DiskRefusal::Truncated(format!("the disk is cut short: its tables name places after its {length} bytes"))
}

fn table_is_there(length: u64, at: u64, bytes: u64) -> Result<(), DiskRefusal> {
    match at.checked_add(bytes) {
        Some(end) if end <= length => Ok(()),
        _ => Err(cut(length)),
    }
}

fn table(file: &File, length: u64, at: u64, bytes: u64) -> Result<Vec<u8>, DiskRefusal> {
    table_is_there(length, at, bytes)?;
    let mut table = vec![0; usize::try_from(bytes).map_err(io::Error::other).map_err(DiskRefusal::Read)?];
    file.read_exact_at(&mut table, at).map_err(DiskRefusal::Read)?;
    Ok(table)
}

fn entries(table: &[u8], step: usize) -> impl Iterator<Item = u64> {
    table
        .chunks_exact(step)
        .filter_map(|entry| entry.first_chunk::<8>())
        .map(|entry| u64::from_be_bytes(*entry))
}
