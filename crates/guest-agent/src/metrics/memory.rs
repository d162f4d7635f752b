//! Memory, from `/proc/meminfo`.

use serde_json::{Value, json};

use crate::read;

/// In KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) available: u64,
    swap_total: u64,
    swap_free: u64,
}

impl Memory {
    /// Now.
    pub(crate) fn read() -> std::io::Result<Self> {
        read::text("/proc/meminfo", 16 << 10).map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let sum = |names: &[&str]| names.iter().filter_map(|n| field(n)).sum::<u64>();
        let total = field("MemTotal").unwrap_or(0);
        // Kernels before 3.14 do not estimate what is available.
        let available = field("MemAvailable").unwrap_or_else(|| sum(&["MemFree", "Buffers", "Cached"]));
        Self {
            total,
            available: available.min(total),
            swap_total: sum(&["SwapTotal"]),
            swap_free: sum(&["SwapFree"]),
        }
    }

    /// `{total_kb, used_kb, available_kb, swap_total_kb, swap_used_kb}`
    pub(crate) fn describe(&self) -> Value {
        json!({
            "total_kb": self.total,
            "used_kb": self.total - self.available,
            "available_kb": self.available,
            "swap_total_kb": self.swap_total,
            "swap_used_kb": self.swap_total.saturating_sub(self.swap_free),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_is_never_more_than_total() {
        let text = "MemTotal: 100 kB\nMemFree: 20 kB\nMemAvailable: 60 kB\nSwapTotal: 9 kB\nSwapFree: 4 kB\n";
        let memory = Memory::parse(text).describe();
        assert_eq!(memory["used_kb"], 40);
        assert_eq!((&memory["swap_total_kb"], &memory["swap_used_kb"]), (&json!(9), &json!(5)));
        let old = Memory::parse("MemTotal: 100 kB\nMemFree: 20 kB\nBuffers: 5 kB\nCached: 90 kB\n");
        assert_eq!((old.available, old.describe()["used_kb"].clone()), (100, json!(0)));
        assert_eq!(Memory::parse(""), Memory::default());
    }
}
