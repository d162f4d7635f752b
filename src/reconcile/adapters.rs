//! The real store, links, clock, chance and files behind the loop's traits.

mod disk_looks;
mod files;
mod hold;
mod installer;
mod store;

pub use files::HostFiles;
pub use store::HostStore;

use std::path::Path;

use chrono::{DateTime, Utc};

use super::ports::{Clock, LoopLinks, Randomness};
use crate::{
    agents::Links,
    vm::{LinkEnd, LinkObservation, SealKey, VmId},
};

impl LoopLinks for Links {
    fn open(&self, vm: VmId, path: &Path, seal: Option<&SealKey>) {
        Self::open_sealed(self, vm, path.to_owned(), seal.cloned());
    }

    fn close(&self, vm: VmId, end: LinkEnd) {
        Self::close(self, vm, end);
    }

    fn observe(&self, vm: VmId) -> LinkObservation {
        Self::observe(self, vm)
    }

    fn request_metrics(&self, vm: VmId) {
        Self::request_metrics(self, vm);
    }
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        crate::vm::truncate_to_micros(Utc::now())
    }
}

/// The system's chance.
#[derive(Debug, Clone, Copy)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn jitter(&self) -> f64 {
        // 32 of a random UUID's bits: no generator of our own for a few numbers an hour.
        f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
    }
}
