//! Socket.IO, for front ends that were written against the specification's events.
//!
//! A client shows a token in its handshake (`auth.token`), then asks for VMs by `subscribe:vm`, each
//! of which is authorised by itself, and hears of what happens to them. What one may hear is looked
//! at again when somebody's rights change, and every so often. Everything is bounded: connections, a
//! user's sockets, a socket's VMs, what a client sends, and what waits for one that does not read.

mod admission;
mod bridge;
mod counting;
mod dispatch;
mod frames;
mod lines;
mod session;
mod told;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware};
use serde_json::Value;
use socketioxide::{
    SocketIo,
    extract::{AckSender, Event, SocketRef, TryData},
    handler::ConnectHandler as _,
};
use tokio::sync::{Notify, Semaphore};

use self::{
    admission::{Admission, Connection},
    lines::Lines,
    session::{Session, Users},
};
use super::{
    audited,
    auth::Token,
    caller::{self, asked_from},
    doors::Doors,
    error::ApiError,
    validity::Validity,
};
use crate::vm::VmId;

/// Where clients look for it unless told otherwise.
const PATH: &str = "/socket.io/";
/// Packets that wait for one client at most.
const WAITING: usize = 128;
/// Largest request of a client that polls, and message of one with a WebSocket, bytes. What clients
/// say is a token and ids.
const MAX_PAYLOAD: u64 = 16 * 1024;
/// Handshakes that are looked up at once.
const HANDSHAKES: usize = 64;

/// How long a client may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// What handlers share.
#[derive(Clone)]
struct Desk {
    doors: Doors,
    users: Users,
    handshakes: Arc<Semaphore>,
    lines: Lines,
    /// Told of each who was let in.
    arrivals: Arc<Notify>,
}

/// The routes, and the task that tells sockets what happens; it ends with `doors.stop`. Layers over the
/// whole router (origins, headers, limits of requests) hold for polling and for the upgrade alike.
pub(super) fn routes(doors: &Doors) -> Router<Doors> {
    let period = doors.api.config.ping_interval;
    let (service, io) = SocketIo::builder()
        .req_path(PATH)
        .max_payload(MAX_PAYLOAD)
        .max_buffer_size(WAITING)
        .connect_timeout(INTRODUCTION)
        .ping_interval(period)
        .ping_timeout(period * 3 / 2)
        .build_svc();
    let lines = Lines::new(forgetter(service.clone()));
    let desk = Desk {
        doors: doors.clone(),
        lines: lines.clone(),
        users: Users::default(),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        arrivals: Arc::default(),
    };
    let door = desk.clone();
    let introduce = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        let door = door.clone();
        async move { door.introduce(&socket, auth.ok().as_ref()).await.map_err(|refused| refused.code()) }
    };
    let arrivals = desk.arrivals.clone();
    let serve = move |socket: SocketRef| {
        let desk = desk.clone();
        async move { desk.serve(&socket) }
    };
    io.ns("/", serve.with(introduce));
    tokio::spawn(dispatch::run(doors.clone(), io, arrivals));
    let speaker = service.clone();
    let library: bridge::Library = Arc::new(move |request| {
        let answering = hyper::service::Service::call(&speaker, request);
        Box::pin(async move { answering.await.map(|answer| answer.map(axum::body::Body::new)) })
    });
    let admission = Admission::new(doors, library, lines);
    Router::new()
        .route_service(PATH, service)
        .layer(middleware::from_fn_with_state(admission, admission::admit))
}

/// The library ends a connection that polls when it is sent what is no packet; its own way to do so needs
/// a place among the packets that wait, which is what there is none of.
fn forgetter<S>(service: S) -> impl Fn(String) + Send + Sync + 'static
where
    S: hyper::service::Service<axum::http::Request<axum::body::Body>, Future: Send + 'static>,
    S: Send + Sync + 'static,
{
    move |id| {
        let asked = axum::http::Request::post(format!("{PATH}?EIO=4&transport=polling&sid={id}"))
            .body(axum::body::Body::from("no packet"));
        let Ok(asked) = asked else { return };
        let ending = service.call(asked);
        tokio::spawn(async move {
            // That it refuses what is no packet is the end.
            drop(ending.await);
        });
    }
}

impl Desk {
    /// Lets a client in that shows a token. Its refusal is told as `connect_error`, whose message is the
    /// code.
    async fn introduce(&self, socket: &SocketRef, auth: Option<&Value>) -> Result<(), ApiError> {
        let token = auth.and_then(token_in).or_else(|| Token::of(&socket.req_parts().headers));
        let token = token.ok_or_else(ApiError::unauthenticated)?;
        let request = &socket.req_parts().extensions;
        self.doors.limits.check(Some(&token), caller::address(request))?;
        // Only then, so that nobody who knocks too often takes the others' turns.
        let Ok(_turn) = self.handshakes.try_acquire() else {
            return Err(ApiError::new("TOO_MANY_CONNECTIONS", "too many handshakes at once; try again"));
        };
        let actor = token.actor(&self.doors.api).await?;
        self.doors.limits.note(&token, true);
        let place = self.users.enter(actor.user)?;
        if let Some(connection) = request.get::<Arc<Connection>>() {
            connection.introduced();
        }
        // What an earlier socket of the same connection listened to was its token's.
        socket.leave_all();
        socket.extensions.insert(Arc::new(Session::new(
            token,
            Validity::of(&actor),
            place,
            self.lines.clone(),
        )));
        Ok(())
    }

    fn serve(&self, socket: &SocketRef) {
        self.arrivals.notify_one();
        let desk = self.clone();
        socket.on("subscribe:vm", move |socket: SocketRef, TryData(vm): TryData<Value>, ack: AckSender| {
            let desk = desk.clone();
            async move {
                let asked = vm.ok().as_ref().and_then(vm_in);
                let answer = desk.subscribe(&socket, asked).await;
                desk.note(&socket, asked, &answer).await;
                told::answer(&socket, ack, asked, answer);
            }
        });
        socket.on("unsubscribe:vm", |socket: SocketRef, TryData(vm): TryData<Value>, ack: AckSender| {
            let asked = vm.ok().as_ref().and_then(vm_in);
            let left = asked.ok_or_else(not_an_id).map(|vm| {
                if let Some(session) = Session::of(&socket) {
                    session.leave(&socket, vm);
                }
                told::Ok { vm, state: None }
            });
            told::answer(&socket, ack, asked, left);
            std::future::ready(())
        });
        socket.on_fallback(|socket: SocketRef, Event(_): Event, ack: AckSender| {
            let words = "the events are subscribe:vm and unsubscribe:vm";
            told::answer(&socket, ack, None, Err(ApiError::new("INVALID_INPUT", words)));
            std::future::ready(())
        });
    }

    /// What was forbidden is in the audit log.
    async fn note(&self, socket: &SocketRef, vm: Option<VmId>, answer: &Result<told::Ok, ApiError>) {
        let (Err(refused), Some(session)) = (answer, Session::of(socket)) else { return };
        let Ok(actor) = session.token().recent_actor(&self.doors.api).await else { return };
        let origin = asked_from(&socket.req_parts().extensions);
        let at = audited::At { door: "subscribe:vm", user: Some(actor.user), vm, origin };
        audited::refused_at(&self.doors.ledger, at, refused).await;
    }

    /// From now on the socket hears of this VM.
    async fn subscribe(&self, socket: &SocketRef, asked: Option<VmId>) -> Result<told::Ok, ApiError> {
        let session = Session::of(socket).ok_or_else(ApiError::unauthenticated)?;
        let vm = asked.ok_or_else(not_an_id)?;
        self.doors.limits.check(Some(session.token()), None)?;
        let _turn = session.turn()?;
        let view = session.visible(&self.doors.api, vm).await?;
        session.join(socket, vm, view.record.owner)?;
        // Rights may have changed before the dispatcher knew of this VM; and what happened until now
        // is in what is read now.
        match session.visible(&self.doors.api, vm).await {
            Ok(view) => Ok(told::Ok { vm, state: Some(told::State::of(&view)) }),
            Err(refused) => {
                session.leave(socket, vm);
                Err(refused)
            }
        }
    }
}

fn not_an_id() -> ApiError {
    ApiError::invalid("vmId", "is the id of a VM")
}

/// The id, or an object that holds it.
fn vm_in(asked: &Value) -> Option<VmId> {
    let text = asked.as_str().or_else(|| asked.get("vmId")?.as_str())?;
    uuid::Uuid::try_parse(text).ok().map(VmId)
}

/// `{ token: "…" }`, with or without `Bearer` before it.
fn token_in(auth: &Value) -> Option<Token> {
    let text = auth.get("token")?.as_str()?;
    Token::bearer(text).or_else(|| Token::plain(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ids_and_tokens_are_taken_for_such() {
        let vm = VmId::generate();
        for asked in [json!(vm.to_string()), json!({ "vmId": vm.to_string() })] {
            assert_eq!(vm_in(&asked), Some(vm), "{asked}");
        }
        for asked in [json!(null), json!(5), json!("vm:1"), json!([vm.to_string()]), json!({ "vmId": 5 })] {
            assert_eq!(vm_in(&asked), None, "{asked}");
        }
        for auth in [json!({ "token": "abc" }), json!({ "token": "Bearer abc" })] {
            assert_eq!(token_in(&auth).expect("a token").as_str(), "abc");
        }
        for auth in [json!(null), json!("abc"), json!({ "token": 5 }), json!({ "token": "" })] {
            assert!(token_in(&auth).is_none(), "{auth}");
        }
    }
}
