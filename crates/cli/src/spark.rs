//! Small charts and figures for people.

use std::fmt::Write as _;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One character for each of at most `width` spans: how high its mean lies between `low` and
/// `high`; a blank where nothing is known.
#[must_use]
pub fn line(values: &[Option<f64>], width: usize, low: f64, high: f64) -> String {
    let width = width.min(values.len()).max(1);
    let mut shown = String::new();
    for n in 0..width.min(values.len()) {
        let span = &values[n * values.len() / width..(n + 1) * values.len() / width];
        let known: Vec<f64> = span.iter().flatten().copied().filter(|value| value.is_finite()).collect();
        if known.is_empty() {
            shown.push(' ');
            continue;
        }
        // Lists of this length are counted exactly.
        #[allow(clippy::cast_precision_loss, reason = "a chart has a few thousand points")]
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let share = if high > low { ((mean - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        let bar = (0..7).take_while(|bar| share * 8.0 >= f64::from(*bar) + 1.0).count();
        shown.push(BARS[bar]);
    }
    shown
}

/// `1.5 GiB`.
#[must_use]
pub fn bytes(count: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1024.0 && unit + 1 < UNITS.len() {
        count /= 1024.0;
        unit += 1;
    }
    let mut shown = String::new();
    // Writing to a string does not fail.
    let _ = if count.fract() == 0.0 || count >= 100.0 || unit == 0 {
        write!(shown, "{count:.0} {}", UNITS[unit])
    } else {
        write!(shown, "{count:.1} {}", UNITS[unit])
    };
    shown
}

#[cfg(test)]
mod tests {
    use super::{bytes, line};

    #[test]
    fn heights_follow_the_values() {
        let values: Vec<_> = (0..8).map(|n| Some(f64::from(n))).collect();
        assert_eq!(line(&values, 8, 0.0, 7.0), "▁▂▃▄▅▆▇█");
        assert_eq!(line(&values, 4, 0.0, 7.0), "▁▃▆█");
        assert_eq!(line(&[Some(1.0), None, Some(1e9), Some(-1.0)], 80, 0.0, 100.0), "▁ █▁");
        assert_eq!(line(&[Some(5.0), Some(5.0)], 80, 5.0, 5.0), "▁▁");
        assert_eq!(line(&[Some(f64::NAN)], 80, 0.0, 1.0), " ");
        assert_eq!(line(&[], 80, 0.0, 1.0), "");
    }

    #[test]
    fn bytes_have_units() {
        for (count, shown) in [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (4294967296.0, "4 GiB")]
        {
            assert_eq!(bytes(count), shown);
        }
    }
}
