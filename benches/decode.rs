//! What it takes to read one frame of metrics as agents send them, from the line to what is
//! believed of it, against `serde_json` reading the same bytes into derived types.
//!
//! A ratio is what matters, and the machine may have other work: both are measured in turns, a
//! short time each, neither always first, and the median of the turns' ratios is told. The frames
//! are the fleet's, each of another guest, so that nothing is read twice in a row.
#![allow(unsafe_code, reason = "an allocator that counts can be had in no other way")]
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the bench")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write as _,
    hint::black_box,
    time::Instant,
};

use agent_protocol::{GuestMessage, Metrics, tree_fits};
use chrono::{DateTime, Utc};
use common::{
    figures::{Figures, say},
    frames::of_fleet,
    stage::ids,
};
use infinibay::{config::AgentsConfig, metrics::validate, vm::Readings};
use serde::Deserialize;

/// Most that reading may take, in times of what `serde_json` takes.
const MAX_RATIO: f64 = 2.0;

/// Fields that no version knows, for the count of allocations.
const UNKNOWN_FIELDS: usize = 200;

/// As links bound a line, a reading and a greeting.
const MAX_TREE: usize = 2 << 20;
const MAX_METRICS_BYTES: usize = 128 << 10;
const MAX_HANDSHAKE_BYTES: usize = 8 << 10;

/// Guests whose frames are read, one of each.
const GUESTS: usize = 64;
const SEED: u64 = 9;

/// What a real frame has, and how far off the mean of these may be.
const FRAME_BYTES: f64 = 7.4 * 1024.0;
const TOLERANCE: f64 = 0.05;

const TURNS: usize = 101;
/// Times that all frames are read in a turn.
const PASSES: usize = 4;

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

/// The frame with so many fields besides that nobody knows.
fn with_unknown(line: &[u8], fields: usize) -> Vec<u8> {
    let line = std::str::from_utf8(line).expect("JSON");
    let mut rich = line.strip_suffix("}}}").expect("system, data and the line itself").to_owned();
    for n in 0..fields {
        write!(rich, r#","later_{n}":{{"a":[{n},"x\n",null]}}"#).expect("a string");
    }
    rich.push_str("}}}");
    rich.into_bytes()
}

/// As a link and the metrics do it: the line's bound, what it is, the reading's bound, and whether it
/// is believed.
fn ours(line: &[u8], now: DateTime<Utc>, config: &AgentsConfig) -> (Metrics, Readings) {
    // Over its rate a link looks for a greeting, too: measured is the most that it may do.
    let greets = line.len() <= MAX_HANDSHAKE_BYTES && memchr::memmem::find(line, b"\"handshake\"").is_some();
    assert!(!greets && tree_fits(line, MAX_TREE), "it fits");
    let Ok(GuestMessage::Metrics(metrics)) = GuestMessage::decode(line) else { panic!("metrics") };
    let text = metrics.system.text.as_bytes();
    assert!(text.len() <= MAX_METRICS_BYTES && tree_fits(text, MAX_TREE), "it fits");
    let readings = validate(&metrics.system, metrics.timestamp, now, config.max_clock_skew);
    (metrics, readings.expect("believed"))
}

fn by_serde(line: &[u8]) -> derived::Line<'_> {
    serde_json::from_slice(line).expect("metrics")
}

/// Nanoseconds per frame, as the mean of some passes over all.
#[expect(clippy::cast_precision_loss, reason = "some hundred frames")]
fn time<'a, T>(lines: &'a [Vec<u8>], read: impl Fn(&'a [u8]) -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..PASSES {
        for line in lines {
            black_box(read(black_box(line)));
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / (PASSES * lines.len()) as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn allocations<T>(read: impl FnOnce() -> T) -> u64 {
    let before = ALLOCATIONS.get();
    let read = read();
    let made = ALLOCATIONS.get() - before;
    drop(read);
    made
}

#[expect(clippy::cast_precision_loss, reason = "some kilobytes, and some hundred allocations")]
fn main() {
    let config = AgentsConfig::default();
    let now = Utc::now();
    let mut lines: Vec<Vec<u8>> =
        of_fleet(&ids(GUESTS, SEED), SEED, 1).into_iter().flat_map(|guest| guest.lines).collect();
    for line in &mut lines {
        assert_eq!(line.pop(), Some(b'\n'), "links take it off");
    }
    let mean = lines.iter().map(Vec::len).sum::<usize>() as f64 / lines.len() as f64;
    assert!((mean / FRAME_BYTES - 1.0).abs() < TOLERANCE, "{mean} bytes are no real frame's");

    let ours = |line| ours(line, now, &config);
    let turns: Vec<(f64, f64)> = (0..TURNS)
        .map(|turn| {
            if turn % 2 == 0 {
                let ours = time(&lines, ours);
                (ours, time(&lines, by_serde))
            } else {
                let serde = time(&lines, by_serde);
                (time(&lines, ours), serde)
            }
        })
        .collect();
    let tree = time(&lines, |line| GuestMessage::decode_by_tree(line).expect("metrics"));
    say(format!("{:.2} µs by a tree", tree / 1e3));
    let mut figures = Figures::of("decode");
    let (ours_ns, serde_ns) =
        (median(turns.iter().map(|turn| turn.0)), median(turns.iter().map(|turn| turn.1)));
    figures.at_most(
        "decode_ratio",
        median(turns.iter().map(|(ours, serde)| ours / serde)),
        "x",
        MAX_RATIO,
        format!(
            "{:.2} µs against {:.2} µs of derived types; medians of {TURNS} turns over {GUESTS} frames of \
             {mean:.0} bytes at the mean",
            ours_ns / 1e3,
            serde_ns / 1e3
        ),
    );
    let plain = &lines[0];
    let rich = with_unknown(plain, UNKNOWN_FIELDS);
    let (few, many) = (allocations(|| ours(plain)), allocations(|| ours(&rich)));
    figures.at_most(
        "decode_allocations",
        many.abs_diff(few) as f64,
        "more",
        0.0,
        format!(
            "{few} without, {many} with {UNKNOWN_FIELDS} unknown fields; the frame's text is one of them"
        ),
    );
    figures.tell();
}
