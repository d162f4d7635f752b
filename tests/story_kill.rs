//! The daemon dies by SIGKILL at every failpoint of every operation, on real QEMU with a real guest,
//! and the next one brings about what the operation is for: the same as if nobody had died, nothing
//! twice, nothing left behind.
//!
//! What is killed at is the list in `infinibay::failpoint`: a point that is never reached fails here,
//! and so does an operation that no story is told for.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

mod story_kill {
    pub mod copies;
    pub mod death;
    pub mod installs;
    pub mod keys;
    pub mod library;
    pub mod life;
    pub mod living;
    pub mod rebuilding;
    pub mod stranger;
}
#[macro_use]
mod support;

use std::collections::BTreeSet;

use infinibay::failpoint::OPERATIONS;
use story_kill::{copies, installs, keys, library, life, living, rebuilding, stranger};

#[test]
fn every_operation_has_its_story() {
    let listed: BTreeSet<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    let told = [
        copies::TOLD,
        installs::TOLD,
        keys::TOLD,
        life::TOLD,
        living::TOLD,
        rebuilding::TOLD,
        stranger::TOLD,
        library::TOLD,
    ]
    .concat();
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_are_made_and_deleted_whole_and_domains_taken_in_and_given_back() {
    life::story().await;
    stranger::story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_vm_is_done_once() {
    living::story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_is_switched_once() {
    living::story_of_power().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_whole_and_what_is_lent_is_given_back() {
    copies::story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_goes_on_to_its_end() {
    installs::story().await;
    keys::story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_made_anew_once() {
    rebuilding::story().await;
}

on_both! {
    async fn media_are_whole_or_not_there(db: TestDatabase) {
        library::story(&db).await;
    }
}
