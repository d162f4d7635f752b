//! GraphQL over WebSocket (graphql-transport-ws), for subscriptions.
//!
//! A connection has to introduce itself, has to show that it lives, and has to read what it is
//! sent, each within a time; it may run so many operations at once. Each operation asks anew who
//! is there: a token that was revoked starts nothing more. What it has open ends by itself, with a
//! code, and then the connection is closed.

use std::{
    net::IpAddr,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_graphql::{
    Data, Executor, Request,
    http::{ALL_WEBSOCKET_PROTOCOLS, WebSocketProtocols, WsMessage},
    parser::types::OperationType,
};
use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::HeaderMap,
    response::Response,
};
use chrono::Utc;
use futures_util::{
    FutureExt, SinkExt, StreamExt,
    stream::{self, BoxStream, SplitSink},
};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SetOnce},
    time::{Instant, MissedTickBehavior, timeout},
};

use crate::{
    store::{self, AskedFrom},
    vm::UserId,
};

use super::{
    auth::Token,
    deadline::{Deadline, too_slow},
    doors::Doors,
    error::ApiError,
    places::{Counted, Place},
    problem::coded,
    room::Room,
    size::sized,
    validity::Validity,
};

/// How long a client may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// What is left open when a token has ended is given so long to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How soon it is asked again who is there, after nobody could say.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a client may take to read one message.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// Operations of one connection at once.
const MAX_OPERATIONS: usize = 64;

/// Close codes of graphql-transport-ws, and of WebSocket itself.
mod close {
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const UNAUTHORIZED: u16 = 4401;
    pub(super) const FORBIDDEN: u16 = 4403;
    pub(super) const INTRODUCTION_TIMEOUT: u16 = 4408;
}

/// Answers the upgrade, if there is room for one more.
pub(super) fn open(
    doors: Doors,
    headers: &HeaderMap,
    origin: AskedFrom,
    upgrade: WebSocketUpgrade,
) -> Response {
    let from = address_in(&origin);
    let place = match doors.limits.check(None, from).and_then(|()| doors.places.enter(from)) {
        Ok(place) => place,
        Err(refused) => return refused.into_http(),
    };
    let limit = usize::try_from(doors.api.config.max_body_bytes).unwrap_or(usize::MAX);
    let upgrade = upgrade.max_message_size(limit).max_frame_size(limit).protocols(ALL_WEBSOCKET_PROTOCOLS);
    let protocol = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
    let Some(protocol) = protocol.and_then(|name| WebSocketProtocols::from_str(name).ok()) else {
        return ApiError::new("INVALID_QUERY", "the subprotocol is graphql-transport-ws").into_http();
    };
    let operations = Operations {
        doors,
        origin,
        guest: Arc::default(),
        held: Arc::default(),
        turns: Arc::new(Semaphore::new(MAX_OPERATIONS)),
    };
    let from_header = Token::of(headers);
    let place = Arc::new(place);
    upgrade.on_upgrade(move |socket| async move {
        serve(socket, protocol, operations, from_header, &place).await;
    })
}

async fn serve(
    socket: WebSocket,
    protocol: WebSocketProtocols,
    operations: Operations,
    from_header: Option<Token>,
    place: &Arc<Place>,
) {
    let stop = operations.doors.stop.clone();
    let config = &operations.doors.api.config;
    let (period, silence) = (config.ping_interval, config.ping_interval * 5 / 2);
    let (mut sink, incoming) = socket.split();
    let heard = Arc::new(std::sync::Mutex::new(Instant::now()));
    let note = heard.clone();
    let incoming = incoming
        .take_while(|message| std::future::ready(message.is_ok()))
        .filter_map(move |message| {
            *note.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
            std::future::ready(match message {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(message.into_data()),
                _ => None,
            })
        })
        .boxed();
    let introduce = {
        let (operations, place) = (operations.clone(), place.clone());
        move |payload: Value| async move {
            let token = token_in(&payload).or(from_header).ok_or_else(ApiError::unauthenticated)?;
            operations.doors.limits.check(Some(&token), address_in(&operations.origin))?;
            let actor = token.actor(&operations.doors.api).await?;
            operations.doors.limits.note(&token, true);
            let _ = operations.held.set(place.taken_by(actor.user)?);
            // Only the first introduction counts; the protocol closes on a second one.
            let _ = operations.guest.set(Guest { token, validity: Validity::of(&actor) });
            Ok::<_, async_graphql::Error>(Data::default())
        }
    };
    let outgoing = async_graphql::http::WebSocket::new(operations.clone(), incoming, protocol)
        .on_connection_init(introduce);
    let mut outgoing = std::pin::pin!(outgoing);
    let mut ping = tokio::time::interval_at(Instant::now() + period, period);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut introduction = std::pin::pin!(tokio::time::sleep(INTRODUCTION).fuse());
    let mut ended = std::pin::pin!(operations.token_ended().fuse());
    loop {
        let introduced = operations.guest.initialized();
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => farewell(close::GOING_AWAY, "the controller is stopping"),
            () = &mut introduction, if !introduced => {
                farewell(close::INTRODUCTION_TIMEOUT, "connection_init did not come in time")
            }
            () = &mut ended => farewell(close::FORBIDDEN, "the token has ended"),
            _ = ping.tick() => {
                let silent = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed();
                if silent > silence {
                    return;
                }
                Message::Ping(axum::body::Bytes::new())
            }
            message = outgoing.next() => match message {
                Some(WsMessage::Text(text)) => Message::Text(text.into()),
                // The library's codes are those of WebSocket itself; clients of the protocol know
                // these two.
                Some(WsMessage::Close(1002, words)) if !introduced => farewell(close::FORBIDDEN, &words),
                Some(WsMessage::Close(1011, words)) if !introduced => farewell(close::UNAUTHORIZED, &words),
                Some(WsMessage::Close(code, words)) => farewell(code, &words),
                None => return,
            },
        };
        let last = matches!(message, Message::Close(_));
        if !send(&mut sink, message).await || last {
            return;
        }
    }
}

fn address_in(origin: &AskedFrom) -> Option<IpAddr> {
    origin.address.as_deref().and_then(|address| address.parse().ok())
}

/// Whether the client took it.
async fn send(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    matches!(timeout(SEND_LIMIT, sink.send(message)).await, Ok(Ok(())))
}

fn farewell(code: u16, words: &str) -> Message {
    // A control frame has room for 123 bytes of reason.
    let words: String = words.chars().filter(char::is_ascii).take(120).collect();
    Message::Close(Some(CloseFrame { code, reason: words.into() }))
}

/// `{"authorization": "Bearer …"}`, in the spellings that clients use, or `{"token": "…"}`.
fn token_in(payload: &Value) -> Option<Token> {
    let bearer = ["authorization", "Authorization"].into_iter().find_map(|key| payload.get(key)?.as_str());
    bearer.and_then(Token::bearer).or_else(|| {
        payload.get("token")?.as_str().and_then(|text| Token::bearer(text).or_else(|| Token::plain(text)))
    })
}

/// Who introduced himself.
struct Guest {
    token: Token,
    validity: Validity,
}

/// The schema as one connection may use it.
#[derive(Clone)]
struct Operations {
    doors: Doors,
    origin: AskedFrom,
    guest: Arc<SetOnce<Guest>>,
    /// What is held of the user's share of the places.
    held: Arc<OnceLock<Counted<UserId>>>,
    turns: Arc<Semaphore>,
}

impl Operations {
    async fn admit(&self, request: Request) -> Result<Request, ApiError> {
        let token = &self.guest.get().ok_or_else(ApiError::unauthenticated)?.token;
        // Each counts like a request of its own, whichever connection it comes over.
        self.doors.limits.check(Some(token), address_in(&self.origin))?;
        let actor = token.actor(&self.doors.api).await?;
        let request = sized(request, &self.doors.api)?;
        Ok(request.data(actor).data(token.clone()).data(Room::default()).data(self.origin.clone()))
    }

    /// Waits until whoever introduced himself is nobody any more.
    async fn token_ended(&self) {
        let (api, every) = (&self.doors.api, self.doors.api.config.recheck_interval);
        let mut rights = api.accounts.rights();
        let Guest { token, validity } = self.guest.wait().await;
        let mut wait = validity.look_after(Utc::now(), every);
        loop {
            tokio::select! {
                changed = rights.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
                () = tokio::time::sleep(wait) => {}
            }
            if validity.is_over(Utc::now()) {
                break;
            }
            wait = match token.actor(api).await {
                Ok(_) => validity.look_after(Utc::now(), every),
                Err(error) if error.is_failure() => validity.look_after(Utc::now(), AGAIN),
                Err(_) => break,
            };
        }
        tokio::time::sleep(LAST_WORDS).await;
    }

    async fn begin(self, request: Request) -> BoxStream<'static, async_graphql::Response> {
        let admitted = self.admit(request).await.map(|mut request| (goes_on(&mut request), request));
        match admitted {
            Ok((false, request)) => {
                // What is answered once has the time that it has over HTTP.
                let deadline = Deadline::at(Instant::now() + self.doors.api.config.request_timeout);
                let executed = self.doors.schema.execute(request.data(deadline.clone()));
                let answer = tokio::select! {
                    answer = store::asked_from(self.origin, executed) => coded(answer),
                    () = deadline.passed() => too_slow().into_answer(),
                };
                stream::iter([answer]).boxed()
            }
            Ok((true, request)) => {
                let pieces = self.doors.schema.execute_stream(request).map(coded).boxed();
                store::pieces_asked_from(self.origin, pieces).boxed()
            }
            Err(error) => stream::iter([error.into_answer()]).boxed(),
        }
    }
}

impl Executor for Operations {
    async fn execute(&self, request: Request) -> async_graphql::Response {
        match self.admit(request).await {
            Ok(request) => {
                let executed = self.doors.schema.execute(request);
                coded(store::asked_from(self.origin.clone(), executed).await)
            }
            Err(error) => error.into_answer(),
        }
    }

    fn execute_stream(
        &self,
        request: Request,
        _session: Option<Arc<Data>>,
    ) -> BoxStream<'static, async_graphql::Response> {
        let Ok(turn) = self.turns.clone().try_acquire_owned() else {
            let words = format!("at most {MAX_OPERATIONS} operations at once on one connection");
            return stream::iter([ApiError::new("TOO_MANY_OPERATIONS", words).into_answer()]).boxed();
        };
        let answers = self.clone().begin(request).into_stream().flatten();
        answers.map(move |answer| kept(&turn, answer)).boxed()
    }
}

/// Whether it is a subscription. What cannot be read is refused at once, either way.
fn goes_on(request: &mut Request) -> bool {
    let name = request.operation_name.clone();
    let Ok(document) = request.parsed_query() else { return false };
    document
        .operations
        .iter()
        .filter(|(known, _)| name.as_deref().is_none_or(|name| known.is_some_and(|known| known == name)))
        .any(|(_, operation)| operation.node.ty == OperationType::Subscription)
}

/// Ties a turn to the answers that it was taken for.
fn kept(_turn: &OwnedSemaphorePermit, answer: async_graphql::Response) -> async_graphql::Response {
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_found_in_every_spelling() {
        for payload in [
            json!({ "authorization": "Bearer abc" }),
            json!({ "Authorization": "bearer abc" }),
            json!({ "token": "abc" }),
            json!({ "token": "Bearer abc" }),
        ] {
            assert!(token_in(&payload).is_some(), "{payload}");
        }
        for payload in [json!(null), json!({}), json!({ "token": 5 }), json!({ "authorization": "abc" })] {
            assert!(token_in(&payload).is_none(), "{payload}");
        }
    }

    #[test]
    fn a_farewell_fits_a_control_frame() {
        let Message::Close(Some(frame)) = farewell(4403, &"é€x".repeat(200)) else {
            panic!("no close frame")
        };
        assert_eq!(frame.reason.as_str(), "x".repeat(120));
    }
}
