//! File systems and disk traffic. Only file systems of this machine are asked how full they
//! are: a network one whose server is gone would hold the question for ever.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{metrics::round, read};

const MAX_MOUNTS: usize = 64;
const SECTOR_BYTES: u64 = 512;
const GIB: f64 = (1u64 << 30) as f64;

/// How full one file system is. Sizes in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    pub(crate) mount_point: String,
    filesystem: String,
    total: u64,
    used: u64,
    available: u64,
}

impl Usage {
    /// Per cent of what ordinary users could ever use, as `df` counts.
    pub(crate) fn percent(&self) -> f64 {
        let usable = self.used + self.available;
        if usable == 0 { 0.0 } else { round(self.used as f64 * 100.0 / usable as f64) }
    }

    /// `{mount_point, total_gb, used_gb, available_gb, filesystem}`
    pub(crate) fn describe(&self) -> Value {
        json!({
            "mount_point": self.mount_point,
            "total_gb": round(self.total as f64 / GIB),
            "used_gb": round(self.used as f64 / GIB),
            "available_gb": round(self.available as f64 / GIB),
            "filesystem": self.filesystem,
        })
    }
}

/// The file systems of this machine, each once.
pub(crate) fn usage() -> Vec<Usage> {
    let mounts = read::text("/proc/self/mounts", 256 << 10).unwrap_or_default();
    local_mounts(&mounts)
        .into_iter()
        .filter_map(|(mount_point, filesystem)| {
            let stat = rustix::fs::statvfs(&mount_point).ok()?;
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            let total = bytes(stat.f_blocks);
            (total > 0).then(|| Usage {
                mount_point: read::printable(&mount_point, 512),
                filesystem,
                total,
                used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
                available: bytes(stat.f_bavail),
            })
        })
        .collect()
}

/// Mount point and type of each file system on a device of this machine, and of the root.
fn local_mounts(mounts: &str) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let on_device = device.starts_with("/dev/") && !matches!(kind, "squashfs" | "iso9660" | "udf");
        let counts = on_device || kind == "zfs" || (point == "/" && is_local(kind));
        // A device mounted twice is one file system.
        if counts && seen.insert(if on_device { device } else { point }) && found.len() < MAX_MOUNTS {
            found.push((unescape(point), kind.to_owned()));
        }
    }
    found
}

fn is_local(kind: &str) -> bool {
    !(kind.starts_with("nfs")
        || kind.starts_with("fuse")
        || matches!(kind, "cifs" | "smb3" | "9p" | "virtiofs"))
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Traffic of all disks since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
}

impl Counters {
    /// Now.
    pub(crate) fn read() -> Self {
        let text = read::text("/proc/diskstats", 256 << 10).unwrap_or_default();
        // Partitions and layers above a disk would be counted twice: only what has a device.
        let is_disk = |name: &str| std::path::Path::new("/sys/block").join(name).join("device").exists();
        Self::parse(&text, is_disk)
    }

    fn parse(text: &str, is_disk: impl Fn(&str) -> bool) -> Self {
        let mut sum = Self::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            if fields.get(2).is_some_and(|name| is_disk(name)) {
                sum.reads += number(3);
                sum.read_bytes += number(5).saturating_mul(SECTOR_BYTES);
                sum.writes += number(7);
                sum.written_bytes += number(9).saturating_mul(SECTOR_BYTES);
            }
        }
        sum
    }

    /// `{read_bytes_per_sec, write_bytes_per_sec, read_ops_per_sec, write_ops_per_sec}`
    pub(crate) fn rates_since(&self, before: &Self, seconds: f64) -> Value {
        // A disk that was unplugged takes its counters along.
        let rate = |now: u64, then: u64| round(now.saturating_sub(then) as f64 / seconds);
        json!({
            "read_bytes_per_sec": rate(self.read_bytes, before.read_bytes),
            "write_bytes_per_sec": rate(self.written_bytes, before.written_bytes),
            "read_ops_per_sec": rate(self.reads, before.reads),
            "write_ops_per_sec": rate(self.writes, before.writes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_of_this_machine_count_each_once() {
        let mounts = "proc /proc proc rw 0 0\n\
            /dev/vda1 / ext4 rw 0 0\n\
            /dev/vda1 /srv ext4 rw 0 0\n\
            /dev/vdb /mnt/with\\040space xfs rw 0 0\n\
            server:/x /net nfs4 rw 0 0\n\
            /dev/sr0 /media iso9660 ro 0 0\n\
            tmpfs /run tmpfs rw 0 0\n";
        assert_eq!(
            local_mounts(mounts),
            [("/".to_owned(), "ext4".to_owned()), ("/mnt/with space".to_owned(), "xfs".to_owned())]
        );
        assert_eq!(local_mounts("rootfs / rootfs rw 0 0\n").len(), 1);
        assert_eq!(local_mounts("server:/x / nfs4 rw 0 0\nrubbish\n").len(), 0);
        assert_eq!(unescape("a\\134b\\x\\04"), "a\\b\\x\\04");
    }

    #[test]
    fn traffic_is_the_difference_over_time_and_never_negative() {
        let is_disk = |name: &str| name == "vda";
        let then = Counters::parse(" 254 0 vda 10 0 100 0 5 0 50 0 0 0 0\n", is_disk);
        let now =
            Counters::parse(" 254 0 vda 30 0 300 0 5 0 90 0 0 0 0\n 254 1 vda1 9 9 9 9 9 9 9 9\n", is_disk);
        let rates = now.rates_since(&then, 2.0);
        assert_eq!(rates["read_bytes_per_sec"], 51_200.0);
        assert_eq!((&rates["read_ops_per_sec"], &rates["write_ops_per_sec"]), (&json!(10.0), &json!(0.0)));
        assert_eq!(then.rates_since(&now, 2.0)["read_ops_per_sec"], 0.0);
    }
}
