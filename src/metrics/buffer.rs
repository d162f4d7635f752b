//! Readings on their way to the database, in order, bounded in number and in bytes.

use std::collections::VecDeque;

use crate::vm::MetricsSample;

/// Bytes of buffered frames (as JSON) at most.
const MAX_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Buffer {
    rows: VecDeque<Row>,
    bytes: usize,
    max_rows: usize,
}

#[derive(Debug)]
struct Row {
    sample: MetricsSample,
    bytes: usize,
}

/// What was taken out to be stored.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) samples: Vec<MetricsSample>,
    sizes: Vec<usize>,
}

impl Buffer {
    pub(super) fn new(max_rows: usize) -> Self {
        Self { rows: VecDeque::new(), bytes: 0, max_rows }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a reading of that many bytes; gives how many older ones were dropped for it.
    pub(super) fn push(&mut self, sample: MetricsSample, bytes: usize) -> u64 {
        self.rows.push_back(Row { sample, bytes });
        self.bytes += bytes;
        self.shrink()
    }

    /// The oldest readings, at most `max`.
    pub(super) fn take(&mut self, max: usize) -> Batch {
        let mut batch = Batch::default();
        for row in self.rows.drain(..max.min(self.rows.len())) {
            self.bytes -= row.bytes;
            batch.samples.push(row.sample);
            batch.sizes.push(row.bytes);
        }
        batch
    }

    /// Puts back what could not be stored, before what came meanwhile; gives how many of the
    /// oldest were dropped.
    pub(super) fn put_back(&mut self, batch: Batch) -> u64 {
        for (sample, bytes) in batch.samples.into_iter().zip(batch.sizes).rev() {
            self.bytes += bytes;
            self.rows.push_front(Row { sample, bytes });
        }
        self.shrink()
    }

    fn shrink(&mut self) -> u64 {
        let mut dropped = 0;
        while self.rows.len() > self.max_rows || self.bytes > MAX_BYTES {
            let Some(oldest) = self.rows.pop_front() else { break };
            self.bytes -= oldest.bytes;
            dropped += 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;
    use serde_json::Value;
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

    fn numbers(batch: &Batch) -> Vec<i64> {
        batch.samples.iter().map(|sample| sample.memory_used).collect()
    }

    #[test]
    fn a_failed_batch_goes_back_before_what_came_meanwhile() {
        let mut buffer = Buffer::new(10);
        for number in 0..4 {
            buffer.push(sample(number), 1);
        }
        let batch = buffer.take(3);
        assert_eq!(numbers(&batch), [0, 1, 2]);
        buffer.push(sample(4), 1);
        assert_eq!(buffer.put_back(batch), 0);
        assert_eq!(numbers(&buffer.take(100)), [0, 1, 2, 3, 4]);
        assert_eq!((buffer.len(), buffer.bytes), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut buffer = Buffer::new(1000);
        let half = MAX_BYTES / 2;
        assert_eq!((0..4).map(|n| buffer.push(sample(n), half)).collect::<Vec<_>>(), [0, 0, 1, 1]);
        assert_eq!(numbers(&buffer.take(100)), [2, 3]);
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
                        dropped += buffer.push(sample(next), 1);
                        next += 1;
                    },
                    2 => stored.extend(numbers(&buffer.take(count))),
                    _ => {
                        let batch = buffer.take(count);
                        dropped += buffer.push(sample(next), 1);
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
