//! What one frame of metrics tells of a guest, read as far as it is charted and kept whole as
//! text.

use serde_json::Value;

use crate::scan::Cursor;

/// `data.system` of a metrics frame. A field that is missing or of the wrong kind is `None`: what
/// must be there is for the receiver to judge.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemReading {
    /// The whole of it, as JSON.
    pub text: Box<str>,
    /// `cpu.usage_percent`.
    pub cpu_usage: Option<f64>,
    /// `memory.used_kb`.
    pub memory_used: Option<f64>,
    /// `memory.total_kb`.
    pub memory_total: Option<f64>,
    /// `disk.io_stats.read_bytes_per_sec`.
    pub disk_read: Option<f64>,
    /// `disk.io_stats.write_bytes_per_sec`.
    pub disk_written: Option<f64>,
    /// `bytes_received` of all `network.interfaces` but `lo`, since the guest's start.
    pub network_received: Option<u64>,
    /// `bytes_sent` of the same.
    pub network_sent: Option<u64>,
}

impl SystemReading {
    /// Out of a tree.
    #[must_use]
    pub fn of(system: &Value) -> Self {
        let number = |pointer| system.pointer(pointer).and_then(Value::as_f64);
        let interfaces = system.pointer("/network/interfaces").and_then(Value::as_array);
        let total = |field| {
            let counters = interfaces?.iter().filter(|interface| interface["name"] != "lo");
            counters.map(|interface| interface[field].as_u64()).try_fold(0_u64, |sum, n| sum.checked_add(n?))
        };
        Self {
            cpu_usage: number("/cpu/usage_percent"),
            memory_used: number("/memory/used_kb"),
            memory_total: number("/memory/total_kb"),
            disk_read: number("/disk/io_stats/read_bytes_per_sec"),
            disk_written: number("/disk/io_stats/write_bytes_per_sec"),
            network_received: total("bytes_received"),
            network_sent: total("bytes_sent"),
            text: system.to_string().into(),
        }
    }

    /// Out of an object that begins here, in one pass; the only memory taken is the text's.
    /// `None`: it is unusual in some way, and has to be read as a tree.
    pub(crate) fn scan(cursor: &mut Cursor<'_>) -> Option<Self> {
        let (mut cpu, mut memory, mut disk, mut network) = (None, None, None, None);
        let (text, ()) = cursor.measured(|cursor| {
            cursor.object(|name, cursor| match name {
                "cpu" => once(&mut cpu, numbers(cursor, ["usage_percent"])?),
                "memory" => once(&mut memory, numbers(cursor, ["used_kb", "total_kb"])?),
                "disk" => once(&mut disk, disk_rates(cursor)?),
                "network" => once(&mut network, network_totals(cursor)?),
                _ => cursor.skip(),
            })
        })?;
        let [cpu_usage] = cpu.unwrap_or_default();
        let [memory_used, memory_total] = memory.unwrap_or_default();
        let [disk_read, disk_written] = disk.unwrap_or_default();
        let [network_received, network_sent] = network.unwrap_or_default();
        let text = text.into();
        Some(Self {
            text,
            cpu_usage,
            memory_used,
            memory_total,
            disk_read,
            disk_written,
            network_received,
            network_sent,
        })
    }
}

/// A name that comes twice is unusual: a tree keeps the last one.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// Goes over any value; if it is an object, `field` is given its fields.
fn fields<'a>(
    cursor: &mut Cursor<'a>,
    field: impl FnMut(&'a str, &mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    if cursor.peek()? == b'{' { cursor.object(field) } else { cursor.skip() }
}

/// These fields, as far as they are there and numbers.
fn numbers<const N: usize>(cursor: &mut Cursor<'_>, names: [&str; N]) -> Option<[Option<f64>; N]> {
    let mut found = [None; N];
    fields(cursor, |name, cursor| {
        let value = cursor.value()?;
        match names.iter().position(|wanted| *wanted == name) {
            Some(at) => once(&mut found[at], number(value)),
            None => Some(()),
        }
    })?;
    Some(found.map(Option::flatten))
}

fn number<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
    // Saying what is wrong with a value that is no number would take memory.
    value.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then(|| serde_json::from_str(value).ok())?
}

fn disk_rates(cursor: &mut Cursor<'_>) -> Option<[Option<f64>; 2]> {
    let mut rates = None;
    fields(cursor, |name, cursor| match name {
        "io_stats" => once(&mut rates, numbers(cursor, ["read_bytes_per_sec", "write_bytes_per_sec"])?),
        _ => cursor.skip(),
    })?;
    Some(rates.unwrap_or_default())
}

fn network_totals(cursor: &mut Cursor<'_>) -> Option<[Option<u64>; 2]> {
    let mut totals = None;
    fields(cursor, |name, cursor| match name {
        "interfaces" => once(&mut totals, interfaces(cursor)?),
        _ => cursor.skip(),
    })?;
    Some(totals.unwrap_or_default())
}

fn interfaces(cursor: &mut Cursor<'_>) -> Option<[Option<u64>; 2]> {
    if cursor.peek()? != b'[' {
        cursor.skip()?;
        return Some([None; 2]);
    }
    let mut totals = [Some(0_u64); 2];
    cursor.array(|cursor| {
        let (mut label, mut received, mut sent) = (None, None, None);
        fields(cursor, |name, cursor| {
            let value = cursor.value()?;
            match name {
                // Escaped it may still be `lo`.
                "name" => once(&mut label, (!value.contains('\\')).then_some(value)?),
                "bytes_received" => once(&mut received, number(value)),
                "bytes_sent" => once(&mut sent, number(value)),
                _ => Some(()),
            }
        })?;
        if label != Some("\"lo\"") {
            for (total, counted) in totals.iter_mut().zip([received, sent]) {
                *total = total.zip(counted.flatten()).and_then(|(total, counted)| total.checked_add(counted));
            }
        }
        Some(())
    })?;
    Some(totals)
}
