//! Processor use, from the difference of two looks at `/proc/stat`.

use crate::{metrics::round, read};

/// A machine of 4096 processors has a `/proc/stat` of about this size without its interrupts.
const MAX_BYTES: usize = 512 << 10;

/// Time in ticks since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Core {
    busy: u64,
    total: u64,
}

/// All processors at one moment.
#[derive(Debug, Default)]
pub(crate) struct Times {
    all: Core,
    cores: Vec<Core>,
}

/// Per cent, 0 to 100.
#[derive(Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) total: f64,
    pub(crate) cores: Vec<f64>,
}

impl Times {
    /// Now; nothing if the kernel does not say.
    pub(crate) fn read() -> Self {
        Self::parse(&read::text("/proc/stat", MAX_BYTES).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut times = Self::default();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("cpu") else { break };
            let mut fields = rest.split_ascii_whitespace();
            let is_all = rest.starts_with(' ');
            if !is_all {
                fields.next();
            }
            // user nice system idle iowait irq softirq steal; guest time is within user time.
            let ticks: Vec<u64> = fields.take(8).map(|f| f.parse().unwrap_or(0)).collect();
            let total: u64 = ticks.iter().sum();
            let idle: u64 = ticks.iter().skip(3).take(2).sum();
            let core = Core { busy: total - idle, total };
            if is_all {
                times.all = core;
            } else {
                times.cores.push(core);
            }
        }
        times
    }

    /// The use between two looks.
    pub(crate) fn usage_since(&self, before: &Self) -> Usage {
        let usage = |now: Core, then: Core| {
            // Idle time may run backwards a little; a difference is never negative here.
            let total = now.total.saturating_sub(then.total);
            let busy = now.busy.saturating_sub(then.busy).min(total);
            if total == 0 { 0.0 } else { round(busy as f64 * 100.0 / total as f64) }
        };
        Usage {
            total: usage(self.all, before.all),
            cores: self
                .cores
                .iter()
                .enumerate()
                .map(|(i, core)| usage(*core, before.cores.get(i).copied().unwrap_or_default()))
                .collect(),
        }
    }
}

/// How many processors there are, and the model of the first.
pub(crate) fn describe() -> (usize, Option<String>) {
    let text = read::text("/proc/cpuinfo", 16 << 10).unwrap_or_default();
    let model = text.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    (Times::read().cores.len(), model.map(|(_, name)| read::printable(name.trim(), 200)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn use_is_the_busy_share_of_a_difference() {
        let then = Times::parse("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 10 0 10 70 10 0 0 0 5 0\nintr 5\n");
        let now = Times::parse("cpu  40 0 20 120 20 0 0 0 9 0\ncpu0 40 0 20 120 20 0 0 0 9 0\nintr 9\n");
        assert_eq!(now.usage_since(&then), Usage { total: 40.0, cores: vec![40.0] });
        assert_eq!(then.usage_since(&then).total, 0.0);
    }

    proptest! {
        #[test]
        fn use_is_always_a_percentage(a in proptest::collection::vec(0u64..1 << 40, 8),
                                      b in proptest::collection::vec(0u64..1 << 40, 8)) {
            let text = |v: &[u64]| format!("cpu  {}\n", v.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
            let usage = Times::parse(&text(&b)).usage_since(&Times::parse(&text(&a)));
            prop_assert!((0.0..=100.0).contains(&usage.total));
        }
    }
}
