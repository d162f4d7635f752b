//! Tells one lie after another, at its interval.

use std::io;

use tokio::{net::UnixStream, time::Instant};

use super::{READ, until};
use crate::{
    Lie,
    guest::Guest,
    lines::{Lines, Wish},
    outbox::What,
    report::add,
};

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ];
    loop {
        guest.write(stream)?;
        let idle = guest.outbox.is_empty();
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                if let Some(read) = guest.read(stream, &mut buffer)? {
                    let commands = lines.take(read).into_iter().filter(|m| matches!(Wish::of(m.clone()), Wish::Command(_)));
                    add(&guest.counters.commands_received, commands.count());
                }
            }
            ready = stream.writable(), if !idle => ready?,
            () = until(guest.next_frame()), if idle => lie(guest),
        }
    }
}

fn lie(guest: &mut Guest) {
    let count = Lie::ALL.len() as u64;
    let lie = Lie::ALL[usize::try_from(guest.told % count).unwrap_or(0)];
    let line = lie.line(guest.frames.get(guest.told));
    guest.outbox.push(&line, What::Lie(lie));
    guest.told += 1;
    guest.was_told(Instant::now());
}
