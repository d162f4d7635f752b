//! What stories share. Each story uses a part of it.
#![allow(dead_code, unused_imports, unused_macros, reason = "each story uses its part")]
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
pub(crate) mod database;
pub(crate) mod api;
pub(crate) mod away;
pub(crate) mod clock;
pub(crate) mod daemon;
pub(crate) mod discs;
pub(crate) mod guest;
pub(crate) mod guests;
pub(crate) mod host;
pub(crate) mod inventory;
pub(crate) mod journey;
pub(crate) mod libvirtd;
pub(crate) mod node;
pub(crate) mod nothing;
pub(crate) mod origin;
pub(crate) mod people;
pub(crate) mod pipeline;
pub(crate) mod pretended;
pub(crate) mod qemu_agent;
pub(crate) mod raw;
pub(crate) mod sample;
pub(crate) mod scrape;
pub(crate) mod sockets;
pub(crate) mod stage;
pub(crate) mod stranger;
pub(crate) mod terminal;
pub(crate) mod trial;
pub(crate) mod wait;
pub(crate) mod webhook;
