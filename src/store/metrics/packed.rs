//! A sample as its row holds it.

use std::io::Read;

use agent_protocol::tree_bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    store::column::storable,
    vm::{DiskRates, FrameText, MetricsSample, NetworkRates, Readings, VmId},
};

/// Weighed against time on frames as agents send them: a third of the size or less for some ten
/// microseconds. Level 1 takes nearly as long, higher ones cost twice that and give little.
const LEVEL: i32 = 3;

/// A frame unpacks to at most this: twice the longest line a guest may ever be allowed.
const MAX_UNPACKED: u64 = 32 << 20;

/// No disk and no network moves more bytes per second. What a guest says beyond that is not told:
/// its sum with others might be more than the database can count.
const MAX_RATE: f64 = 1e15;

/// What is less than this is zero: no machine measures it, and a database's arithmetic may refuse
/// numbers near the smallest there are.
const MIN_NUMBER: f64 = 1e-9;

/// A reading as its row holds it: the frame compressed, nothing in it that a database refuses.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedSample {
    pub(crate) id: Uuid,
    pub(crate) vm: VmId,
    pub(crate) timestamp: DateTime<Utc>,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) readings: Readings,
    pub(crate) frame: Vec<u8>,
}

impl PackedSample {
    /// Compresses each; work for a thread that may be busy for a while. The second are those
    /// that could not be compressed.
    #[must_use]
    pub fn pack(samples: &[MetricsSample]) -> (Vec<Self>, Vec<Uuid>) {
        let (mut packed, mut failed) = (Vec::with_capacity(samples.len()), Vec::new());
        let mut packer = Packer::default();
        for sample in samples {
            match packer.pack(&sample.frame) {
                Ok(frame) => packed.push(Self::new(sample, frame)),
                Err(_) => failed.push(sample.id),
            }
        }
        (packed, failed)
    }

    fn new(sample: &MetricsSample, frame: Vec<u8>) -> Self {
        Self {
            id: sample.id,
            vm: sample.vm,
            timestamp: storable(sample.timestamp),
            received_at: storable(sample.received_at),
            readings: storable_readings(sample.readings),
            frame,
        }
    }

    /// The guest's clock.
    #[must_use]
    pub fn timestamp(&self) -> DateTime<Utc> {
        self.timestamp
    }

    /// The sample's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }
}

fn storable_readings(readings: Readings) -> Readings {
    let told = |first: f64, second: f64| {
        let sane = |rate: f64| (0.0..=MAX_RATE).contains(&rate);
        (sane(first) && sane(second)).then(|| (rounded(first), rounded(second)))
    };
    let disk = readings.disk.and_then(|disk| told(disk.read, disk.written));
    let network = readings.network.and_then(|network| told(network.received, network.sent));
    Readings {
        cpu_usage: rounded(readings.cpu_usage),
        disk: disk.map(|(read, written)| DiskRates { read, written }),
        network: network.map(|(received, sent)| NetworkRates { received, sent }),
        ..readings
    }
}

/// Without what is next to nothing.
fn rounded(number: f64) -> f64 {
    if number.abs() < MIN_NUMBER { 0.0 } else { number }
}

/// One compressor for many frames: making it costs as much as two frames.
#[derive(Default)]
struct Packer(Option<zstd::bulk::Compressor<'static>>);

impl Packer {
    fn pack(&mut self, frame: &FrameText) -> std::io::Result<Vec<u8>> {
        if self.0.is_none() {
            self.0 = Some(zstd::bulk::Compressor::new(LEVEL)?);
        }
        match &mut self.0 {
            Some(compressor) => compressor.compress(frame.as_str().as_bytes()),
            None => Err(std::io::ErrorKind::OutOfMemory.into()),
        }
    }
}

/// Unpacks, within a bound: what stands in the database may not have been written by us. Gives
/// the frame and what it takes in memory as a tree.
pub(super) fn unpack(packed: &[u8]) -> Result<(FrameText, usize), String> {
    let mut text = Vec::new();
    let decoder = zstd::stream::Decoder::new(packed).map_err(|error| error.to_string())?;
    decoder.take(MAX_UNPACKED + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_UNPACKED {
        return Err(format!("a frame unpacks to more than {MAX_UNPACKED} bytes"));
    }
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|error| error.to_string())?;
    let tree = tree_bytes(text.as_bytes());
    Ok((FrameText::new(text), tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let frame = serde_json::json!({ "cpu": { "usage_percent": 1.5 }, "odd": "\u{0}é\"", "n": [1, null] });
        let frame = FrameText::from(&frame);
        let unpacked = unpack(&Packer::default().pack(&frame).unwrap()).unwrap();
        assert_eq!(unpacked, (frame.clone(), tree_bytes(frame.as_str().as_bytes())));
    }

    #[test]
    fn a_bomb_is_refused() {
        let spaces = vec![b' '; usize::try_from(MAX_UNPACKED + 1).unwrap()];
        let bomb = zstd::bulk::compress(&spaces, LEVEL).unwrap();
        assert!(bomb.len() < 10_000);
        assert!(unpack(&bomb).unwrap_err().contains("unpacks to more than"));
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(unpack(b"rubbish").is_err());
        assert!(unpack(&zstd::bulk::compress(b"{", LEVEL).unwrap()).is_err());
    }

    #[test]
    fn rates_that_no_machine_has_are_not_told() {
        let told = |read, sent| {
            let readings = storable_readings(Readings {
                cpu_usage: 0.0,
                memory_used: 0,
                memory_total: 0,
                disk: Some(DiskRates { read, written: 0.0 }),
                network: Some(NetworkRates { received: 0.0, sent }),
            });
            (readings.disk.is_some(), readings.network.is_some())
        };
        assert_eq!(told(0.0, MAX_RATE), (true, true));
        assert_eq!(told(f64::NAN, -1.0), (false, false));
        assert_eq!(told(f64::MAX, f64::INFINITY), (false, false));
    }

    #[test]
    fn next_to_nothing_is_nothing() {
        let tiny = f64::from_bits(1);
        let readings = storable_readings(Readings {
            cpu_usage: tiny,
            memory_used: 1,
            memory_total: 2,
            disk: Some(DiskRates { read: tiny, written: 1e-9 }),
            network: Some(NetworkRates { received: 9e-10, sent: -0.0 }),
        });
        assert_eq!(readings.cpu_usage.to_bits(), 0);
        assert_eq!(readings.disk, Some(DiskRates { read: 0.0, written: 1e-9 }));
        assert_eq!(readings.network, Some(NetworkRates { received: 0.0, sent: 0.0 }));
    }
}
