//! What the benches share: a PostgreSQL with its default settings, a fleet in a process of its own,
//! a daemon with VMs, and how figures are told.
//!
//! Every figure is a ratio, a difference or a size that is taken within one run, so that a busy or
//! slow machine does not decide the verdict.
#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod figures;
pub(crate) mod fleet;
pub(crate) mod frames;
pub(crate) mod literal;
pub(crate) mod pipeline;
pub(crate) mod prepared;
pub(crate) mod process;
pub(crate) mod stage;

use std::time::Duration;

use infinibay::config::{AgentsConfig, MetricsConfig};

/// The quantile (0 to 1) of these durations, in milliseconds.
pub(crate) fn quantile(times: &mut [Duration], at: f64) -> f64 {
    times.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = ((times.len() - 1) as f64 * at).round() as usize;
    times[index].as_secs_f64() * 1e3
}

/// What links are held to, and when readings are stored, where a bench does not set it; for notes.
pub(crate) fn limits() -> String {
    limits_of(&AgentsConfig::default(), &MetricsConfig::default())
}

/// The same of these settings.
pub(crate) fn limits_of(agents: &AgentsConfig, metrics: &MetricsConfig) -> String {
    format!(
        "links held to {} frames/s each, readings stored every {:?} or {} rows",
        agents.max_frames_per_second, metrics.flush_interval, metrics.flush_rows
    )
}

/// A number from the environment, for shorter runs while a bench is worked on; what such a run says
/// is no verdict, and its notes tell the number.
pub(crate) fn sized(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}
