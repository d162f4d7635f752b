//! The process itself, under the names that Prometheus' own libraries use.

use chrono::{DateTime, Utc};

use super::exposition::{Page, Reading};

/// Ticks of a second in `/proc`: what Linux shows to programs, whatever it uses inside.
const TICKS: f64 = 100.0;

/// What `/proc/self` says; what cannot be read is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Facts {
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
    open_fds: Option<usize>,
    max_fds: Option<u64>,
}

pub(super) async fn write(page: &mut Page, started_at: DateTime<Utc>) {
    // Ten thousand links are ten thousand entries to count.
    let facts = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    if let Some(bytes) = facts.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes);
    }
    if let Some(bytes) = facts.virtual_bytes {
        page.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", bytes);
    }
    if let Some(seconds) = facts.cpu_seconds {
        let help = "Total user and system CPU time spent in seconds.";
        page.family("process_cpu_seconds_total", Reading::Counter, help).value(&[], seconds);
    }
    if let Some(open) = facts.open_fds {
        page.gauge("process_open_fds", "Number of open file descriptors.", open);
    }
    if let Some(max) = facts.max_fds {
        page.gauge("process_max_fds", "Maximum number of open file descriptors.", max);
    }
    let help = "Start time of the process since unix epoch in seconds.";
    page.gauge("process_start_time_seconds", help, started_at.timestamp());
}

fn look() -> Facts {
    let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let status = text("status");
    Facts {
        resident_bytes: bytes_of(&status, "VmRSS:"),
        virtual_bytes: bytes_of(&status, "VmSize:"),
        cpu_seconds: cpu_seconds(&text("stat")),
        open_fds: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        max_fds: max_fds(&text("limits")),
    }
}

/// `VmRSS:     1234 kB` of `status`.
fn bytes_of(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The 14th and 15th field of `stat`. The second is the process's name in parentheses, and may
/// hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

/// The soft limit in `limits`.
fn max_fds(limits: &str) -> Option<u64> {
    let value = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_linux_writes_it() {
        let status = "Name:\tx\nVmSize:\t  204800 kB\nVmRSS:\t   10240 kB\nThreads:\t4\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(10 << 20));
        assert_eq!(bytes_of(status, "VmSize:"), Some(200 << 20));
        assert_eq!(bytes_of(status, "VmSwap:"), None);
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 9 0 1234 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.25));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1024));
        for nonsense in ["", "x", "()", "1 (a) S 1 2", "Max open files unlimited"] {
            assert_eq!((cpu_seconds(nonsense), max_fds(nonsense)), (None, None), "{nonsense}");
        }
    }

    #[test]
    fn this_very_process_can_be_read() {
        let facts = look();
        assert!(facts.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{facts:?}");
        assert!(facts.virtual_bytes >= facts.resident_bytes, "{facts:?}");
        assert!(facts.cpu_seconds.is_some() && facts.open_fds.is_some_and(|open| open > 2), "{facts:?}");
        assert!(facts.max_fds.is_some(), "{facts:?}");
    }
}
