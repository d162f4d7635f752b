//! The one loop.

mod waker;

pub use waker::Waker;
