//! Which readings are believed. Pure.

use std::time::Duration;

use agent_protocol::SystemReading;
use chrono::{DateTime, Utc};

use crate::vm::{DiskRates, Readings};

/// Why a reading was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// cpu or memory missing or of the wrong kind.
    Shape,
    /// Out of range.
    Range,
    /// The guest's clock is off.
    Skew,
}

impl Refusal {
    /// A stable name, for those who count.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Range => "range",
            Self::Skew => "skew",
        }
    }
}

/// Integers up to here are exact as floating point; no machine has more KiB.
const MAX_KB: f64 = 9_007_199_254_740_992.0;

/// Judges a frame and the guest's clock against ours. Rates of the network are not a single
/// frame's to tell.
///
/// # Errors
/// The rule that was broken.
pub fn validate(
    system: &SystemReading,
    timestamp: DateTime<Utc>,
    received_at: DateTime<Utc>,
    max_skew: Duration,
) -> Result<Readings, Refusal> {
    let number = |number: Option<f64>| {
        // JSON has neither NaN nor infinity, but not every reader keeps to that.
        let number = number.ok_or(Refusal::Shape)?;
        if number.is_finite() && number >= 0.0 { Ok(number) } else { Err(Refusal::Range) }
    };
    let cpu_usage = number(system.cpu_usage)?;
    let used = number(system.memory_used)?;
    let total = number(system.memory_total)?;
    if cpu_usage > 100.0 || used > total || total > MAX_KB {
        return Err(Refusal::Range);
    }
    // A skew too large to be counted is too large.
    let skew = (timestamp - received_at).abs().to_std().unwrap_or(Duration::MAX);
    if skew > max_skew {
        return Err(Refusal::Skew);
    }
    // What is charted besides is told or not; nonsense in it is not told.
    let disk = number(system.disk_read).ok().zip(number(system.disk_written).ok());
    Ok(Readings {
        cpu_usage,
        memory_used: kib(used),
        memory_total: kib(total),
        disk: disk.map(|(read, written)| DiskRates { read, written }),
        network: None,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked to be 0 to 2^53; fractions of a KiB are dropped"
)]
fn kib(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const MAX_SKEW: Duration = Duration::from_secs(300);

    fn judge(system: &Value) -> Result<Readings, Refusal> {
        let now = Utc::now();
        validate(&SystemReading::of(system), now, now, MAX_SKEW)
    }

    fn frame(cpu: &Value, used: &Value, total: &Value) -> Value {
        json!({"cpu": {"usage_percent": cpu}, "memory": {"used_kb": used, "total_kb": total}})
    }

    #[test]
    fn each_rule_is_kept() {
        use Refusal::{Range, Shape};
        for (system, verdict) in [
            (json!(null), Err(Shape)),
            (json!([]), Err(Shape)),
            (json!({}), Err(Shape)),
            (json!({"cpu": 3, "memory": []}), Err(Shape)),
            (json!({"cpu": {"usage_percent": 1}}), Err(Shape)),
            (frame(&json!("5"), &json!(1), &json!(2)), Err(Shape)),
            (frame(&json!(null), &json!(1), &json!(2)), Err(Shape)),
            (frame(&json!(5), &json!(true), &json!(2)), Err(Shape)),
            (frame(&json!(-0.1), &json!(1), &json!(2)), Err(Range)),
            (frame(&json!(100.1), &json!(1), &json!(2)), Err(Range)),
            (frame(&json!(5), &json!(3), &json!(2)), Err(Range)),
            (frame(&json!(5), &json!(-1), &json!(2)), Err(Range)),
            (frame(&json!(5), &json!(-2), &json!(-1)), Err(Range)),
            (frame(&json!(5), &json!(u64::MAX), &json!(u64::MAX)), Err(Range)),
            (frame(&json!(1e308), &json!(1), &json!(1)), Err(Range)),
            (
                frame(&json!(0), &json!(0), &json!(0)),
                Ok(Readings { cpu_usage: 0.0, memory_used: 0, memory_total: 0, disk: None, network: None }),
            ),
            (
                frame(&json!(100), &json!(1.9), &json!(2)),
                Ok(Readings { cpu_usage: 100.0, memory_used: 1, memory_total: 2, disk: None, network: None }),
            ),
        ] {
            assert_eq!(judge(&system), verdict, "{system}");
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let system = SystemReading::of(&frame(&json!(5), &json!(1), &json!(2)));
        let now = Utc::now();
        for (seconds, fine) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            let verdict = validate(&system, now + TimeDelta::seconds(seconds), now, MAX_SKEW);
            assert_eq!(verdict.is_ok(), fine, "{seconds}");
        }
        for extreme in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            assert_eq!(validate(&system, extreme, now, MAX_SKEW), Err(Refusal::Skew));
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_in_range(cpu: f64, used: i64, total: i64, float: f64) {
            for used in [json!(used), json!(float)] {
                let system = frame(&json!(cpu), &used, &json!(total));
                if let Ok(charted) = judge(&system) {
                    prop_assert!((0.0..=100.0).contains(&charted.cpu_usage));
                    prop_assert!(0 <= charted.memory_used && charted.memory_used <= charted.memory_total);
                }
            }
        }
    }
}
