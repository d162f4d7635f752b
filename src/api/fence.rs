//! What every request passes on its way in and every answer on its way out, whatever door it is for.

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{caller, error::ApiError, front::Front, listener::Peer, origin, rate, slow};

/// The longest path and query, bytes: no door has one of a tenth of it.
const MAX_URI: usize = 4096;

/// What a browser must not do with what it gets from here.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

/// A browser that was here by TLS comes no other way for a year.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Routes with everything that stands before them.
pub(super) fn around(routes: Router, front: &Front) -> Router {
    let with = |routes: Router| routes.layer(from_fn_with_state(front.clone(), slow::bounded));
    let mut routes = with(routes.fallback(nothing)).layer(from_fn(short));
    routes = routes.layer(from_fn_with_state(front.clone(), origin::checked));
    if !front.http.allowed_origins.is_empty() {
        routes = routes.layer(elsewhere(front));
    }
    routes
        .layer(from_fn_with_state(front.clone(), caller::noted))
        .layer(from_fn_with_state(front.clone(), marked))
}

/// What pages of other origins may ask and see. They send their token themselves: nothing that a browser
/// would add by itself lets anybody in here, so nothing of the kind is allowed.
fn elsewhere(front: &Front) -> CorsLayer {
    let allowed = front.http.allowed_origins.clone();
    let known =
        move |origin: &HeaderValue, _: &_| origin.to_str().is_ok_and(|origin| allowed.contains(origin));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(known))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, caller::REQUEST_ID])
        .expose_headers([header::RETRY_AFTER, caller::REQUEST_ID])
        .max_age(Duration::from_secs(600))
}

async fn marked(State(front): State<Front>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let by_tls = front.tls.is_some() && peer.is_none_or(|ConnectInfo(peer)| peer.secure);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        // A door that says more has its reasons.
        headers.entry(name).or_insert(value);
    }
    if by_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
    response
}

async fn short(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, str::len);
    if length > MAX_URI {
        rate::refused("too_long");
        let words = format!("a path and its query have at most {MAX_URI} bytes");
        return ApiError::new("URI_TOO_LONG", words).into_http();
    }
    next.run(request).await
}

async fn nothing() -> Response {
    ApiError::new("NOT_FOUND", "there is no such path").into_http().into_response()
}
