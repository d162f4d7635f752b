//! (room under construction)

pub mod host_id;
pub mod lock;
