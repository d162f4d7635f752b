//! The guest channel's language: newline-delimited JSON objects over a virtio-serial port.
//!
//! Both ends use this crate: the controller, which must survive anything a hostile guest sends,
//! and our own agent. It performs no I/O and starts no task. [`FrameDecoder`] turns bytes into
//! lines within a fixed bound, [`GuestMessage::decode`] turns a line from the guest into a
//! message, [`tree_bytes`] tells beforehand what that would take, [`rewrite_values`] changes what a
//! guest wrote without reading it into a tree, [`HostMessage`] is what the host sends,
//! [`seal`] puts either into an envelope that nobody without the VM's key can write or replay, [`SafeAction`]
//! is the list of actions that a guest offers without giving its shell away.

mod action;
mod frame;
mod guest;
mod host;
mod quick;
mod reading;
mod rewrite;
mod scan;
mod seal;
mod weight;

pub use action::{ActionError, DiskThresholds, Platform, SafeAction, ServiceOperation, SortBy};
pub use frame::{FrameDecoder, FrameError, MAX_FRAME_BYTES};
pub use guest::{
    Answer, AnswerError, CommandType, DecodeError, FirstBootReport, GuestError, GuestMessage, Handshake,
    KeepAlive, Metrics, SealOffer, Signed, StatusReport, salvage,
};
pub use host::HostMessage;
pub use reading::SystemReading;
pub use rewrite::rewrite_values;
pub use seal::{
    SEAL_MEMORY, SEAL_OVERHEAD_BYTES, SEAL_WINDOW_MS, SealError, SealKey, SealWindow, TooLongToSeal, seal,
    sealed_bytes, verify,
};
pub use weight::{tree_bytes, tree_fits};
