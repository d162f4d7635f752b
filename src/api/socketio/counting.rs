//! What operators are shown of Socket.IO: how many sockets there are, what is told, and who was cut off, by
//! a fixed list of reasons.

use metrics::{counter, gauge};

/// Why somebody was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// As many packets wait for him as may.
    Waiting,
    /// He took too long to read what was on its way.
    Unread,
    /// He sent a longer message than anybody may.
    TooLong,
    /// His token has ended.
    Token,
}

impl Cut {
    const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Unread => "unread",
            Self::TooLong => "too_long",
            Self::Token => "token",
        }
    }
}

pub(super) fn cut(why: Cut) {
    counter!("infinibay_socketio_cut_total", "reason" => why.word()).increment(1);
}

/// An event that was put on its way to one socket.
pub(super) fn told() {
    counter!("infinibay_socketio_events_total").increment(1);
}

/// One socket that was let in, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Open(());

impl Open {
    pub(super) fn one() -> Self {
        gauge!("infinibay_socketio_sockets").increment(1);
        Self(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!("infinibay_socketio_sockets").decrement(1);
    }
}
