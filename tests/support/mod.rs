//! What stories share. Each story uses a part of it.

#[macro_use]
pub(crate) mod database;
pub(crate) mod sample;
