//! Pretended guests.
