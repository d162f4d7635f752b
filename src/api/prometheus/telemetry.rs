//! The process's one recorder of figures.

use std::{sync::OnceLock, time::Duration};

use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::catalogue;

/// How often samples that wait for a scrape are put into their buckets: without it they would
/// gather for as long as nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How the controller itself does. Clones share it.
#[derive(Debug, Clone)]
pub struct Telemetry {
    recorder: PrometheusHandle,
    started_at: DateTime<Utc>,
}

impl Telemetry {
    /// The process's recorder, installed with the first call; what was counted before it is lost.
    /// Where the process has another recorder already, this one stays without figures.
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Telemetry> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                let recorder = builder().build_recorder();
                let telemetry = Self { recorder: recorder.handle(), started_at: Utc::now() };
                match metrics::set_global_recorder(recorder) {
                    Ok(()) => catalogue::describe(),
                    Err(error) => tracing::warn!(%error, "figures are not recorded for /metrics"),
                }
                telemetry
            })
            .clone()
    }

    /// Keeps what is recorded small until `stop`.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut ticker = tokio::time::interval(UPKEEP);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticker.tick() => self.recorder.run_upkeep(),
            }
        }
    }

    pub(super) fn render(&self) -> String {
        self.recorder.render()
    }

    pub(super) fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }
}

fn builder() -> PrometheusBuilder {
    let times = Matcher::Suffix("_seconds".to_owned());
    // Fails only without a bucket; then times are shown as summaries.
    PrometheusBuilder::new()
        .set_buckets_for_metric(times, &catalogue::SECONDS)
        .unwrap_or_else(|_| PrometheusBuilder::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_buckets_and_everything_has_a_meaning() {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            catalogue::describe();
            metrics::histogram!("infinibay_flush_seconds").record(0.002);
            metrics::counter!("infinibay_commands_total", "status" => "answered").increment(2);
        });
        let page = handle.render();
        for line in [
            "# HELP infinibay_flush_seconds How long storing a batch took.",
            "# TYPE infinibay_flush_seconds histogram",
            r#"infinibay_flush_seconds_bucket{le="0.0005"} 0"#,
            r#"infinibay_flush_seconds_bucket{le="0.0025"} 1"#,
            r#"infinibay_flush_seconds_bucket{le="60"} 1"#,
            r#"infinibay_commands_total{status="answered"} 2"#,
            "infinibay_readings_total 0",
        ] {
            assert!(page.lines().any(|told| told == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn it_may_be_installed_again() {
        let (first, second) = (Telemetry::install(), Telemetry::install());
        assert_eq!(first.started_at, second.started_at);
        metrics::counter!("infinibay_links_evicted_total").increment(1);
        for telemetry in [first, second] {
            assert!(telemetry.render().contains("infinibay_links_evicted_total 1"), "it is another recorder");
        }
    }
}
