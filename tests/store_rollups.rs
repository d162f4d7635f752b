//! Roll-ups are at any time what a fold of all stored readings gives, in whatever order these came
//! and however often, and they outlive them.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    store::Store,
    vm::{DiskRates, MetricsSample, NetworkRates, Resolution, SeriesField, SeriesPoint, SeriesRequest, VmId},
};
use support::sample::{now, sample};

const ALL: [SeriesField; 7] = [
    SeriesField::CpuUsage,
    SeriesField::MemoryUsed,
    SeriesField::MemoryTotal,
    SeriesField::DiskRead,
    SeriesField::DiskWritten,
    SeriesField::NetworkReceived,
    SeriesField::NetworkSent,
];

async fn points(store: &Store, vm: VmId, resolution: Resolution) -> Vec<SeriesPoint> {
    let request = SeriesRequest {
        vm,
        from: DateTime::<Utc>::MIN_UTC,
        to: DateTime::<Utc>::MAX_UTC,
        resolution,
        fields: ALL.to_vec(),
    };
    let series = store.series(&request, 100_000).await.unwrap();
    assert!(!series.truncated);
    series.points
}

/// What the points should be: begun at, count, and of each field lowest, sum and highest.
type Folded = BTreeMap<DateTime<Utc>, (i64, Vec<Vec<f64>>)>;

fn fold<'a>(samples: impl Iterator<Item = &'a MetricsSample>, width: i64) -> Folded {
    let mut folded = Folded::new();
    for sample in samples {
        let seconds = sample.timestamp.timestamp();
        let at = DateTime::from_timestamp(seconds - seconds % width, 0).unwrap();
        let (count, values) = folded.entry(at).or_insert((0, vec![Vec::new(); ALL.len()]));
        *count += 1;
        for (values, field) in values.iter_mut().zip(ALL) {
            values.extend(field.of(&sample.readings));
        }
    }
    folded
}

fn is_same(got: f64, expected: f64) -> bool {
    (got - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

async fn agree(store: &Store, vm: VmId, samples: &[MetricsSample]) {
    let of_vm = || samples.iter().filter(|sample| sample.vm == vm);
    for (resolution, width) in [(Resolution::FiveMinutes, 300), (Resolution::Hour, 3600)] {
        let (got, expected) = (points(store, vm, resolution).await, fold(of_vm(), width));
        assert_eq!(got.len(), expected.len(), "{resolution:?}");
        for (point, (at, (count, values))) in got.iter().zip(&expected) {
            assert_eq!((point.at, point.count), (*at, *count), "{resolution:?}");
            for ((got, values), field) in point.values.iter().zip(values).zip(ALL) {
                let Some(got) = got else {
                    assert!(values.is_empty(), "{field:?} of {at} is missing");
                    continue;
                };
                #[expect(clippy::cast_precision_loss)]
                let avg = values.iter().sum::<f64>() / values.len() as f64;
                let (min, max) = (
                    values.iter().copied().fold(f64::INFINITY, f64::min),
                    values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                );
                assert!(
                    is_same(got.min, min) && is_same(got.avg, avg) && is_same(got.max, max),
                    "{field:?} of {at}: {got:?}, expected {min} {avg} {max}"
                );
            }
        }
    }
}

/// Numbers that look like chance and come again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    #[expect(clippy::cast_precision_loss)]
    fn number(&mut self, below: u64) -> f64 {
        self.roll(below * 1000) as f64 / 1000.0
    }

    fn sample(&mut self, vm: VmId, start: DateTime<Utc>) -> MetricsSample {
        let at = start + TimeDelta::milliseconds(i64::try_from(self.roll(3 * 3600 * 1000)).unwrap());
        let mut sample = sample(vm, at, self.number(100));
        sample.readings.memory_used = i64::try_from(self.roll(1 << 40)).unwrap();
        sample.readings.memory_total = 1 << 40;
        if self.roll(3) > 0 {
            sample.readings.disk =
                Some(DiskRates { read: self.number(1 << 30), written: self.number(1 << 30) });
        }
        if self.roll(3) > 0 {
            sample.readings.network =
                Some(NetworkRates { received: self.number(1 << 30), sent: self.number(1 << 30) });
        }
        sample
    }
}

on_both! {
    async fn roll_ups_are_the_fold_of_what_is_stored(db: TestDatabase) {
        let store = db.store().await;
        for seed in 0..4 {
            let mut dice = Dice(seed);
            // Across a midnight, and so across two partitions.
            let start: DateTime<Utc> = "2026-02-03T22:30:00Z".parse().unwrap();
            let vms = [VmId::generate(), VmId::generate(), VmId::generate()];
            let mut sent: Vec<MetricsSample> = Vec::new();
            for _ in 0..12 {
                let mut batch = Vec::new();
                for _ in 0..1 + dice.roll(60) {
                    let vm = vms[usize::try_from(dice.roll(3)).unwrap()];
                    batch.push(dice.sample(vm, start));
                }
                // Some come again, of this batch and of earlier ones.
                let earlier = sent.len();
                sent.extend(batch.iter().cloned());
                for _ in 0..dice.roll(20) {
                    batch.push(sent[usize::try_from(dice.roll(sent.len() as u64)).unwrap()].clone());
                }
                assert!(batch.len() >= sent.len() - earlier);
                store.insert_metrics(&batch).await.unwrap();
            }
            for vm in vms {
                agree(&store, vm, &sent).await;
            }
        }
    }

    async fn a_late_reading_finds_its_place(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let hour: DateTime<Utc> = "2026-02-03T04:00:00Z".parse().unwrap();
        let mut sent = vec![
            sample(vm, hour + TimeDelta::seconds(299), 50.0),
            sample(vm, hour + TimeDelta::seconds(300), 60.0),
            sample(vm, hour + TimeDelta::hours(30), 70.0),
        ];
        store.insert_metrics(&sent).await.unwrap();
        sent.push(sample(vm, hour, 10.0));
        store.insert_metrics(&sent[3..]).await.unwrap();
        store.insert_metrics(&sent).await.unwrap();
        agree(&store, vm, &sent).await;
        let first = &points(&store, vm, Resolution::FiveMinutes).await[0];
        let cpu = first.values[0].unwrap();
        assert_eq!((first.at, first.count, cpu.min, cpu.avg, cpu.max), (hour, 2, 10.0, 30.0, 50.0));
    }

    async fn roll_ups_outlive_readings_and_expire_by_width(db: TestDatabase) {
        let store = db.store().await;
        let vms = [VmId::generate(), VmId::generate()];
        let (old, new) = (now() - TimeDelta::days(40), now() - TimeDelta::days(1));
        let both = |at| vms.map(|vm| sample(vm, at, 1.0));
        store.insert_metrics(&[both(old), both(new)].concat()).await.unwrap();
        let before = now() - TimeDelta::days(30);
        assert!(store.expire_metrics(before).await.unwrap() > 0);
        let count = async |vm, resolution| points(&store, vm, resolution).await.len();
        for vm in vms {
            assert_eq!(count(vm, Resolution::Raw).await, 1);
            assert_eq!(count(vm, Resolution::FiveMinutes).await, 2);
            assert_eq!(count(vm, Resolution::Hour).await, 2);
        }
        assert_eq!(store.expire_rollups(Resolution::FiveMinutes, before).await.unwrap(), 2);
        assert_eq!(store.expire_rollups(Resolution::FiveMinutes, before).await.unwrap(), 0);
        for vm in vms {
            assert_eq!(count(vm, Resolution::FiveMinutes).await, 1);
            assert_eq!(count(vm, Resolution::Hour).await, 2);
        }
        assert_eq!(store.expire_rollups(Resolution::Hour, now()).await.unwrap(), 4);
    }
}
