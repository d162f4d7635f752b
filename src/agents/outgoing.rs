//! The one line being written. A guest that does not read must not hold its link for ever, so
//! each line has a deadline.

use std::{io, time::Duration};

use tokio::{net::UnixStream, time::Instant};

/// How long the channel may take to accept a line.
const DEADLINE: Duration = Duration::from_secs(5);

/// A line, and how much of it was accepted.
#[derive(Debug)]
pub(super) struct Outgoing {
    line: Vec<u8>,
    written: usize,
    pub(super) deadline: Instant,
    pub(super) is_command: bool,
}

impl Outgoing {
    pub(super) fn new(line: Vec<u8>, is_command: bool, now: Instant) -> Self {
        Self { line, written: 0, deadline: now + DEADLINE, is_command }
    }

    /// Writes what the channel takes now; true when the line is out. The first call hands over
    /// the whole line in one write.
    pub(super) fn write(&mut self, stream: &UnixStream) -> io::Result<bool> {
        while self.written < self.line.len() {
            match stream.try_write(&self.line[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
