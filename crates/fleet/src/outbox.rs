//! Lines on their way out, over as many connections as it takes.
//!
//! A line counts when the socket has taken its last byte. One that a connection's end cut off is
//! said again, whole, to the next client: the agent in a guest keeps it, because the channel told it
//! that it was not taken.

use std::{collections::VecDeque, io};

use tokio::net::UnixStream;

use crate::{
    Lie,
    report::{Counters, add},
};

/// What a line is, for the counters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Frame,
    Answer,
    Fragment,
    Lie(Lie),
    Other,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// The socket has these.
    written: usize,
    /// Where the first line begins that the socket has not taken whole.
    taken: usize,
    /// The ends of those lines.
    lines: VecDeque<(usize, What)>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn push(&mut self, line: &[u8], what: What) {
        self.push_with(what, |bytes| bytes.extend_from_slice(line));
    }

    /// Adds the line that `write` appends.
    pub(crate) fn push_with(&mut self, what: What, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.lines.push_back((self.bytes.len(), what));
    }

    /// Adds a line that goes before all others: the greeting, while nothing of them is written.
    pub(crate) fn push_first(&mut self, line: &[u8]) {
        self.bytes.splice(0..0, line.iter().copied());
        for (end, _) in &mut self.lines {
            *end += line.len();
        }
        self.lines.push_front((line.len(), What::Other));
    }

    /// Writes what the socket takes now; false when it takes no more.
    pub(crate) fn write(&mut self, stream: &UnixStream, counters: &Counters) -> io::Result<bool> {
        while self.waiting() > 0 {
            match stream.try_write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.written += n;
                    add(&counters.bytes_sent, n);
                    self.count(counters);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.forget_taken();
        // What a flood once took is not kept by a guest that has calmed down.
        self.bytes.shrink_to(64 << 10);
        Ok(true)
    }

    fn count(&mut self, counters: &Counters) {
        while let Some(&(end, what)) = self.lines.front()
            && end <= self.written
        {
            self.lines.pop_front();
            self.taken = end;
            match what {
                What::Frame => add(&counters.frames_sent, 1),
                What::Answer => add(&counters.commands_answered, 1),
                What::Fragment => add(&counters.fragments_sent, 1),
                What::Lie(lie) => counters.lied(lie),
                What::Other => {}
            }
        }
        if self.taken > (256 << 10) {
            self.forget_taken();
        }
    }

    fn forget_taken(&mut self) {
        self.bytes.drain(..self.taken);
        self.written -= self.taken;
        for (end, _) in &mut self.lines {
            *end -= self.taken;
        }
        self.taken = 0;
    }

    /// The client is gone: what was not taken whole is kept for the next.
    pub(crate) fn rewind(&mut self) {
        self.forget_taken();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_said_again_whole() {
        let counters = Counters::default();
        let mut outbox = Outbox::default();
        let long = [vec![b'x'; 4 << 20], b"\n".to_vec()].concat();
        outbox.push(b"short\n", What::Answer);
        outbox.push(&long, What::Frame);
        outbox.push(b"last\n", What::Answer);

        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.writable().await.unwrap();
        assert!(!outbox.write(&ours, &counters).unwrap());
        assert_eq!(
            (counters.commands_answered.load(Relaxed), counters.frames_sent.load(Relaxed)),
            (1, 0),
            "only what was taken whole counts"
        );
        drop((ours, theirs));
        outbox.rewind();

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all
        });
        loop {
            ours.writable().await.unwrap();
            if outbox.write(&ours, &counters).unwrap() {
                break;
            }
        }
        drop(ours);
        assert_eq!(reading.await.unwrap(), [long, b"last\n".to_vec()].concat());
        assert_eq!((counters.commands_answered.load(Relaxed), counters.frames_sent.load(Relaxed)), (2, 1));
        assert!(outbox.is_empty());
    }
}
