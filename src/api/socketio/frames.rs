//! Reads as much of a client's WebSocket frames as tells how long its messages are.

/// Longest header of a frame: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// Where in the stream it is. Bytes go by unchanged.
#[derive(Debug)]
pub(super) struct Frames {
    limit: u64,
    /// Of the message that is being sent, over its frames so far.
    message: u64,
    header: [u8; MAX_HEADER],
    have: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: u64,
}

/// A message is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Frames {
    /// With messages of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, message: 0, header: [0; MAX_HEADER], have: 0, payload: 0 }
    }

    /// Looks at what came next.
    ///
    /// # Errors
    /// `TooLong` as soon as a frame's header says so.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= u64::try_from(here).unwrap_or(u64::MAX);
                bytes = &bytes[here..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have >= 2 && self.have == self.header_length() {
                self.begin()?;
            }
        }
        Ok(())
    }

    fn header_length(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// The header is there.
    fn begin(&mut self) -> Result<(), TooLong> {
        let length = match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => self.header[2..10].iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte)),
            short => u64::from(short),
        };
        let (last, opcode) = (self.header[0] & 0x80 != 0, self.header[0] & 0x0f);
        self.have = 0;
        self.payload = length;
        // Control frames come between those of a message, and are short.
        if opcode >= 8 {
            return if length > 125 { Err(TooLong) } else { Ok(()) };
        }
        self.message = self.message.saturating_add(length);
        if self.message > self.limit {
            return Err(TooLong);
        }
        if last {
            self.message = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + length, 0xff);
        bytes
    }

    /// Fed in pieces of this size.
    fn fed(bytes: &[u8], piece: usize) -> Result<(), TooLong> {
        let mut frames = Frames::new(1000);
        bytes.chunks(piece).try_for_each(|piece| frames.pass(piece))
    }

    #[test]
    fn messages_are_measured_however_they_are_cut() {
        let text = |length| frame(0x81, length);
        let (begun, more, end) =
            (|length| frame(0x01, length), |length| frame(0x00, length), |length| frame(0x80, length));
        let ping = || frame(0x89, 5);
        for piece in [1, 2, 3, 7, 5000] {
            let good =
                [text(0), text(125), ping(), text(1000), begun(400), ping(), more(400), end(200), text(1000)]
                    .concat();
            assert_eq!(fed(&good, piece), Ok(()));
            for bad in [text(1001), text(70_000), [begun(600), end(401)].concat(), frame(0x89, 200)] {
                assert_eq!(fed(&[text(10), bad].concat(), piece), Err(TooLong), "in pieces of {piece}");
            }
        }
        // The header is enough.
        let huge = [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(fed(&huge, 1), Err(TooLong));
    }
}
