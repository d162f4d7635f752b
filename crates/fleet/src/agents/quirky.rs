//! The agent found in the field, with all that it does differently.

use std::{io, time::Duration};

use rand::Rng as _;
use serde_json::Value;
use tokio::{net::UnixStream, time::Instant};

use super::until;
use crate::{
    guest::Guest,
    lines::{Wish, bare_answer, line, wanted_delay},
    outbox::What,
    report::add,
};

/// How often it looks for commands.
const POLL: Duration = Duration::from_millis(500);

/// Its buffer, fresh for each read.
const BUFFER: usize = 64 << 10;

/// One in so many readings comes after a fragment of itself.
const FRAGMENT_IN: u32 = 8;

/// Actions that this build, for Linux, knows; others get no answer.
const KNOWN: [&str; 17] = [
    "ServiceList",
    "ServiceControl",
    "PackageList",
    "PackageInstall",
    "PackageRemove",
    "PackageUpdate",
    "PackageSearch",
    "ProcessList",
    "ProcessKill",
    "ProcessTop",
    "SystemInfo",
    "OsInfo",
    "CheckDiskSpace",
    "CheckResourceOptimization",
    "RunHealthCheck",
    "RunAllHealthChecks",
    "DiskCleanup",
];

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    // At the agent's start only: a client that comes back finds it as it is.
    let mut opening = if guest.told == 0 { guest.random.random_range(2..=3) } else { 0 };
    let mut opening_at = Instant::now();
    let mut poll = Instant::now() + POLL;
    loop {
        if guest.outbox.is_empty() && opening > 0 && opening_at <= Instant::now() {
            guest.tell();
            opening -= 1;
            opening_at += Duration::from_millis(30);
        }
        guest.write(stream)?;
        let idle = guest.outbox.is_empty();
        let frames = if opening > 0 { Some(opening_at) } else { guest.next_frame() };
        tokio::select! {
            ready = stream.writable(), if !idle => ready?,
            () = until(frames), if idle => if opening == 0 {
                fragment(guest);
                guest.tell_due(Instant::now());
            },
            () = tokio::time::sleep_until(poll) => {
                hear(guest, stream).await?;
                poll = Instant::now() + POLL;
            }
        }
    }
}

/// What a full channel makes it do: the beginning of a message, and then the whole of it on the
/// same line.
fn fragment(guest: &mut Guest) {
    if guest.random.random_ratio(1, FRAGMENT_IN) {
        let mut whole = Vec::new();
        guest.frames.get(guest.told).write(chrono::Utc::now(), &mut whole);
        let cut = guest.random.random_range(1..whole.len() - 1);
        guest.outbox.push(&whole[..cut], What::Fragment);
    }
}

/// Reads once, and acts on the first line of it.
async fn hear(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let Some(read) = guest.read(stream, &mut buffer)? else { return Ok(()) };
    let first = read.split(|&b| b == b'\n').next().unwrap_or_default();
    let Ok(message) = serde_json::from_slice::<Value>(first) else { return Ok(()) };
    match Wish::of(message) {
        Wish::Reading => guest.tell(),
        Wish::Nothing => {}
        Wish::Command(command) => {
            add(&guest.counters.commands_received, 1);
            let safe = command["type"] == "SafeCommand";
            let action = command["command_type"]["action"].as_str().unwrap_or_default();
            if safe && !KNOWN.contains(&action) {
                return Ok(());
            }
            // Everything else waits meanwhile.
            tokio::time::sleep(wanted_delay(&command)).await;
            guest.outbox.push(&line(&bare_answer(&command)), What::Answer);
        }
    }
    Ok(())
}
