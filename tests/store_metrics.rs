//! Readings are stored once each, however often they are sent, and come back as they came.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::{DateTime, TimeDelta, Utc};
use infinibay::{
    store::Store,
    vm::{DiskRates, FrameText, MetricsSample, NetworkRates, VmId},
};
use serde_json::json;
use support::sample::{now, sample};

on_both! {
    async fn a_batch_sent_twice_is_stored_once(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let start = now() - TimeDelta::hours(1);
        // More than one statement's worth on SQLite.
        let batch: Vec<MetricsSample> = (0..1203)
            .map(|n| sample(vm, start + TimeDelta::milliseconds(n), 12.5))
            .collect();
        store.insert_metrics(&batch[..700]).await.unwrap();
        store.insert_metrics(&batch).await.unwrap();
        store.insert_metrics(&batch).await.unwrap();
        store.insert_metrics(&[]).await.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, 1203);
        assert_eq!(db.number("SELECT count(DISTINCT id) FROM vm_metrics").await, 1203);
    }

    async fn a_reading_comes_back_as_it_came(db: TestDatabase) {
        let store = db.store().await;
        let vm = VmId::generate();
        let mut sent = sample(vm, now(), 99.25);
        sent.readings.memory_used = i64::from(u32::MAX) * 3;
        sent.readings.memory_total = i64::MAX;
        sent.readings.disk = Some(DiskRates { read: 1.5, written: 0.0 });
        sent.readings.network = Some(NetworkRates { received: 1e12, sent: 2.5 });
        store.insert_metrics(std::slice::from_ref(&sent)).await.unwrap();
        let got = store.metrics(vm, now() - TimeDelta::hours(1), 10).await.unwrap().remove(0);
        assert_eq!((got.id, got.vm), (sent.id, vm));
        assert_eq!((got.timestamp, got.created_at), (sent.timestamp, sent.received_at));
        assert_eq!(got.readings, sent.readings);
        assert_eq!(got.frame, sent.frame, "with everything that has no column, and NUL in a name");
        let bare = store.metrics_without_frames(vm, now() - TimeDelta::hours(1), 10).await.unwrap().remove(0);
        assert_eq!((bare.readings, bare.frame.as_str()), (sent.readings, "null"));
        let latest = &store.latest_metrics(&[vm]).await.unwrap()[&vm];
        assert_eq!((latest.readings, &latest.frame), (sent.readings, &sent.frame));
    }

    async fn no_guest_can_spoil_a_batch(db: TestDatabase) {
        let store = db.store().await;
        let (honest, hostile) = (VmId::generate(), VmId::generate());
        let mut strange = sample(hostile, DateTime::<Utc>::MAX_UTC, 0.0);
        strange.frame = FrameText::from(&json!({ "disk": { "\u{0}": "\u{0}\u{1}\\u0000 \u{10ffff} '; DROP TABLE vms; --" } }));
        let mut bare = sample(hostile, DateTime::<Utc>::MIN_UTC, 0.0);
        bare.frame = FrameText::from(&json!({ "network": 5, "disk": null }));
        // Twice in the same hour, so that their sum would be more than a number can hold.
        bare.readings.disk = Some(DiskRates { read: f64::MAX, written: f64::MAX });
        let mut again = sample(hostile, bare.timestamp, 0.0);
        again.readings = bare.readings;
        store.insert_metrics(&[strange.clone(), sample(honest, now(), 1.0), bare, again]).await.unwrap();
        assert_eq!(store.latest_metrics(&[honest]).await.unwrap().len(), 1);
        let kept = store.metrics(hostile, DateTime::<Utc>::MIN_UTC, 10).await.unwrap();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[0].frame, strange.frame);
    }

    async fn the_latest_of_each_vm(db: TestDatabase) {
        let store = db.store().await;
        let vms: Vec<VmId> = (0..20).map(|_| VmId::generate()).collect();
        let start = now() - TimeDelta::hours(1);
        let mut batch = Vec::new();
        for (n, vm) in vms.iter().enumerate().skip(1) {
            // The newest is neither the first nor the last to be stored.
            for minute in [1, 30, 7] {
                batch.push(sample(*vm, start + TimeDelta::minutes(minute), f64::from(u8::try_from(n).unwrap())));
            }
        }
        store.insert_metrics(&batch).await.unwrap();
        let mut wanted = vms.clone();
        wanted.push(vms[3]);
        let latest = store.latest_metrics(&wanted).await.unwrap();
        assert_eq!(latest.len(), 19, "the first VM has none");
        for (n, vm) in vms.iter().enumerate().skip(1) {
            assert_eq!(latest[vm].timestamp, start + TimeDelta::minutes(30));
            assert!((latest[vm].readings.cpu_usage - f64::from(u8::try_from(n).unwrap())).abs() < f64::EPSILON);
        }
        assert!(store.latest_metrics(&[]).await.unwrap().is_empty());
        let some = store.latest_metrics(&vms[5..7]).await.unwrap();
        assert_eq!(some.len(), 2);
    }

    async fn a_span_of_time_newest_first(db: TestDatabase) {
        let store = db.store().await;
        let (vm, other) = (VmId::generate(), VmId::generate());
        let start = now() - TimeDelta::hours(1);
        let batch: Vec<_> = (0..10)
            .flat_map(|n| {
                let at = start + TimeDelta::minutes(n);
                [sample(vm, at, 1.0), sample(other, at, 2.0)]
            })
            .collect();
        store.insert_metrics(&batch).await.unwrap();
        let minutes = async |since: i64, limit| -> Vec<i64> {
            let rows = store.metrics(vm, start + TimeDelta::minutes(since), limit).await.unwrap();
            rows.iter().map(|row| (row.timestamp - start).num_minutes()).collect()
        };
        assert_eq!(minutes(0, 100).await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(minutes(7, 100).await, [9, 8, 7], "not older than, so with it");
        assert_eq!(minutes(0, 2).await, [9, 8]);
        assert_eq!(minutes(10, 100).await, [0; 0]);
    }

    async fn two_who_store_the_same_batches_do_not_block_each_other(db: TestDatabase) {
        let start = now() - TimeDelta::hours(2);
        let vms: Vec<VmId> = (0..50).map(|_| VmId::generate()).collect();
        let mut batch: Vec<_> = (0..20)
            .flat_map(|n| vms.iter().map(move |vm| (*vm, n)))
            .map(|(vm, n)| sample(vm, start + TimeDelta::minutes(n * 5), 1.0))
            .collect();
        let forwards = batch.clone();
        batch.reverse();
        let (one, other) = (db.store().await, db.store().await);
        let store = async |store: Store, samples: Vec<MetricsSample>| {
            for part in samples.chunks(250) {
                store.insert_metrics(part).await.unwrap();
            }
            for part in samples.chunks(400) {
                store.insert_metrics(part).await.unwrap();
            }
        };
        tokio::join!(store(one, forwards), store(other, batch));
        assert_eq!(db.number("SELECT count(*) FROM vm_metrics").await, 1000);
        let counted = db.number(
            "SELECT CAST(sum(count) AS BIGINT) FROM vm_metrics_rollups WHERE width_seconds = 3600",
        );
        assert_eq!(counted.await, 1000);
    }
}
