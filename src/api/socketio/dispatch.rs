//! One task tells all sockets what happens. That it is one makes "nobody hears what he may not" simple:
//! after a change of rights every socket is looked at before anything more is told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::Utc;
use socketioxide::{SendError, SocketError, SocketIo, extract::SocketRef};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    counting::{self, Cut},
    session::{Session, cut, room},
    told,
};
use crate::{
    access::Actor,
    api::{doors::Doors, error::ApiError},
    events::Notice,
    vm::{VmEvent, VmId, chain},
};

/// How soon those are looked at again that could not be.
const AGAIN: Duration = Duration::from_secs(1);
/// How long clients are given to hear of the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Until the controller stops.
pub(super) async fn run(doors: Doors, io: SocketIo, arrivals: Arc<Notify>) {
    let mut bus = doors.api.events.subscribe();
    let mut rights = doors.api.accounts.rights();
    let every = doors.api.config.recheck_interval;
    let mut recheck = Instant::now() + every;
    let mut lapse = recheck;
    loop {
        let looks = tokio::select! {
            biased;
            () = doors.stop.cancelled() => break,
            changed = rights.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(recheck) => true,
            () = arrivals.notified() => {
                lapse = Instant::now() + lapsed(&io, every);
                false
            }
            () = tokio::time::sleep_until(lapse) => {
                lapse = Instant::now() + lapsed(&io, every);
                false
            }
            notice = bus.next() => match notice {
                Some(Notice::Event(event)) => {
                    tell(&io, &event);
                    false
                }
                Some(Notice::Lagged(missed)) => {
                    lagged(&io, missed);
                    false
                }
                None => break,
            },
        };
        if looks {
            let done = look(&doors, &io).await;
            recheck = Instant::now() + if done { every } else { AGAIN };
        }
    }
    if timeout(FAREWELL, io.close()).await.is_err() {
        tracing::debug!("clients of Socket.IO did not hear of the end");
    }
}

/// Those who hear of the VM.
fn audience(io: &SocketIo, vm: VmId) -> impl Iterator<Item = SocketRef> {
    let heard = move |socket: &SocketRef| Session::of(socket).is_some_and(|session| session.hears_of(vm));
    io.within(room(vm)).sockets().into_iter().filter(heard)
}

fn tell(io: &SocketIo, event: &VmEvent) {
    let mut audience = audience(io, event.vm()).peekable();
    if audience.peek().is_none() {
        return;
    }
    let words = told::event(event);
    let reading = match event {
        VmEvent::Metrics(sample) => match told::reading(sample) {
            Ok(reading) => Some(reading),
            Err(error) => {
                tracing::warn!(vm = %sample.vm, %error, "a reading cannot be told");
                return;
            }
        },
        _ => None,
    };
    for socket in audience {
        let mut told = socket.emit(event.name(), &words);
        if let (Ok(()), Some(reading)) = (&told, &reading) {
            told = socket.emit("metrics", reading);
        }
        if let VmEvent::Deleted { vm, .. } = event
            && let Some(session) = Session::of(&socket)
        {
            session.leave(&socket, *vm);
        }
        heard(socket, told);
    }
}

/// Whoever does not read what he is sent is cut off: what waits for him is bounded, and nothing is
/// lost in silence.
fn heard(socket: SocketRef, told: Result<(), SendError>) {
    match told {
        Ok(()) => counting::told(),
        Err(SendError::Socket(SocketError::Closed)) => {}
        Err(SendError::Socket(SocketError::InternalChannelFull)) => {
            tracing::info!(socket = %socket.id, "a client of Socket.IO does not read, and is cut off");
            cut(socket, Cut::Waiting);
        }
        Err(SendError::Serialize(error)) => {
            tracing::warn!(%error, "an event cannot be told to a client of Socket.IO");
        }
    }
}

fn lagged(io: &SocketIo, missed: u64) {
    let words = told::refusal(None, &ApiError::lagged(missed));
    for socket in io.sockets() {
        if Session::of(&socket).is_some_and(|session| session.hears()) {
            let told = socket.emit("vm:error", &words);
            heard(socket, told);
        }
    }
}

/// Sends those away whose tokens have ended by themselves; gives how long until it is to be looked again:
/// when the next one ends, and after `every` at the latest.
fn lapsed(io: &SocketIo, every: Duration) -> Duration {
    let now = Utc::now();
    let mut next = every;
    for socket in io.sockets() {
        let Some(session) = Session::of(&socket) else { continue };
        let validity = session.validity();
        if validity.is_over(now) {
            send_away(socket);
        } else {
            next = next.min(validity.look_after(now, every));
        }
    }
    next
}

/// Tells a socket that its token has ended, and ends it.
fn send_away(socket: SocketRef) {
    let words = told::refusal(None, &ApiError::unauthenticated());
    if let Err(error) = socket.emit("vm:error", &words) {
        tracing::debug!(error = chain(&error), "a client of Socket.IO is not told why it is sent away");
    }
    cut(socket, Cut::Token);
}

/// Looks whether each socket may still hear what it hears; false where that could not be found out,
/// in which case what was allowed a moment ago still is.
async fn look(doors: &Doors, io: &SocketIo) -> bool {
    let mut actors: HashMap<String, Option<Actor>> = HashMap::new();
    for socket in io.sockets() {
        let Some(session) = Session::of(&socket) else { continue };
        let token = session.token();
        let known = match actors.get(token.as_str()) {
            Some(known) => known.clone(),
            None => {
                let asked = match token.actor(&doors.api).await {
                    Ok(actor) => Some(actor),
                    Err(error) if error.is_failure() => return false,
                    Err(_) => None,
                };
                actors.insert(token.as_str().to_owned(), asked.clone());
                asked
            }
        };
        let Some(actor) = known else {
            send_away(socket);
            continue;
        };
        for (vm, denied) in session.lost(&actor) {
            session.leave(&socket, vm);
            let told = socket.emit("vm:error", &told::refusal(Some(vm), &ApiError::denied(denied, vm)));
            heard(socket.clone(), told);
        }
    }
    true
}
