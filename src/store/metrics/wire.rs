//! A packed sample as bytes, for a disk and back. Whoever keeps them checks that they are whole.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::PackedSample;
use crate::vm::{DiskRates, NetworkRates, Readings};

/// A field that is not told: no valid reading is NaN.
const UNTOLD: f64 = f64::NAN;

impl PackedSample {
    /// Appends its bytes.
    pub fn write_to(&self, bytes: &mut Vec<u8>) {
        let Readings { cpu_usage, memory_used, memory_total, disk, network } = self.readings;
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.vm.uuid().as_bytes());
        for number in [
            self.timestamp.timestamp_micros(),
            self.received_at.timestamp_micros(),
            memory_used,
            memory_total,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        let (read, written) = disk.map_or((UNTOLD, UNTOLD), |disk| (disk.read, disk.written));
        let (received, sent) = network.map_or((UNTOLD, UNTOLD), |network| (network.received, network.sent));
        for number in [cpu_usage, read, written, received, sent] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(&self.frame);
    }

    /// Reads what [`PackedSample::write_to`] wrote; `None`: something else.
    #[must_use]
    pub fn read_from(mut bytes: &[u8]) -> Option<Self> {
        let id = Uuid::from_bytes(*bytes.split_off(..16)?.first_chunk()?);
        let vm = Uuid::from_bytes(*bytes.split_off(..16)?.first_chunk()?).into();
        let mut number = || Some(*bytes.split_off(..8)?.first_chunk()?);
        let timestamp: DateTime<Utc> = DateTime::from_timestamp_micros(i64::from_le_bytes(number()?))?;
        let received_at = DateTime::from_timestamp_micros(i64::from_le_bytes(number()?))?;
        let (memory_used, memory_total) = (i64::from_le_bytes(number()?), i64::from_le_bytes(number()?));
        let cpu_usage = f64::from_le_bytes(number()?);
        let mut pair = || {
            let (first, second) = (f64::from_le_bytes(number()?), f64::from_le_bytes(number()?));
            Some((!first.is_nan() && !second.is_nan()).then_some((first, second)))
        };
        let disk = pair()?.map(|(read, written)| DiskRates { read, written });
        let network = pair()?.map(|(received, sent)| NetworkRates { received, sent });
        let readings = Readings { cpu_usage, memory_used, memory_total, disk, network };
        Some(Self { id, vm, timestamp, received_at, readings, frame: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vm::VmId;

    proptest! {
        #[test]
        fn a_sample_comes_back_as_it_went(
            times in (-62_135_596_800_000_000_i64..253_402_300_799_000_000, 0..253_402_300_799_000_000_i64),
            memory: (i64, i64),
            cpu_usage in 0.0..100.0,
            disk in proptest::option::of((0.0..1e15, 0.0..1e15)),
            network in proptest::option::of((0.0..1e15, 0.0..1e15)),
            frame: Vec<u8>,
        ) {
            let at = |micros| DateTime::from_timestamp_micros(micros).unwrap();
            let sample = PackedSample {
                id: Uuid::now_v7(),
                vm: VmId::generate(),
                timestamp: at(times.0),
                received_at: at(times.1),
                readings: Readings {
                    cpu_usage,
                    memory_used: memory.0,
                    memory_total: memory.1,
                    disk: disk.map(|(read, written)| DiskRates { read, written }),
                    network: network.map(|(received, sent)| NetworkRates { received, sent }),
                },
                frame,
            };
            let mut bytes = Vec::new();
            sample.write_to(&mut bytes);
            prop_assert_eq!(PackedSample::read_from(&bytes), Some(sample));
        }

        #[test]
        fn anything_else_is_no_sample_or_a_sample(bytes: Vec<u8>) {
            let read = PackedSample::read_from(&bytes);
            prop_assert!(bytes.len() >= 104 || read.is_none());
        }
    }
}
