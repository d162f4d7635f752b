//! Greets, and sends valid readings as fast as the socket takes them; answers commands in between,
//! so that it can be told whether its own caller suffers.

use std::io;

use tokio::net::UnixStream;

use super::READ;
use crate::{
    guest::Guest,
    lines::{Lines, Wish, bare_answer, line},
    outbox::What,
    report::add,
};

/// Bytes handed to the socket at once.
const BATCH: usize = 128 << 10;

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    guest.outbox.push_first(&guest.greeting());
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ];
    loop {
        while guest.outbox.waiting() < BATCH {
            guest.tell();
        }
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                if let Some(read) = guest.read(stream, &mut buffer)? {
                    for message in lines.take(read) {
                        if let Wish::Command(command) = Wish::of(message) {
                            add(&guest.counters.commands_received, 1);
                            guest.outbox.push(&line(&bare_answer(&command)), What::Answer);
                        }
                    }
                }
            }
            ready = stream.writable() => {
                ready?;
                guest.write(stream)?;
            }
        }
    }
}
