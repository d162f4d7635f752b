//! One file of the spool: records one after another, each its length, its checksum and a packed
//! sample. It is only ever appended to; what a crash tore, or a disk spoiled, ends it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::store::PackedSample;

/// Length and checksum, four bytes each, little endian.
const HEADER: usize = 8;

/// No segment of ours is larger: the longest frame, some more than once.
const MAX_FILE: u64 = 128 << 20;

/// What of a segment cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// The last record is not whole: a crash while it was written.
    Torn,
    /// A record is not what was written.
    Spoiled,
}

impl Damage {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Spoiled => "spoiled",
        }
    }
}

/// What a segment holds.
#[derive(Debug, PartialEq)]
pub(super) struct Content {
    pub(super) samples: Vec<PackedSample>,
    /// Bytes up to the damage, or all.
    pub(super) good: u64,
    pub(super) damage: Option<Damage>,
}

/// Appends a sample's record.
pub(super) fn write_record(bytes: &mut Vec<u8>, sample: &PackedSample) {
    let start = bytes.len();
    bytes.extend([0; HEADER]);
    sample.write_to(bytes);
    let payload = start + HEADER;
    // No frame comes near 4 GiB.
    let length = u32::try_from(bytes.len() - payload).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(&bytes[payload..]);
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    bytes[start + 4..payload].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads records until the end or the first that cannot be.
pub(super) fn parse(bytes: &[u8]) -> Content {
    let mut samples = Vec::new();
    let mut rest = bytes;
    let damage = loop {
        if rest.is_empty() {
            break None;
        }
        match record(rest) {
            Ok((sample, after)) => {
                samples.push(sample);
                rest = after;
            }
            Err(damage) => break Some(damage),
        }
    };
    Content { samples, good: (bytes.len() - rest.len()) as u64, damage }
}

fn record(bytes: &[u8]) -> Result<(PackedSample, &[u8]), Damage> {
    let (length, after) = bytes.split_first_chunk().ok_or(Damage::Torn)?;
    let (checksum, after) = after.split_first_chunk().ok_or(Damage::Torn)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Damage::Spoiled)?;
    let (payload, after) = after.split_at_checked(length).ok_or(Damage::Torn)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return Err(Damage::Spoiled);
    }
    PackedSample::read_from(payload).map(|sample| (sample, after)).ok_or(Damage::Spoiled)
}

/// Reads a segment; what is damaged is cut off, so that it is found once.
pub(super) fn read(path: &Path) -> io::Result<Content> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    (&file).take(MAX_FILE).read_to_end(&mut bytes)?;
    let content = parse(&bytes);
    if content.damage.is_some()
        && let Err(error) =
            OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(content.good))
    {
        tracing::debug!(%error, path = %path.display(), "a damaged segment could not be cut");
    }
    Ok(content)
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    bytes: u64,
}

impl Writer {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, bytes: 0 })
    }

    /// Appends, down to the disk; all or nothing, as far as the disk lets us.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::vm::{FrameText, MetricsSample, Readings, VmId};

    fn samples(count: usize) -> Vec<PackedSample> {
        let sample = |n: usize| MetricsSample {
            id: Uuid::now_v7(),
            vm: VmId::generate(),
            timestamp: Utc::now(),
            received_at: Utc::now(),
            readings: Readings { cpu_usage: 1.0, memory_used: 1, memory_total: 2, disk: None, network: None },
            frame: FrameText::new("{}".repeat(n + 1)),
        };
        PackedSample::pack(&(0..count).map(sample).collect::<Vec<_>>()).0
    }

    fn written(samples: &[PackedSample]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for sample in samples {
            write_record(&mut bytes, sample);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn a_tail_torn_anywhere_costs_the_torn_record_alone(cut in 0.0..1.0f64) {
            let samples = samples(5);
            let (bytes, ends) = written(&samples);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let cut = (cut * bytes.len() as f64) as usize;
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let content = parse(&bytes[..cut]);
            prop_assert_eq!(&content.samples, &samples[..whole]);
            prop_assert_eq!(content.good, ends[whole] as u64);
            prop_assert_eq!(content.damage, (ends[whole] != cut).then_some(Damage::Torn));
        }

        #[test]
        fn a_changed_byte_never_makes_another_sample(at in 0usize..100_000, flip in 1u8..) {
            let samples = samples(5);
            let (mut bytes, ends) = written(&samples);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let whole = ends.iter().filter(|end| **end <= at).count() - 1;
            let content = parse(&bytes);
            prop_assert!(content.damage.is_some());
            prop_assert_eq!(&content.samples, &samples[..whole]);
        }

        #[test]
        fn anything_at_all_is_read_without_harm(bytes: Vec<u8>) {
            let content = parse(&bytes);
            prop_assert!(content.good <= bytes.len() as u64);
        }
    }
}
