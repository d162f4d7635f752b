//! Any line is read or refused, within what it was reckoned at, and the quick way to read one
//! says what the general one says.

#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use agent_protocol::{GuestMessage, Metrics, salvage, tree_bytes, tree_fits};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn changed(by: isize) {
    LIVE.set(LIVE.get() + by);
    MOST.set(MOST.get().max(LIVE.get()));
}

/// Counts what is taken at a time.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        changed(-layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was taken at a time.
fn taken<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    MOST.set(before);
    let done = run();
    (done, (MOST.get() - before).cast_unsigned())
}

/// What a message says; readings' texts as trees, because the general reader writes them anew.
fn said(message: GuestMessage) -> (GuestMessage, Vec<Value>) {
    let mut trees = Vec::new();
    let mut apart = |mut metrics: Metrics| {
        let text = std::mem::take(&mut metrics.system.text);
        trees.push(serde_json::from_str(&text).expect("the text of a reading is JSON"));
        metrics
    };
    let message = match message {
        GuestMessage::Metrics(metrics) => GuestMessage::Metrics(apart(metrics)),
        GuestMessage::MetricsBatch(batch) => {
            GuestMessage::MetricsBatch(batch.into_iter().map(apart).collect())
        }
        other => other,
    };
    (message, trees)
}

fuzz_target!(|line: &[u8]| {
    let reckoned = tree_bytes(line);
    assert!(tree_fits(line, reckoned));
    assert!(reckoned == 0 || !tree_fits(line, reckoned - 1));
    let (tree, took) = taken(|| serde_json::from_slice::<Value>(line));
    // What an error says takes something too, whatever the line is.
    assert!(took <= reckoned + 1024, "{took} bytes for a tree reckoned at {reckoned}");
    drop(tree);

    match (GuestMessage::decode(line), GuestMessage::decode_by_tree(line)) {
        (Ok(quick), Ok(slow)) => assert_eq!(said(quick), said(slow)),
        (Err(quick), Err(slow)) => assert_eq!(quick.to_string(), slow.to_string()),
        (quick, slow) => panic!("{quick:?} is not {slow:?}"),
    }
    let _ = salvage(line, 1 << 20);
});
