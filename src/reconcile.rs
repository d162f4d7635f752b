//! The one loop: VM state and agent connectivity, reconciled together, because neither can be
//! read without the other. A silent agent in a paused domain is healthy, in a running one it is
//! offline; a missing socket of a stopped domain is right, of a running one it is a fault.
//!
//! ```text
//!   intent (store)            observation (domain, link, socket)
//!         \                        /
//!          plan(now, …) -> Plan { step, link, status, operations, wake_at }     pure
//!                |
//!          commit: milestones, marks, operations, status, link, events
//!          apply:  at most one step                                             idempotent
//!                |
//!          observe again
//! ```
//!
//! Each VM has one task (`worker`), the only writer of that VM's domain. It takes **one step
//! per look**: whatever it does is decided on an observation that began after its last step
//! ended. The `engine` feeds the workers: a full scan every so often, hints in between.
//!
//! What the loop touches is behind traits (`ports`), so that a simulation can stand in for all
//! of it on one thread.

mod adapters;
mod apply;
mod change;
mod console;
mod copy;
mod engine;
mod installing;
mod loan;
mod made_of;
mod memory;
mod note;
mod observation;
mod pass;
mod plan;
mod ports;
mod progress;
#[cfg(test)]
mod simulation;
mod step;
mod storage;
mod times;
mod waker;
mod worker;

pub use adapters::{HostFiles, HostStore, SystemClock, SystemRandomness};
pub use apply::Settings;
pub use engine::{Parts, Reconciler};
pub use made_of::{Dirs, MadeOf, made_of};
pub use observation::InstallSigns;
pub use ports::{Clock, Files, FilesError, LoopLinks, LoopStore, Randomness, SeedPlace};
pub use waker::Waker;
