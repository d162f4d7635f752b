//! Routes, limits and the listener.

use std::{io, time::Duration};

use async_graphql::http::GraphiQLSource;
use async_graphql_axum::{GraphQLRequest, GraphQLResponse};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use super::{
    ApiContext, auth,
    schema::{self, ApiSchema},
    websocket,
};
use crate::vm::chain;

/// What routes share.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) api: ApiContext,
    pub(super) schema: ApiSchema,
    pub(super) stop: CancellationToken,
    pub(super) websockets: std::sync::Arc<tokio::sync::Semaphore>,
}

/// How long `/healthz` waits for the database.
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// The API's routes. `stop` ends WebSockets, which would otherwise keep a graceful stop waiting.
pub fn router(api: ApiContext, stop: CancellationToken) -> Router {
    let timeout = api.config.request_timeout;
    let body_limit = usize::try_from(api.config.max_body_bytes).unwrap_or(usize::MAX);
    let websockets = usize::try_from(api.config.max_websockets).unwrap_or(usize::MAX);
    let doors = Doors {
        schema: schema::build(api.clone()),
        api,
        stop,
        websockets: std::sync::Arc::new(tokio::sync::Semaphore::new(websockets)),
    };
    let timed = Router::new()
        .route("/graphql", get(graphiql))
        .route("/healthz", get(health))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, timeout));
    // A mutation that waits for a command takes as long as the command may: it bounds itself.
    Router::new()
        .route("/graphql", axum::routing::post(graphql))
        .route("/graphql/ws", get(websocket::upgrade))
        .merge(timed)
        .layer(DefaultBodyLimit::max(body_limit))
        .with_state(doors)
}

/// Serves until `stop`, then lets requests under way end.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, api: ApiContext, stop: CancellationToken) -> io::Result<()> {
    let router = router(api, stop.clone());
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn graphql(State(doors): State<Doors>, headers: HeaderMap, request: GraphQLRequest) -> Response {
    let Some(token) = auth::token_of(&headers) else { return unauthenticated() };
    match doors.api.accounts.authenticate(&token.0).await {
        Ok(Some(actor)) => {
            let request = request.into_inner().data(actor).data(token);
            GraphQLResponse::from(doors.schema.execute(request).await).into_response()
        }
        Ok(None) => unauthenticated(),
        Err(error) => {
            tracing::error!(error = chain(&error), "a caller could not be authenticated");
            let body = problem("INTERNAL", "who you are could not be found out now; try again");
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

fn unauthenticated() -> Response {
    let body = problem("UNAUTHENTICATED", "send a valid token as `Authorization: Bearer …`");
    (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")], Json(body)).into_response()
}

/// In GraphQL's shape, so that clients have one way to read errors.
fn problem(code: &str, message: &str) -> serde_json::Value {
    json!({ "data": null, "errors": [{ "message": message, "extensions": { "code": code } }] })
}

/// The page only; what it asks needs a token like everything else.
async fn graphiql() -> impl IntoResponse {
    Html(
        GraphiQLSource::build()
            .endpoint("/graphql")
            .subscription_endpoint("/graphql/ws")
            .title("Infinibay")
            .finish(),
    )
}

async fn health(State(doors): State<Doors>) -> Response {
    let database = tokio::time::timeout(HEALTH_LIMIT, doors.api.store.ping()).await;
    match database {
        Ok(Ok(())) => Json(json!({ "status": "ok" })).into_response(),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the database does not answer");
            unhealthy("the database does not answer")
        }
        Err(_) => unhealthy("the database does not answer in time"),
    }
}

fn unhealthy(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "failing", "reason": reason }))).into_response()
}
