//! A worker that panics is buried by the loop, which goes on; a run must not.

use std::{cell::RefCell, sync::Once};

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics of this thread's runs, from now on.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            LAST.set(Some(panic.to_string()));
            before(panic);
        }));
    });
}

/// The panic since the last time, if there was one.
pub fn take() -> Option<String> {
    LAST.take()
}
