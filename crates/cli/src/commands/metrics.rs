//! `metrics`: readings as small charts.

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::json;

use crate::{args::Metrics, clean, context::Context, documents, failure::Failure, screen, spark, vms};

/// The most points that are asked for.
const POINTS: i32 = 1000;
/// Characters of a chart where no terminal says how wide it is.
const WIDTH: u16 = 80;
/// What stands beside a chart.
const BESIDE: u16 = 50;

#[derive(Debug, Deserialize)]
struct Series {
    resolution: String,
    truncated: bool,
    at: Vec<String>,
    counts: Vec<u64>,
    fields: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    field: String,
    unit: String,
    min: Vec<Option<f64>>,
    avg: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
}

pub(super) async fn metrics(context: &Context, args: &Metrics) -> Result<(), Failure> {
    let client = context.client()?;
    let vm = vms::find(client, &args.vm).await?;
    let to = Utc::now();
    let from = to - TimeDelta::hours(args.hours);
    let time = |time: chrono::DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let variables = json!({ "id": vm.id, "from": time(from), "to": time(to), "maxPoints": POINTS });
    let answer = client.ask(&documents::VM_METRICS_SERIES, variables).await?;
    if context.screen.json {
        return context.screen.value(&answer);
    }
    let series: Series = vms::shaped(&answer)?;
    let (Some(first), Some(last)) = (series.at.first(), series.at.last()) else {
        context.screen.note("there are no readings of that time");
        return Ok(());
    };
    let width = screen::width().unwrap_or(WIDTH).saturating_sub(BESIDE).clamp(10, 120);
    let total = series.fields.iter().find(|line| line.field == "MEMORY_TOTAL");
    let memory = total.and_then(|line| highest(&line.max));
    let rows = series.fields.iter().filter(|line| line.field != "MEMORY_TOTAL");
    let rows = rows.map(|line| row(line, memory, usize::from(width)));
    context.screen.line(&screen::table(&["", "", "LOWEST", "MEAN", "HIGHEST"], rows))?;
    let readings: u64 = series.counts.iter().sum();
    let noun = if readings == 1 { "reading" } else { "readings" };
    let words = format!("{readings} {noun} ({}), {first} to {last}", series.resolution.to_lowercase());
    context.screen.line(&clean::line(&words))?;
    if series.truncated {
        context.screen.note("there are newer readings than are shown; look back less far");
    }
    Ok(())
}

/// Percentages and memory are shown against all there is, rates against their highest.
fn row(line: &Line, memory: Option<f64>, width: usize) -> Vec<String> {
    let top = match &*line.unit {
        "PERCENT" => Some(100.0),
        "KIBIBYTES" => memory,
        _ => None,
    };
    let top = top.or_else(|| highest(&line.avg)).unwrap_or(0.0);
    let lowest = line.min.iter().flatten().copied().reduce(f64::min);
    let known: Vec<f64> = line.avg.iter().flatten().copied().collect();
    #[allow(clippy::cast_precision_loss, reason = "there are a thousand points at most")]
    let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| figure(value, &line.unit));
    vec![
        line.field.to_lowercase().replace('_', " "),
        spark::line(&line.avg, width, 0.0, top),
        figure(lowest),
        figure(mean),
        figure(highest(&line.max)),
    ]
}

fn highest(values: &[Option<f64>]) -> Option<f64> {
    values.iter().flatten().copied().reduce(f64::max)
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "PERCENT" => format!("{value:.0} %"),
        "KIBIBYTES" => spark::bytes(value * 1024.0),
        "BYTES_PER_SECOND" => format!("{}/s", spark::bytes(value)),
        other => format!("{value} {}", other.to_lowercase()),
    }
}
