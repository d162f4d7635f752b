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

/// Whether two readings say the same. The general reader writes the text anew out of its tree.
fn same(quick: &Metrics, slow: &Metrics) -> bool {
    let (text, written) = (&quick.system.text, &slow.system.text);
    let tree: Value = serde_json::from_str(text).expect("the text of a reading is JSON");
    let mut alike = quick.clone();
    alike.system.text.clone_from(written);
    alike == *slow && (text == written || tree.to_string() == **written)
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
        (Ok(GuestMessage::Metrics(quick)), Ok(GuestMessage::Metrics(slow))) => assert!(same(&quick, &slow)),
        (Ok(GuestMessage::MetricsBatch(quick)), Ok(GuestMessage::MetricsBatch(slow))) => {
            assert_eq!(quick.len(), slow.len());
            assert!(quick.iter().zip(&slow).all(|(quick, slow)| same(quick, slow)));
        }
        (Ok(quick), Ok(slow)) => assert_eq!(quick, slow),
        (Err(quick), Err(slow)) => assert_eq!(quick.to_string(), slow.to_string()),
        (quick, slow) => panic!("{quick:?} is not {slow:?}"),
    }
    let _ = salvage(line, 1 << 20);
});
