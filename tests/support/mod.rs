//! What several stories need.
#![allow(dead_code, reason = "each story uses its part")]

pub(crate) mod guest;
