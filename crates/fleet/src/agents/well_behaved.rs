//! The agent as it should be: greets, reads line by line, answers each command at once with a whole
//! `response`, sends readings and signs of life.

use std::io;

use chrono::Utc;
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::mpsc, time::Instant};

use super::{READ, until};
use crate::{
    guest::Guest,
    lines::{Lines, Wish, bare_answer, line, wanted_delay},
    outbox::What,
    report::add,
};

/// A client that does not read its answers is not read either beyond this.
const ENOUGH: usize = 1 << 20;

/// Commands that take their time at once.
const SLOW: usize = 1024;

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    guest.outbox.push_first(&guest.greeting());
    let mut lines = Lines::default();
    let (slow, mut done) = mpsc::channel::<Vec<u8>>(SLOW);
    let mut sequence = 0_u32;
    let mut keep_alive = guest.plan.keep_alive.map(|every| Instant::now() + every);
    let mut buffer = vec![0; READ];
    loop {
        let idle = guest.outbox.is_empty();
        tokio::select! {
            ready = stream.readable(), if guest.outbox.waiting() < ENOUGH => {
                ready?;
                if let Some(read) = guest.read(stream, &mut buffer)? {
                    for message in lines.take(read) {
                        hear(guest, message, &slow);
                    }
                }
            }
            ready = stream.writable(), if !idle => ready?,
            Some(answer) = done.recv() => guest.outbox.push(&answer, What::Answer),
            () = until(guest.next_frame()), if idle => guest.tell_due(Instant::now()),
            () = until(keep_alive) => {
                let sign = json!({"type": "keep_alive", "sequence_number": sequence, "timestamp": Utc::now().timestamp()});
                guest.outbox.push(&line(&sign), What::Other);
                sequence = sequence.wrapping_add(1);
                keep_alive = guest.plan.keep_alive.map(|every| Instant::now() + every);
            }
        }
        guest.write(stream)?;
    }
}

fn hear(guest: &mut Guest, message: Value, slow: &mpsc::Sender<Vec<u8>>) {
    match Wish::of(message) {
        Wish::Reading => guest.tell(),
        Wish::Nothing => {}
        Wish::Command(command) => {
            add(&guest.counters.commands_received, 1);
            let delay = wanted_delay(&command);
            if delay.is_zero() {
                guest.outbox.push(&answer(&command), What::Answer);
            } else {
                let slow = slow.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // The client may be gone by now.
                    let _ = slow.send(answer(&command)).await;
                });
            }
        }
    }
}

fn answer(command: &Value) -> Vec<u8> {
    let mut answer = bare_answer(command);
    answer["type"] = json!("response");
    answer["timestamp"] = json!(Utc::now().to_rfc3339());
    line(&answer)
}
