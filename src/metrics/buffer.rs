//! Readings on their way to the database, in order, bounded in number and in bytes.
//!
//! Frames wait as text, which takes what it says; as trees they would take many times that. Only
//! the batch that is being stored is read.

use std::collections::VecDeque;

use agent_protocol::tree_bytes;
use serde_json::Value;

use crate::vm::MetricsSample;

/// Bytes of buffered frames (as JSON) at most.
const MAX_BYTES: usize = 64 << 20;

/// What the frames of one batch may take in memory once they are read.
const MAX_BATCH_TREE: usize = 64 << 20;

/// Frames read between two chances for other tasks.
const FRAMES_AT_ONCE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Buffer {
    rows: VecDeque<Row>,
    bytes: usize,
    max_rows: usize,
}

#[derive(Debug)]
struct Row {
    /// Without its frame.
    sample: MetricsSample,
    text: String,
}

/// What was taken out to be stored.
#[derive(Debug, Default)]
pub(super) struct Batch {
    samples: Vec<MetricsSample>,
    texts: Vec<String>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The readings, with their frames once [`Batch::read`] has ended.
    pub(super) fn samples(&self) -> &[MetricsSample] {
        &self.samples
    }

    /// Reads the frames.
    pub(super) async fn read(&mut self) {
        for (index, (sample, text)) in self.samples.iter_mut().zip(&self.texts).enumerate() {
            if index % FRAMES_AT_ONCE == FRAMES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match serde_json::from_str(text) {
                Ok(system) => sample.system = system,
                // We wrote it. What is charted is stored all the same.
                Err(error) => tracing::error!(vm = %sample.vm, %error, "a buffered frame cannot be read"),
            }
        }
    }
}

impl Buffer {
    pub(super) fn new(max_rows: usize) -> Self {
        Self { rows: VecDeque::new(), bytes: 0, max_rows }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a reading, whose frame is this text; gives how many older ones were dropped for it.
    pub(super) fn push(&mut self, sample: MetricsSample, text: String) -> u64 {
        self.bytes += text.len();
        self.rows.push_back(Row { sample, text });
        self.shrink()
    }

    /// The oldest readings, at most `max`, and no more than may be read at once.
    pub(super) fn take(&mut self, max: usize) -> Batch {
        let (mut batch, mut tree) = (Batch::default(), 0);
        while let Some(row) = self.rows.front()
            && batch.len() < max
        {
            tree += tree_bytes(row.text.as_bytes());
            if tree > MAX_BATCH_TREE && batch.len() > 0 {
                break;
            }
            let Some(Row { sample, text }) = self.rows.pop_front() else { break };
            self.bytes -= text.len();
            batch.samples.push(sample);
            batch.texts.push(text);
        }
        batch
    }

    /// Puts back what could not be stored, before what came meanwhile; gives how many of the
    /// oldest were dropped.
    pub(super) fn put_back(&mut self, batch: Batch) -> u64 {
        for (sample, text) in batch.samples.into_iter().zip(batch.texts).rev() {
            self.bytes += text.len();
            self.rows.push_front(Row { sample: MetricsSample { system: Value::Null, ..sample }, text });
        }
        self.shrink()
    }

    fn shrink(&mut self) -> u64 {
        let mut dropped = 0;
        while self.rows.len() > self.max_rows || self.bytes > MAX_BYTES {
            let Some(oldest) = self.rows.pop_front() else { break };
            self.bytes -= oldest.text.len();
            dropped += 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::vm::VmId;

    fn sample(number: i64) -> MetricsSample {
        MetricsSample {
            id: Uuid::now_v7(),
            vm: VmId::generate(),
            timestamp: Utc::now(),
            received_at: Utc::now(),
            cpu_usage: 0.0,
            memory_used: number,
            memory_total: number,
            system: Value::Null,
        }
    }

    fn text() -> String {
        "7".to_owned()
    }

    fn numbers(batch: &Batch) -> Vec<i64> {
        batch.samples.iter().map(|sample| sample.memory_used).collect()
    }

    #[test]
    fn a_failed_batch_goes_back_before_what_came_meanwhile() {
        let mut buffer = Buffer::new(10);
        for number in 0..4 {
            buffer.push(sample(number), text());
        }
        let batch = buffer.take(3);
        assert_eq!(numbers(&batch), [0, 1, 2]);
        buffer.push(sample(4), text());
        assert_eq!(buffer.put_back(batch), 0);
        assert_eq!(numbers(&buffer.take(100)), [0, 1, 2, 3, 4]);
        assert_eq!((buffer.len(), buffer.bytes), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut buffer = Buffer::new(1000);
        let half = " ".repeat(MAX_BYTES / 2);
        assert_eq!((0..4).map(|n| buffer.push(sample(n), half.clone())).collect::<Vec<_>>(), [0, 0, 1, 1]);
        // Two of them are too many for one batch.
        assert_eq!([buffer.take(100), buffer.take(100)].map(|batch| numbers(&batch)), [[2], [3]]);
    }

    #[tokio::test]
    async fn frames_wait_as_text_and_are_read_in_bounded_batches() {
        let mut buffer = Buffer::new(1000);
        let hostile = format!("[{}0]", r#"{"a":0},"#.repeat(16 << 10));
        for number in 0..10 {
            buffer.push(sample(number), hostile.clone());
        }
        let mut batch = buffer.take(10);
        assert!((1..10).contains(&batch.len()), "{} trees at once", batch.len());
        assert!(batch.samples().iter().all(|sample| sample.system.is_null()));
        batch.read().await;
        assert!(
            batch.samples().iter().all(|sample| sample.system.as_array().is_some_and(|a| a.len() > 16 << 10))
        );
        buffer.put_back(batch);
        assert!(buffer.rows.iter().all(|row| row.sample.system.is_null()), "a tree was kept");
        assert_eq!((buffer.len(), buffer.bytes), (10, 10 * hostile.len()));
    }

    proptest! {
        #[test]
        fn order_is_kept_and_only_the_oldest_go(
            steps in proptest::collection::vec((0u8..4, 1usize..6), 1..60),
            max_rows in 1usize..8,
        ) {
            let mut buffer = Buffer::new(max_rows);
            let (mut next, mut dropped, mut stored) = (0i64, 0u64, Vec::new());
            for (step, count) in steps {
                match step {
                    0 | 1 => for _ in 0..count {
                        dropped += buffer.push(sample(next), text());
                        next += 1;
                    },
                    2 => stored.extend(numbers(&buffer.take(count))),
                    _ => {
                        let batch = buffer.take(count);
                        dropped += buffer.push(sample(next), text());
                        next += 1;
                        dropped += buffer.put_back(batch);
                    }
                }
                prop_assert!(buffer.len() <= max_rows && buffer.bytes == buffer.len());
            }
            stored.extend(numbers(&buffer.take(usize::MAX)));
            prop_assert!(stored.is_sorted());
            prop_assert_eq!(stored.len() as u64 + dropped, u64::try_from(next).unwrap());
        }
    }
}
