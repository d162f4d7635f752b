//! The machine's names and times.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::read;

/// Whole seconds since boot.
pub(crate) fn uptime_seconds() -> u64 {
    let text = read::line("/proc/uptime").unwrap_or_default();
    text.split(['.', ' ']).next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

pub(crate) fn kernel_version() -> Option<String> {
    read::line("/proc/sys/kernel/osrelease").map(|v| read::printable(&v, 200))
}

pub(crate) fn hostname() -> Option<String> {
    read::line("/proc/sys/kernel/hostname").map(|v| read::printable(&v, 253))
}

/// `{load_1min, load_5min, load_15min}` or null.
pub(crate) fn load_average() -> Value {
    let text = read::line("/proc/loadavg").unwrap_or_default();
    let loads: Vec<f64> = text.split(' ').take(3).filter_map(|f| f.parse().ok()).collect();
    match loads[..] {
        [one, five, fifteen] => json!({"load_1min": one, "load_5min": five, "load_15min": fifteen}),
        _ => Value::Null,
    }
}

/// `/etc/os-release`; empty where there is none.
pub(crate) fn os_release() -> BTreeMap<String, String> {
    let text = read::text("/etc/os-release", 16 << 10)
        .or_else(|_| read::text("/usr/lib/os-release", 16 << 10))
        .unwrap_or_default();
    parse_os_release(&text)
}

fn parse_os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| {
            let value = value.trim();
            let quoted = |quote| value.strip_prefix(quote).and_then(|v: &str| v.strip_suffix(quote));
            let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
            (read::printable(key.trim(), 64), read::printable(value, 256))
        })
        .take(64)
        .collect()
}

/// `{uptime_seconds, name, os_version, kernel_version, hostname, load_average}`
pub(super) fn describe() -> Value {
    let release = os_release();
    json!({
        "uptime_seconds": uptime_seconds(),
        "name": release.get("NAME").map_or("Linux", String::as_str),
        "os_version": release.get("VERSION_ID"),
        "kernel_version": kernel_version(),
        "hostname": hostname(),
        "load_average": load_average(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let release = parse_os_release("# x=y\nNAME=\"Debian GNU/Linux\"\nID=debian\nX='a b'\nrubbish\n");
        assert_eq!(release["NAME"], "Debian GNU/Linux");
        assert_eq!((release["ID"].as_str(), release["X"].as_str(), release.len()), ("debian", "a b", 3));
    }
}
