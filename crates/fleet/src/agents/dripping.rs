//! Two readings in pieces of one byte, each over a whole interval; then a line that never ends.

use std::{io, time::Duration};

use chrono::Utc;
use tokio::{net::UnixStream, time::Instant};

use super::{READ, until};
use crate::{guest::Guest, report::add};

/// Readings before the line that never ends.
const READINGS: u64 = 2;

/// The endless line: that many bytes at once, and a pause.
const PIECE: usize = 4096;
const PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    let (mut line, mut at) = (Vec::new(), 0);
    let mut due = Instant::now();
    loop {
        let endless = guest.told >= READINGS;
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                guest.read(stream, &mut buffer)?;
                continue;
            }
            () = until(Some(due)) => {}
        }
        stream.writable().await?;
        if endless {
            let piece = [b'x'; PIECE];
            let written = stream.try_write(if at == 0 { br#"{"type":"metrics","x":""# } else { &piece });
            at += pass(guest, written)?;
            due = Instant::now() + PAUSE;
            continue;
        }
        if line.is_empty() {
            guest.frames.get(guest.told).write(Utc::now(), &mut line);
        }
        at += pass(guest, stream.try_write(&line[at..=at]))?;
        due += guest.plan.interval / u32::try_from(line.len()).unwrap_or(u32::MAX);
        if at == line.len() {
            add(&guest.counters.frames_sent, 1);
            guest.told += 1;
            line.clear();
            at = 0;
        }
    }
}

/// What of it was written.
fn pass(guest: &Guest, written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(bytes) => {
            add(&guest.counters.bytes_sent, bytes);
            Ok(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
