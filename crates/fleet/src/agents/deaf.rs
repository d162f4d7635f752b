//! Greets, sends readings, and never reads: what is written to it stays in the channel.

use std::io;

use tokio::{io::Interest, net::UnixStream, time::Instant};

use super::until;
use crate::guest::Guest;

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    guest.outbox.push_first(&guest.greeting());
    loop {
        guest.write(stream)?;
        let idle = guest.outbox.is_empty();
        tokio::select! {
            ready = stream.writable(), if !idle => ready?,
            () = until(guest.next_frame()), if idle => guest.tell_due(Instant::now()),
            // The client has left, although nothing is read to find that out.
            () = gone(stream) => return Ok(()),
        }
    }
}

async fn gone(stream: &UnixStream) {
    while !matches!(stream.ready(Interest::READABLE).await, Ok(ready) if ready.is_read_closed()) {
        // What stands there unread keeps it readable.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
