//! A sample as its row holds it.

use std::io::Read;

use agent_protocol::tree_bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    store::{StoreError, column::storable},
    vm::{FrameText, MetricsSample},
};

/// Weighed against time on frames as agents send them: a third of the size for a tenth of a
/// millisecond; higher levels cost much and give little.
const LEVEL: i32 = 3;

/// A frame unpacks to at most this: twice the longest line a guest may ever be allowed.
const MAX_UNPACKED: u64 = 32 << 20;

pub(super) struct StoredSample {
    pub(super) id: Uuid,
    pub(super) vm: Uuid,
    pub(super) timestamp: DateTime<Utc>,
    pub(super) cpu_usage: f64,
    pub(super) memory_used: i64,
    pub(super) memory_total: i64,
    pub(super) disk_usage: Option<String>,
    pub(super) network_stats: Option<String>,
    pub(super) system: Vec<u8>,
    pub(super) created_at: DateTime<Utc>,
}

impl StoredSample {
    pub(super) fn pack(sample: &MetricsSample) -> Result<Self, StoreError> {
        let system = pack(&sample.frame).map_err(|error| StoreError::Corrupt {
            operation: "compressing a reading",
            reason: error.to_string(),
        })?;
        Ok(Self {
            id: sample.id,
            vm: sample.vm.uuid(),
            timestamp: storable(sample.timestamp),
            cpu_usage: sample.readings.cpu_usage,
            memory_used: sample.readings.memory_used,
            memory_total: sample.readings.memory_total,
            disk_usage: None,
            network_stats: None,
            system,
            created_at: storable(sample.received_at),
        })
    }
}

fn pack(frame: &FrameText) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(frame.as_str().as_bytes(), LEVEL)
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
        let unpacked = unpack(&pack(&frame).unwrap()).unwrap();
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
}
