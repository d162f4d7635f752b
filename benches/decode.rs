//! What it takes to read one frame of metrics as agents send them, from the line to what is
//! believed of it, against `serde_json` reading the same bytes into derived types.
//!
//! A ratio is what matters, and the machine may have other work: both are measured in turns, a
//! short time each, and the median of the turns' ratios is told.
#![allow(missing_docs, reason = "a program of its own")]
#![allow(unsafe_code, reason = "an allocator that counts can be had in no other way")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use agent_protocol::{GuestMessage, Metrics, tree_fits};
use chrono::{DateTime, Utc};
use infinibay::{metrics::validate, vm::Readings};
use serde::Deserialize;

/// Most that reading may take, in times of what `serde_json` takes.
const MAX_RATIO: f64 = 2.0;

/// Fields that no version knows, for the count of allocations.
const UNKNOWN_FIELDS: usize = 200;

/// As links bound a line.
const MAX_TREE: usize = 2 << 20;

const TURNS: usize = 101;
const PASSES: u32 = 100;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is charted, as anybody would derive it. Unknown fields are skipped, and nothing of the
/// frame's text is kept: less than what is compared with it gives.
mod derived {
    use super::{DateTime, Deserialize, Utc};

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Line<'a> {
        #[serde(rename = "type")]
        pub(super) kind: &'a str,
        pub(super) timestamp: DateTime<Utc>,
        #[serde(borrow)]
        pub(super) data: Data<'a>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Data<'a> {
        #[serde(borrow)]
        pub(super) system: System<'a>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct System<'a> {
        pub(super) cpu: Cpu,
        pub(super) memory: Memory,
        pub(super) disk: Disk,
        #[serde(borrow)]
        pub(super) network: Network<'a>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Cpu {
        pub(super) usage_percent: f64,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Memory {
        pub(super) used_kb: f64,
        pub(super) total_kb: f64,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Disk {
        pub(super) io_stats: IoStats,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct IoStats {
        pub(super) read_bytes_per_sec: f64,
        pub(super) write_bytes_per_sec: f64,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Network<'a> {
        #[serde(borrow)]
        pub(super) interfaces: Vec<Interface<'a>>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read, and compared by nobody")]
    pub(super) struct Interface<'a> {
        pub(super) name: &'a str,
        pub(super) bytes_received: u64,
        pub(super) bytes_sent: u64,
    }
}

/// A frame of the shape and size that agents send, and fields besides that nobody knows.
fn frame(unknown: usize) -> String {
    let mut cores = String::new();
    let (mut processes, mut ports, mut fields) = (Vec::new(), Vec::new(), String::new());
    for core in 0..8 {
        write!(cores, "{}{}.{}", if core == 0 { "" } else { "," }, core * 3, core * 1379 + 7)
            .expect("a string");
    }
    for n in 0..20_u32 {
        let program = ["systemd", "postgres", "nginx", "python3", "sshd"][n as usize % 5];
        processes.push(format!(
            r#"{{"id":{},"parent_id":{},"name":"{program}","executable_path":"/usr/lib/{program}/bin/{program}","command_line":"/usr/lib/{program}/bin/{program} -D -c /etc/{program}/main.conf --worker {n}","cpu_usage_percent":{}.{},"memory_usage_kb":{},"status":"Sleep","start_time":"2026-11-03T08:{:02}:00+00:00"}}"#,
            400 + 37 * n, if n == 0 { "null".to_owned() } else { "1".to_owned() }, n / 3, 1_733 * n + 5, 18_320 + 911 * n, n
        ));
    }
    for n in 0..4_u32 {
        ports.push(format!(
            r#"{{"port":{},"protocol":"tcp","state":"LISTEN","process_id":{},"process_name":"nginx","is_listening":true}}"#,
            8000 + 13 * n,
            400 + 37 * n
        ));
    }
    for n in 0..unknown {
        write!(fields, r#","later_{n}":{{"a":[{n},"x\n",null]}}"#).expect("a string");
    }
    let interface = |name: &str, bytes: u64| {
        format!(
            r#"{{"name":"{name}","bytes_received":{bytes},"bytes_sent":{},"packets_received":20511,"packets_sent":18233,"errors_in":0,"errors_out":0,"ip_addresses":["10.0.2.15","fe80::5054:ff:fe12:3456"],"is_up":true}}"#,
            bytes / 3
        )
    };
    let mount = |point: &str, total: f64| {
        format!(
            r#"{{"mount_point":"{point}","total_gb":{total},"used_gb":{},"available_gb":{},"filesystem":"ext4"}}"#,
            total * 0.25,
            total * 0.75
        )
    };
    format!(
        r#"{{"type":"metrics","timestamp":"{}","data":{{"system":{{"cpu":{{"usage_percent":12.37218,"cores_usage":[{cores}],"temperature":null}},"memory":{{"total_kb":4015464,"used_kb":1209388,"available_kb":2806076,"swap_total_kb":null,"swap_used_kb":null}},"disk":{{"usage_stats":[{},{}],"io_stats":{{"read_bytes_per_sec":40960,"write_bytes_per_sec":122880.5,"read_ops_per_sec":3,"write_ops_per_sec":11}}}},"network":{{"interfaces":[{},{}]}},"system":{{"uptime_seconds":86412,"name":"Debian GNU/Linux","os_version":"12","kernel_version":"6.1.0-26-amd64","hostname":"guest-17","load_average":{{"load_1min":0.31,"load_5min":0.22,"load_15min":0.18}}}},"processes":[{}],"ports":[{}],"windows_services":[]{fields}}}}}}}"#,
        Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, false),
        mount("/", 19.52),
        mount("/boot", 0.93),
        interface("lo", 901_223),
        interface("enp1s0", 88_120_332),
        processes.join(","),
        ports.join(","),
    )
}

/// As a link and the metrics do it: the bound, what the line is, and whether it is believed.
fn ours(line: &[u8], now: DateTime<Utc>) -> (Metrics, Readings) {
    assert!(tree_fits(line, MAX_TREE), "it fits");
    let Ok(GuestMessage::Metrics(metrics)) = GuestMessage::decode(line) else { panic!("metrics") };
    let readings = validate(&metrics.system, metrics.timestamp, now, Duration::from_secs(3600));
    (metrics, readings.expect("believed"))
}

fn by_serde(line: &[u8]) -> derived::Line<'_> {
    serde_json::from_slice(line).expect("metrics")
}

/// Nanoseconds of one pass, as the mean of some.
fn time<T>(mut pass: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..PASSES {
        black_box(pass());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(PASSES)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn allocations(line: &[u8], now: DateTime<Utc>) -> u64 {
    let before = ALLOCATIONS.get();
    let read = ours(line, now);
    let made = ALLOCATIONS.get() - before;
    drop(read);
    made
}

fn main() {
    let (plain, rich) = (frame(0), frame(UNKNOWN_FIELDS));
    let (line, now) = (plain.as_bytes(), Utc::now());
    let turns: Vec<(f64, f64, f64)> = (0..TURNS)
        .map(|_| {
            let ours = time(|| ours(black_box(line), now));
            let serde = time(|| by_serde(black_box(line)));
            let tree = time(|| GuestMessage::decode_by_tree(black_box(line)).expect("metrics"));
            (ours, serde, tree)
        })
        .collect();
    let of = |pick: fn(&(f64, f64, f64)) -> f64| median(turns.iter().map(pick).collect());
    let ratio = of(|(ours, serde, _)| ours / serde);
    let (few, many) = (allocations(line, now), allocations(rich.as_bytes(), now));
    let grown = many.abs_diff(few);
    eprintln!(
        "{} bytes: {:.2} µs read and believed, {:.2} µs by derived types ({ratio:.2} of it), {:.2} µs by a tree",
        line.len(),
        of(|turn| turn.0) / 1e3,
        of(|turn| turn.1) / 1e3,
        of(|turn| turn.2) / 1e3,
    );
    eprintln!("allocations: {few}, and {many} with {UNKNOWN_FIELDS} unknown fields");
    let report = serde_json::json!({
        "bench": "decode",
        "figures": [
            {
                "name": "decode and validate a frame / serde_json into derived types",
                "value": ratio, "unit": "x", "bound": MAX_RATIO, "direction": "max", "ok": ratio <= MAX_RATIO,
                "note": format!("{} bytes, median of {TURNS} turns", line.len()),
            },
            {
                "name": "allocations that unknown fields add to a frame",
                "value": grown, "unit": "allocations", "bound": 0, "direction": "max", "ok": grown == 0,
                "note": format!("{few} without, {many} with {UNKNOWN_FIELDS} unknown fields"),
            },
        ],
    });
    println!("{report}");
}
