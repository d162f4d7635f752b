//! Thousands of readings in one answer. The library resolves each field of each of them as a future
//! of its own, which takes several times as long as reading them from the database; what stands
//! ready in a row is written down at once instead, and everything else is left to the library.

use std::{borrow::Cow, collections::HashMap};

use async_graphql::{
    ContextSelectionSet, Name, OutputType, Positioned, ScalarType, ServerResult, Value,
    indexmap::IndexMap,
    parser::types::{Field, FragmentDefinition, Selection, SelectionSet},
    registry::Registry,
};

use super::VmMetrics;

/// A list of readings; in the schema the same as `Vec<VmMetrics>`.
pub(crate) struct VmMetricsList(pub(crate) Vec<VmMetrics>);

/// What is there already.
type Ready = fn(&VmMetrics) -> Value;

/// The fields that stand ready, in the order in which they are asked for.
struct Columns(Vec<(Name, Ready)>);

type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

impl Columns {
    /// `None` where something is asked for that does not stand ready.
    fn of(asked: &SelectionSet, fragments: &Fragments) -> Option<Self> {
        let mut columns = Self(Vec::new());
        columns.add(asked, fragments).then_some(columns)
    }

    /// Fragments are on this very type, and end: the query was checked. So were fields of the same
    /// name: they are the same.
    fn add(&mut self, asked: &SelectionSet, fragments: &Fragments) -> bool {
        asked.items.iter().all(|selection| match &selection.node {
            Selection::Field(field) => {
                let Some(ready) = ready(&field.node.name.node) else { return false };
                let key = &field.node.response_key().node;
                if self.0.iter().all(|(known, _)| known != key) {
                    self.0.push((key.clone(), ready));
                }
                field.node.directives.is_empty()
            }
            Selection::InlineFragment(inline) => self.add(&inline.node.selection_set.node, fragments),
            Selection::FragmentSpread(spread) => fragments
                .get(&spread.node.fragment_name.node)
                .is_some_and(|found| self.add(&found.node.selection_set.node, fragments)),
        })
    }

    fn row(&self, of: &VmMetrics) -> Value {
        let mut row = IndexMap::with_capacity(self.0.len());
        row.extend(self.0.iter().map(|(key, ready)| (key.clone(), ready(of))));
        Value::Object(row)
    }
}

fn ready(field: &str) -> Option<Ready> {
    let ready: Ready = match field {
        "__typename" => |_| Value::String(VmMetrics::type_name().into_owned()),
        "id" => |of| ScalarType::to_value(&of.id),
        "vmId" => |of| ScalarType::to_value(&of.vm.uuid()),
        "cpuUsage" => |of| ScalarType::to_value(&of.readings.cpu_usage),
        "memoryUsed" => |of| ScalarType::to_value(&of.memory_used_number()),
        "memoryTotal" => |of| ScalarType::to_value(&of.memory_total_number()),
        "diskRead" => |of| rate(of.readings.disk.map(|disk| disk.read)),
        "diskWritten" => |of| rate(of.readings.disk.map(|disk| disk.written)),
        "networkReceived" => |of| rate(of.readings.network.map(|network| network.received)),
        "networkSent" => |of| rate(of.readings.network.map(|network| network.sent)),
        "timestamp" => |of| ScalarType::to_value(&of.timestamp),
        "createdAt" => |of| ScalarType::to_value(&of.created_at),
        _ => return None,
    };
    Some(ready)
}

fn rate(rate: Option<f64>) -> Value {
    rate.map_or(Value::Null, |rate| ScalarType::to_value(&rate))
}

impl OutputType for VmMetricsList {
    fn type_name() -> Cow<'static, str> {
        Vec::<VmMetrics>::type_name()
    }

    fn qualified_type_name() -> String {
        Vec::<VmMetrics>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<VmMetrics>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        match Columns::of(&ctx.item.node, &ctx.query_env.fragments) {
            Some(columns) => Ok(Value::List(self.0.iter().map(|reading| columns.row(reading)).collect())),
            None => self.0.resolve(ctx, field).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::vm::{DiskRates, FrameText, MetricsSample, Readings, VmId};

    struct Query;

    fn sample(number: u8) -> VmMetrics {
        let at = |seconds: i64| DateTime::<Utc>::from_timestamp(seconds, 123_456_000).unwrap();
        let rates = DiskRates { read: f64::from(number) + 0.5, written: f64::INFINITY };
        VmMetrics::from(&MetricsSample {
            id: uuid::Uuid::from_u128(number.into()),
            vm: VmId(uuid::Uuid::max()),
            timestamp: at(1_700_000_000 + i64::from(number)),
            received_at: at(1_700_000_001),
            readings: Readings {
                cpu_usage: f64::from(number),
                memory_used: 1 << 60,
                memory_total: 1 << 61,
                disk: number.is_multiple_of(2).then_some(rates),
                network: None,
            },
            frame: FrameText::new("{\"processes\":[1,2]}"),
        })
    }

    #[Object]
    impl Query {
        async fn ours(&self) -> VmMetricsList {
            VmMetricsList((0..5).map(sample).collect())
        }

        async fn theirs(&self) -> Vec<VmMetrics> {
            (0..5).map(sample).collect()
        }
    }

    /// The answers are the library's own, whatever is asked.
    #[tokio::test]
    async fn the_short_way_leads_where_the_long_one_does() {
        let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
        let all = "id vmId cpuUsage memoryUsed memoryTotal diskRead diskWritten networkReceived networkSent \
            timestamp createdAt __typename";
        for (asked, rest) in [
            (all, ""),
            (
                "again: id id ...A x: cpuUsage",
                "fragment A on VmMetrics { timestamp ...B } fragment B on VmMetrics { id vmId }",
            ),
            ("... on VmMetrics { cpuUsage ... @include(if: true) { id } } timestamp @skip(if: true)", ""),
            ("id processes raw ports", ""),
            ("id ...A", "fragment A on VmMetrics { diskUsage }"),
        ] {
            let answer =
                schema.execute(format!("{{ ours {{ {asked} }} theirs {{ {asked} }} }} {rest}")).await;
            assert!(answer.errors.is_empty(), "{asked}: {:?}", answer.errors);
            let told = answer.data.into_json().unwrap();
            assert_eq!(told["ours"].as_array().unwrap().len(), 5);
            assert_eq!(told["ours"], told["theirs"], "{asked}");
        }
        let sdl = schema.sdl();
        assert!(sdl.contains("ours: [VmMetrics!]!") && sdl.contains("theirs: [VmMetrics!]!"), "{sdl}");
    }

    #[test]
    fn what_is_read_from_the_frame_goes_the_long_way() {
        for field in VmMetrics::FRAME_FIELDS {
            assert!(ready(field).is_none(), "{field}");
        }
    }
}
