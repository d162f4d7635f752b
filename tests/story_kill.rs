//! The daemon dies by SIGKILL at every failpoint of every operation, on real QEMU with a real guest,
//! and the next one brings about what the operation is for: the same as if nobody had died, nothing
//! twice, nothing left behind.
//!
//! What is killed at is the list in `infinibay::failpoint`: a point that is never reached fails here,
//! and so does an operation that no story is told for.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod story_kill {
    pub mod life;
    pub mod living;
}
mod support;

use std::collections::BTreeSet;

use infinibay::failpoint::OPERATIONS;

use story_kill::{life, living};

/// The points of an operation.
pub(crate) fn points_of(operation: &str) -> &'static [&'static str] {
    let listed = OPERATIONS.iter().find(|(name, _)| *name == operation);
    listed.unwrap_or_else(|| panic!("{operation} is not in the list")).1
}

#[test]
fn every_operation_has_its_story() {
    let listed: BTreeSet<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    let told: BTreeSet<_> = life::TOLD.iter().chain(living::TOLD).copied().collect();
    assert_eq!(told, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_are_made_and_deleted_whole() {
    life::story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_vm_is_done_once() {
    living::story().await;
}
