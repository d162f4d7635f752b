//! Routes, and GraphQL over HTTP.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequestParts, Request, State, WebSocketUpgrade},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    auth::Token,
    caller::{address, asked_from},
    deadline::{Deadline, too_slow},
    doors::Doors,
    downloads,
    error::ApiError,
    fence, page,
    problem::coded,
    rate,
    room::Room,
    screenshot, sign_in,
    size::sized,
    slow, socketio, websocket,
};

use crate::{access::Actor, store};

/// How long requests under way may still take once the controller stops.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// The API's routes. The doors' `stop` ends WebSockets, and after a grace requests too: they would
/// otherwise keep a graceful stop waiting for as long as commands take.
pub(super) fn router(doors: Doors) -> Router {
    let front = doors.api.front.clone();
    fence::around(routes(doors), &front)
}

pub(super) fn routes(doors: Doors) -> Router {
    let downloads = downloads::routes(&doors.api.front.base_dir);
    let strangers = axum::middleware::from_fn_with_state(doors.clone(), rate::of_addresses);
    Router::new()
        .route("/graphql", get(open).post(graphql))
        .route("/graphql/ws", get(open))
        .merge(sign_in::routes().layer(strangers))
        .merge(downloads)
        .merge(socketio::routes(&doors))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/vms/{id}/screenshot", get(screenshot::screenshot))
        .with_state(doors)
}

async fn graphql(State(doors): State<Doors>, request: Request) -> Response {
    let deadline = Deadline::at(Instant::now() + doors.api.config.request_timeout);
    let answer = tokio::select! {
        answer = answer(&doors, request, &deadline) => answer,
        () = deadline.passed() => Err(too_slow()),
        () = stopped(&doors.stop) => Err(ApiError::new("SHUTTING_DOWN", "the controller is stopping; try again")),
    };
    match answer {
        Ok(answer) => Json(coded(answer)).into_response(),
        Err(error) => error.into_http(),
    }
}

async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_GRACE).await;
}

/// Who is asking comes before what is asked: a stranger's body is not read.
async fn answer(
    doors: &Doors,
    request: Request,
    deadline: &Deadline,
) -> Result<async_graphql::Response, ApiError> {
    let (parts, body) = request.into_parts();
    let origin = asked_from(&parts.extensions);
    let (token, actor) = admitted(doors, &parts).await?;
    // Also what keeps foreign pages out: a browser sends this type only where it is allowed to.
    if !is_json(&parts.headers) {
        return Err(ApiError::new("INVALID_QUERY", "send the query as application/json"));
    }
    let request = read(body, doors.api.config.max_body_bytes).await?;
    let request = sized(request, &doors.api)?;
    let request =
        request.data(actor).data(token).data(deadline.clone()).data(Room::default()).data(origin.clone());
    Ok(store::asked_from(origin, doors.schema.execute(request)).await)
}

/// Who is asking, if he does not ask too much.
///
/// # Errors
/// `UNAUTHENTICATED`, `RATE_LIMITED`, `STORE_UNAVAILABLE`.
pub(super) async fn admitted(doors: &Doors, parts: &Parts) -> Result<(Token, Actor), ApiError> {
    let token = Token::of(&parts.headers);
    doors.limits.check(token.as_ref(), address(&parts.extensions))?;
    let token = token.ok_or_else(ApiError::unauthenticated)?;
    let actor = token.recent_actor(&doors.api).await;
    match &actor {
        Ok(_) => doors.limits.note(&token, true),
        Err(refused) if refused.code() == "UNAUTHENTICATED" => doors.limits.note(&token, false),
        Err(_) => {}
    }
    Ok((token, actor?))
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// One request: a batch would get around the limits of a query.
async fn read(body: Body, limit: u32) -> Result<async_graphql::Request, ApiError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let bytes = axum::body::to_bytes(body, limit).await.map_err(|error| slow::unread(&error, limit))?;
    // A list would be taken for the request's fields in their order.
    let object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !object {
        return Err(ApiError::new("INVALID_QUERY", "the body is no single GraphQL request in a JSON object"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::new("INVALID_QUERY", format!("the body is no GraphQL request: {error}")))
}

/// A WebSocket, or the page for people. What the page asks needs a token like everything else.
async fn open(State(doors): State<Doors>, request: Request) -> Response {
    let (mut parts, _body) = request.into_parts();
    let upgrade = parts.headers.contains_key(header::UPGRADE) || parts.method == Method::CONNECT;
    if upgrade {
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => {
                let origin = asked_from(&parts.extensions);
                websocket::open(doors, &parts.headers, origin, upgrade)
            }
            Err(refused) => refused.into_response(),
        };
    }
    let accepts =
        parts.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        return page::page();
    }
    let words = "send queries with POST as application/json, or open a WebSocket (graphql-transport-ws)";
    let mut refused = ApiError::new("INVALID_QUERY", words).into_http();
    *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    refused
}

async fn healthz(State(doors): State<Doors>) -> Response {
    doors.health.answer(&doors.api).await
}

async fn readyz(State(doors): State<Doors>) -> Response {
    doors.readiness.answer(&doors.api).await
}

async fn metrics(State(doors): State<Doors>, request: Request) -> Response {
    let origin = asked_from(request.extensions());
    doors.scrapes.answer(&doors, request.headers(), origin).await
}
