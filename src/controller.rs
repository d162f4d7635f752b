//! Wiring and supervision: the start order, what happens when a part fails, the graceful stop.
//!
//! Start: lock, directories, database, what a dead predecessor left, links, hypervisor, loop,
//! doors. Stop, bounded by `reconcile.shutdown_grace`: doors closed first, then the loop between
//! two steps, then commands and links, then buffered readings to the database.
//!
//! A part that ends unasked ends the daemon: starting anew is the same path as after a crash,
//! which has to work anyway, and a half-alive controller would be worse than none.

pub mod host_id;
pub mod lock;
mod logging;
mod open_files;
mod start;

pub use logging::init as init_logging;
pub use start::{ControllerError, serve};
