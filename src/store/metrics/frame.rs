//! A sample as its row holds it.

use std::io::Read;

use agent_protocol::tree_bytes;
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    store::{StoreError, column::storable},
    vm::MetricsSample,
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
        let text = |key| sample.system.get(key).filter(|value| !value.is_null()).map(Value::to_string);
        let system = pack(&sample.system).map_err(|error| StoreError::Corrupt {
            operation: "compressing a reading",
            reason: error.to_string(),
        })?;
        Ok(Self {
            id: sample.id,
            vm: sample.vm.uuid(),
            timestamp: storable(sample.timestamp),
            cpu_usage: sample.cpu_usage,
            memory_used: sample.memory_used,
            memory_total: sample.memory_total,
            disk_usage: text("disk"),
            network_stats: text("network"),
            system,
            created_at: storable(sample.received_at),
        })
    }
}

fn pack(system: &Value) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(system.to_string().as_bytes(), LEVEL)
}

/// Unpacks, within a bound: what stands in the database may not have been written by us. Gives
/// the frame, its size as text and what it takes in memory.
pub(super) fn unpack(packed: &[u8]) -> Result<(Value, usize, usize), String> {
    let mut text = Vec::new();
    let decoder = zstd::stream::Decoder::new(packed).map_err(|error| error.to_string())?;
    decoder.take(MAX_UNPACKED + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_UNPACKED {
        return Err(format!("a frame unpacks to more than {MAX_UNPACKED} bytes"));
    }
    let frame = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    Ok((frame, text.len(), tree_bytes(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let frame = serde_json::json!({ "cpu": { "usage_percent": 1.5 }, "odd": "\u{0}é\"", "n": [1, null] });
        let text = frame.to_string();
        let unpacked = unpack(&pack(&frame).unwrap()).unwrap();
        assert_eq!(unpacked, (frame, text.len(), tree_bytes(text.as_bytes())));
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
