//! What is plugged into a domain, and how large it is.

/// See the module.
pub trait Devices: Send + Sync {}
