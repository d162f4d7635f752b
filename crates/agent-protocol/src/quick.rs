//! The quick way to read metrics, which are nearly all that a guest sends: one pass over the
//! line, no tree. What is unusual in any way is left to the general reader, which gives the same
//! where both have an opinion.

use chrono::{DateTime, Utc};

use crate::{GuestMessage, Metrics, SystemReading, reading::once, scan::Cursor};

/// A `metrics` or `metrics_batch` line, if it is an ordinary one.
pub(crate) fn metrics(line: &[u8]) -> Option<GuestMessage> {
    let mut cursor = Cursor::new(line)?;
    let (mut kind, mut messages, mut reading) = (None, None, Reading::default());
    cursor.object(|name, cursor| match name {
        "type" => {
            let name = cursor.plain_string()?;
            once(&mut kind, name)?;
            matches!(name, "metrics" | "metrics_batch").then_some(())
        }
        "messages" => once(&mut messages, batch(cursor)?),
        _ => reading.field(name, cursor),
    })?;
    if !cursor.at_end() {
        return None;
    }
    match kind? {
        "metrics" => reading.whole().map(GuestMessage::Metrics),
        _ => messages.map(GuestMessage::MetricsBatch),
    }
}

fn batch(cursor: &mut Cursor<'_>) -> Option<Vec<Metrics>> {
    let mut messages = Vec::new();
    cursor.array(|cursor| {
        let mut reading = Reading::default();
        cursor.object(|name, cursor| reading.field(name, cursor))?;
        messages.push(reading.whole()?);
        Some(())
    })?;
    Some(messages)
}

/// A message on its way.
#[derive(Default)]
struct Reading {
    timestamp: Option<DateTime<Utc>>,
    system: Option<SystemReading>,
}

impl Reading {
    fn field(&mut self, name: &str, cursor: &mut Cursor<'_>) -> Option<()> {
        match name {
            "timestamp" => once(&mut self.timestamp, serde_json::from_str(cursor.value()?).ok()?),
            "data" => {
                let mut system = None;
                cursor.object(|name, cursor| match name {
                    "system" => once(&mut system, SystemReading::scan(cursor)?),
                    _ => cursor.skip(),
                })?;
                once(&mut self.system, system?)
            }
            _ => cursor.skip(),
        }
    }

    fn whole(self) -> Option<Metrics> {
        Some(Metrics { timestamp: self.timestamp?, system: self.system? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What a message says; its texts as a tree would write them, which is what the general reader
    /// keeps.
    fn said(message: GuestMessage, rewrite: fn(&str) -> String) -> Vec<Metrics> {
        let messages = match message {
            GuestMessage::Metrics(metrics) => vec![metrics],
            GuestMessage::MetricsBatch(batch) => batch,
            other => panic!("{other:?}"),
        };
        let rewritten = |mut metrics: Metrics| {
            metrics.system.text = rewrite(&metrics.system.text).into();
            metrics
        };
        messages.into_iter().map(rewritten).collect()
    }

    fn agrees(line: &str) -> Result<bool, TestCaseError> {
        let Some(quick) = metrics(line.as_bytes()) else { return Ok(false) };
        let by_tree = |text: &str| serde_json::from_str::<Value>(text).expect("JSON").to_string();
        match GuestMessage::decode_by_tree(line.as_bytes()) {
            Ok(slow) => prop_assert_eq!(said(quick, by_tree), said(slow, str::to_owned), "{}", line),
            Err(error) => prop_assert!(false, "{error}: {line}"),
        }
        Ok(true)
    }

    #[test]
    fn ordinary_metrics_are_read_quickly_and_the_unusual_is_left() {
        let message = |system: &str| {
            format!(
                r#"{{"type":"metrics","timestamp":"2026-11-03T10:00:00.123456789+00:00","new":[{{"a":1}}],"data":{{"x":2,"system":{system}}}}}"#
            )
        };
        let whole = r#"{"cpu":{"usage_percent":12.5,"cores_usage":[1,2.5e-3],"temperature":null},
            "memory":{"total_kb":100,"used_kb":40},"disk":{"usage_stats":[],"io_stats":{"read_bytes_per_sec":1,"write_bytes_per_sec":2.5}},
            "network":{"interfaces":[{"name":"lo","bytes_received":7},{"name":"eth0","bytes_received":3,"bytes_sent":18446744073709551615}]},
            "processes":[{"command_line":"a \"b\" \u00e9"}]}"#.replace('\n', "");
        for system in [
            whole.as_str(),
            "{}",
            r#"{"cpu":1,"memory":[],"disk":null,"network":"x"}"#,
            r#"{"cpu":{"usage_percent":"1"},"memory":{"used_kb":-1,"total_kb":1.5},"disk":{"io_stats":[]},"network":{"interfaces":{}}}"#,
            r#"{"network":{"interfaces":[]}}"#,
            r#"{"network":{"interfaces":[1]}}"#,
            r#"{"network":{"interfaces":[{"name":"a","bytes_received":-1,"bytes_sent":1.0}]}}"#,
            r#"{"network":{"interfaces":[{"name":"a","bytes_sent":1},{"bytes_sent":18446744073709551615}]}}"#,
            r#"{"x":1,"x":2,"processes":[{"a":1,"a":2}]}"#,
        ] {
            assert!(agrees(&message(system)).unwrap(), "{system}");
        }
        let GuestMessage::Metrics(read) = metrics(message(&whole).as_bytes()).unwrap() else { panic!() };
        assert_eq!((read.system.text.as_ref(), read.system.cpu_usage), (whole.as_str(), Some(12.5)));
        assert_eq!((read.system.network_received, read.system.network_sent), (Some(3), Some(u64::MAX)));
        for system in [
            "null",
            "[]",
            "{",
            r#"{"cpu":{},"cpu":{"usage_percent":1}}"#,
            r#"{"cpu":{"usage_percent":1,"usage_percent":2}}"#,
            r#"{"\u0063pu":{}}"#,
            r#"{"x":1e300}"#,
            r#"{"x":"\ud800"}"#,
            r#"{"network":{"interfaces":[{"name":"l\u006f"}]}}"#,
        ] {
            assert!(!agrees(&message(system)).unwrap(), "{system}");
        }
        for line in [
            r#"{"type":"metrics"}"#,
            r#"{"type":"metrics","timestamp":"2026-11-03T10:00:00Z","data":{}}"#,
            r#"{"type":"metrics","timestamp":5,"data":{"system":{}}}"#,
            r#"{"timestamp":"2026-11-03T10:00:00Z","data":{"system":{}}}"#,
            r#"{"type":"ping","timestamp":"2026-11-03T10:00:00Z","data":{"system":{}}}"#,
            r#"{"type":"metrics","type":"ping","timestamp":"2026-11-03T10:00:00Z","data":{"system":{}}}"#,
            r#"{"type":"metrics_batch"}"#,
            r#"{"type":"metrics_batch","messages":[["2026-11-03T10:00:00Z",{"system":{}}]]}"#,
            r#"{"type":"metrics","timestamp":"2026-11-03T10:00:00Z","data":{"system":{}}}x"#,
        ] {
            assert_eq!(metrics(line.as_bytes()), None, "{line}");
        }
    }

    /// Something like a metrics line: what is charted, often of the wrong kind, twice, or in
    /// another place, and anything besides.
    fn metrics_like() -> impl Strategy<Value = String> {
        let pick = |texts: &[&'static str]| prop::sample::select(texts.to_vec()).prop_map(str::to_owned);
        let value = prop_oneof![
            6 => any::<u32>().prop_map(|n| n.to_string()),
            3 => any::<f32>().prop_map(|n| serde_json::json!(n).to_string()),
            1 => pick(&["null", "-1", "1e3", "1e-9", "18446744073709551615", "\"2\"", "[]", "{}", "-0", "1.0", "1e999", "\"lo\"", "\"\\ud800\"", "tru"]),
        ]
        .boxed();
        let object = |names: &[&'static str], value: BoxedStrategy<String>| {
            let name = prop_oneof![8 => pick(names), 1 => pick(&["new", "x\\ny", "cp\\u0075"])];
            let field = (name, pick(&["", " "]), value)
                .prop_map(|(name, blank, value)| format!("\"{name}\"{blank}:{blank}{value}"));
            prop::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(","))).boxed()
        };
        let or = |strategy: BoxedStrategy<String>, other: &BoxedStrategy<String>| {
            prop_oneof![9 => strategy, 1 => other.clone()].boxed()
        };
        let interface = object(&["name", "bytes_received", "bytes_sent"], value.clone());
        let interfaces = prop::collection::vec(or(interface, &value), 0..4)
            .prop_map(|all| format!("[{}]", all.join(",")))
            .boxed();
        let part = prop_oneof![
            object(&["usage_percent", "used_kb", "total_kb"], value.clone()),
            object(
                &["io_stats"],
                or(object(&["read_bytes_per_sec", "write_bytes_per_sec"], value.clone()), &value)
            ),
            object(&["interfaces"], or(interfaces, &value)),
        ]
        .boxed();
        let system = object(&["cpu", "memory", "disk", "network", "processes"], or(part, &value));
        let data = object(&["system"], or(system, &value)).boxed();
        let timestamp = pick(&[
            "\"2026-11-03T10:00:00Z\"",
            "\"2026-11-03T10:00:00.123456789+00:00\"",
            "\"2026-11-03T10:00:00\\u005a\"",
            "\"never\"",
            "0",
        ]);
        let message = (timestamp, data)
            .prop_map(|(timestamp, data)| format!(r#""timestamp":{timestamp},"data":{data}"#))
            .boxed();
        let batch = prop::collection::vec(message.clone(), 0..3).prop_map(|messages| {
            let messages: Vec<_> = messages.iter().map(|message| format!("{{{message}}}")).collect();
            format!(r#"{{"messages":[{}],"type":"metrics_batch"}}"#, messages.join(","))
        });
        prop_oneof![4 => message.prop_map(|message| format!(r#"{{"type":"metrics",{message}}}"#)), 1 => batch]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_general_reader_agrees(line in metrics_like()) {
            agrees(&line)?;
        }
    }
}
