//! Routes, and GraphQL over HTTP.

use std::time::Duration;

use async_graphql::http::GraphiQLSource;
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, FromRequestParts, Request, State, WebSocketUpgrade},
    http::{Extensions, HeaderMap, HeaderName, Method, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ApiContext, auth::Token, deadline::Deadline, doors::Doors, error::ApiError, listener::Peer,
    problem::coded, room::Room, screenshot, sign_in, size::sized, socketio, websocket,
};

use crate::store::{self, AskedFrom};

/// How long requests under way may still take once the controller stops.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// Kept from a page that anybody may open: being framed, being guessed at, telling where it was.
const PAGE_HEADERS: [(HeaderName, &str); 3] = [
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The API's routes. `stop` ends WebSockets, and after a grace requests too: they would otherwise
/// keep a graceful stop waiting for as long as commands take.
pub fn router(api: ApiContext, stop: CancellationToken) -> Router {
    let doors = Doors::new(api, stop);
    routes(doors)
}

pub(super) fn routes(doors: Doors) -> Router {
    Router::new()
        .route("/graphql", get(open).post(graphql))
        .route("/graphql/ws", get(open))
        .merge(sign_in::routes())
        .merge(socketio::routes(&doors))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/vms/{id}/screenshot", get(screenshot::screenshot))
        .with_state(doors)
}

async fn graphql(State(doors): State<Doors>, request: Request) -> Response {
    let deadline = Deadline::at(Instant::now() + doors.api.config.request_timeout);
    let answer = tokio::select! {
        answer = answer(&doors, request, &deadline) => answer,
        () = deadline.passed() => Err(ApiError::new("REQUEST_TIMEOUT", "the request took too long; ask for less")),
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
    let token = Token::of(&parts.headers).ok_or_else(ApiError::unauthenticated)?;
    let actor = token.recent_actor(&doors.api).await?;
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

/// Where a request comes from, by what was noted on its way in.
pub(super) fn asked_from(noted: &Extensions) -> AskedFrom {
    let peer = noted.get::<ConnectInfo<Peer>>();
    AskedFrom { address: peer.map(|ConnectInfo(peer)| peer.address.ip().to_string()), request: None }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// One request: a batch would get around the limits of a query.
async fn read(body: Body, limit: u32) -> Result<async_graphql::Request, ApiError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let bytes = axum::body::to_bytes(body, limit).await.map_err(|_| {
        ApiError::new(
            "PAYLOAD_TOO_LARGE",
            format!("the request could not be read, or has over {limit} bytes"),
        )
    })?;
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
        let page = GraphiQLSource::build()
            .endpoint("/graphql")
            .subscription_endpoint("/graphql")
            .title("Infinibay")
            .finish();
        return (PAGE_HEADERS, Html(page)).into_response();
    }
    let words = "send queries with POST as application/json, or open a WebSocket (graphql-transport-ws)";
    let mut refused = ApiError::new("INVALID_QUERY", words).into_http();
    *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    refused
}

async fn healthz(State(doors): State<Doors>) -> Response {
    doors.health.answer(&doors.api).await
}

async fn metrics(State(doors): State<Doors>, headers: HeaderMap) -> Response {
    doors.scrapes.answer(&doors.api, &headers).await
}
