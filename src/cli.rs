//! (room under construction)

pub mod db;
mod exclusive;
pub mod user;
