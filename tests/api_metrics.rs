//! Readings through the API: newest first, within bounds, and without their frames where nobody
//! asks for these.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::TimeDelta;
use infinibay::vm::{FrameText, VmId};
use serde_json::{Value, json};
use support::{
    sample::{now, sample},
    trial::Trial,
};

const CHART: &str = "query($vm: UUID!, $hours: Int! = 24) { getVmMetrics(vmId: $vm, hours: $hours) {
    id vmId cpuUsage memoryUsed memoryTotal timestamp createdAt } }";
const WHOLE: &str =
    "query($vm: UUID!) { getVmMetrics(vmId: $vm) { id diskUsage networkStats processes ports raw } }";

async fn readings(trial: &Trial, query: &str, variables: Value) -> Vec<Value> {
    let answer = trial.client.ask(query, variables).await["getVmMetrics"].take();
    answer.as_array().unwrap().clone()
}

on_both! {
    async fn readings_come_newest_first_and_as_asked_for(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("measured")).await;
        let id: VmId = vm.parse().unwrap();
        let store = db.store().await;
        let ages = [0, 30, 90 * 60, 23 * 3600, 25 * 3600, 700 * 3600, 721 * 3600];
        let samples: Vec<_> = ages.iter().map(|age| sample(id, now() - TimeDelta::seconds(*age), 12.5)).collect();
        store.insert_metrics(&samples).await.unwrap();
        let expected: Vec<String> = samples.iter().map(|sample| sample.id.to_string()).collect();
        let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

        for (hours, count) in [(1, 2), (2, 3), (24, 4), (720, 6)] {
            let rows = readings(&trial, CHART, json!({ "vm": vm, "hours": hours })).await;
            assert_eq!(ids(&rows), expected[..count], "{hours} hours");
        }
        let chart = readings(&trial, CHART, json!({ "vm": vm })).await;
        let first = &chart[0];
        assert_eq!((&first["cpuUsage"], &first["memoryTotal"]), (&json!(12.5), &json!("1000000")));
        let whole = readings(&trial, WHOLE, json!({ "vm": vm })).await;
        assert_eq!(ids(&whole), ids(&chart), "with and without frames, the same readings");
        assert_eq!(whole[0]["raw"]["cpu"]["usage_percent"], 12.5);
        assert_eq!(whole[0]["networkStats"]["interfaces"][0]["name"], "eth0");
        assert_eq!(whole[0]["ports"], Value::Null);
        for hours in [0, -1, 721, i32::MAX] {
            let code = trial.client.refused(CHART, json!({ "vm": vm, "hours": hours })).await;
            assert!(["INVALID_INPUT", "INVALID_QUERY"].contains(&code.as_str()), "{hours}: {code}");
        }
        store.close().await;
    }

    async fn large_frames_do_not_fill_the_memory(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("verbose")).await;
        let id: VmId = vm.parse().unwrap();
        let store = db.store().await;
        // 300 frames of 128 KiB, as large as a link lets through.
        for batch in 0..30 {
            let samples: Vec<_> = (0..10).map(|n| {
                let mut sample = sample(id, now() - TimeDelta::seconds(batch * 10 + n), 1.0);
                let mut tree = sample.frame.tree();
                tree["padding"] = json!("x".repeat(128 << 10));
                sample.frame = FrameText::from(&tree);
                sample
            }).collect();
            store.insert_metrics(&samples).await.unwrap();
        }
        assert_eq!(readings(&trial, CHART, json!({ "vm": vm })).await.len(), 300);
        let whole = readings(&trial, WHOLE, json!({ "vm": vm })).await.len();
        assert!((150..=192).contains(&whole), "{whole} frames of 128 KiB are not about 24 MiB");
        store.close().await;
    }
}
