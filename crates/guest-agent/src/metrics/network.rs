//! Network interfaces: traffic from `/proc/net/dev`, state from sysfs, addresses from netlink.

use std::path::Path;

use serde_json::{Value, json};

use super::address::{self, Addresses};
use crate::read;

const MAX_INTERFACES: usize = 64;

/// `[{name, bytes_received, bytes_sent, packets_received, packets_sent, errors_in, errors_out,
/// ip_addresses[], is_up}]`
pub(super) fn interfaces() -> Vec<Value> {
    let text = read::text("/proc/net/dev", 64 << 10).unwrap_or_default();
    let addresses = address::all().unwrap_or_default();
    text.lines().skip(2).take(MAX_INTERFACES).filter_map(|line| describe(line, &addresses)).collect()
}

fn describe(line: &str, addresses: &Addresses) -> Option<Value> {
    let (name, counters) = line.split_once(':')?;
    let name = name.trim();
    let counters: Vec<u64> = counters.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    let counter = |i: usize| counters.get(i).copied().unwrap_or(0);
    let class = Path::new("/sys/class/net").join(name);
    let index = read::line(class.join("ifindex")).and_then(|i| i.parse::<u32>().ok());
    let list = index.and_then(|i| addresses.get(&i)).map_or(&[][..], Vec::as_slice);
    Some(json!({
        "name": read::printable(name, 64),
        "bytes_received": counter(0),
        "packets_received": counter(1),
        "errors_in": counter(2),
        "bytes_sent": counter(8),
        "packets_sent": counter(9),
        "errors_out": counter(10),
        "ip_addresses": list.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "is_up": is_up(&class),
    }))
}

/// Switched on and, where the driver knows, with a carrier.
fn is_up(class: &Path) -> bool {
    let flags = read::line(class.join("flags"));
    let flags = flags.and_then(|f| u32::from_str_radix(f.trim_start_matches("0x"), 16).ok()).unwrap_or(0);
    flags & 1 != 0 && read::line(class.join("operstate")).as_deref() != Some("down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_by_column() {
        let line = "  nosuch0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let interface = describe(line, &Addresses::new()).unwrap();
        assert_eq!(interface["name"], "nosuch0");
        assert_eq!((&interface["bytes_received"], &interface["bytes_sent"]), (&json!(1), &json!(9)));
        assert_eq!((&interface["errors_in"], &interface["errors_out"]), (&json!(3), &json!(11)));
        assert_eq!(interface["is_up"], false);
        assert!(describe("rubbish", &Addresses::new()).is_none());
    }
}
