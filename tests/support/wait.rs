//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

/// Waits for a value, with a deadline; for what has no async way to be waited for.
pub fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        #[expect(
            clippy::disallowed_methods,
            reason = "a poll between two looks at a state, with a deadline"
        )]
        std::thread::sleep(Duration::from_millis(20));
    }
}
