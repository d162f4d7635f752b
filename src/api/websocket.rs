//! GraphQL over WebSocket (graphql-transport-ws), for subscriptions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_graphql::Data;
use async_graphql_axum::{GraphQLProtocol, GraphQLWebSocket};
use axum::{
    extract::{State, WebSocketUpgrade},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    auth::{self, Token},
    error::ApiError,
    http::Doors,
};
use crate::vm::chain;

/// How long a client may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// The largest message a client may send.
const MAX_MESSAGE_BYTES: usize = 256 << 10;

pub(super) async fn upgrade(
    State(doors): State<Doors>,
    protocol: GraphQLProtocol,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Ok(permit) = doors.websockets.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many WebSockets are open").into_response();
    };
    let from_header = auth::token_of(&headers);
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .protocols(async_graphql::http::ALL_WEBSOCKET_PROTOCOLS)
        .on_upgrade(move |stream| async move {
            let _permit = permit;
            let introduced = Arc::new(AtomicBool::new(false));
            let (accounts, flag) = (doors.api.accounts.clone(), introduced.clone());
            let served = GraphQLWebSocket::new(stream, doors.schema.clone(), protocol)
                .on_connection_init(move |payload| async move {
                    let token = from_header.or_else(|| token_in(&payload));
                    let token = token.ok_or_else(ApiError::unauthenticated)?;
                    let known = accounts.authenticate(&token.0).await.map_err(|error| {
                        tracing::error!(error = chain(&error), "a caller could not be authenticated");
                        ApiError::new("INTERNAL", "who you are could not be found out now; try again")
                    })?;
                    let actor = known.ok_or_else(ApiError::unauthenticated)?;
                    flag.store(true, Ordering::Relaxed);
                    let mut data = Data::default();
                    data.insert(actor);
                    data.insert(token);
                    Ok(data)
                })
                .serve();
            tokio::pin!(served);
            tokio::select! {
                () = &mut served => return,
                () = doors.stop.cancelled() => return,
                () = tokio::time::sleep(INTRODUCTION) => {}
            }
            if !introduced.load(Ordering::Relaxed) {
                return;
            }
            tokio::select! {
                () = served => {}
                () = doors.stop.cancelled() => {}
            }
        })
}

/// `{"authorization": "Bearer …"}`, in the spellings that clients use, or `{"token": "…"}`.
fn token_in(payload: &Value) -> Option<Token> {
    for key in ["authorization", "Authorization"] {
        if let Some(token) = payload.get(key).and_then(Value::as_str).and_then(auth::bearer) {
            return Some(token);
        }
    }
    let token = payload.get("token")?.as_str()?;
    auth::bearer(&format!("Bearer {token}"))
}
