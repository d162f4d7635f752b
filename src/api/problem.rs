//! Refusals outside of a resolver, in GraphQL's shape: clients have one way to read errors.

use async_graphql::{ErrorExtensionValues, Pos, Response as Answer};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};

use super::error::ApiError;

impl ApiError {
    /// As the answer of a query that failed before it began.
    pub(super) fn into_answer(self) -> Answer {
        let mut error = async_graphql::Error::from(self).into_server_error(Pos::default());
        error.locations.clear();
        Answer::from_errors(vec![error])
    }

    /// The same over HTTP, with the status that proxies and scripts understand.
    pub(super) fn into_http(self) -> Response {
        let status = match self.code() {
            "UNAUTHENTICATED" => StatusCode::UNAUTHORIZED,
            "TOO_MANY_ATTEMPTS" => StatusCode::TOO_MANY_REQUESTS,
            "FORBIDDEN" => StatusCode::FORBIDDEN,
            "VM_NOT_FOUND" => StatusCode::NOT_FOUND,
            "WRONG_STATE" => StatusCode::CONFLICT,
            "PAYLOAD_TOO_LARGE" => StatusCode::PAYLOAD_TOO_LARGE,
            "REQUEST_TIMEOUT" => StatusCode::GATEWAY_TIMEOUT,
            "SHUTTING_DOWN" | "TOO_MANY_CONNECTIONS" | "STORE_UNAVAILABLE" | "HYPERVISOR_UNAVAILABLE" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            "INTERNAL" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response = (status, Json(self.into_answer())).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Every error has a code: those of GraphQL itself (syntax, validation, limits) get
/// `INVALID_QUERY`.
pub(super) fn coded(mut answer: Answer) -> Answer {
    for error in &mut answer.errors {
        let extensions = error.extensions.get_or_insert_with(ErrorExtensionValues::default);
        if extensions.get("code").is_none() {
            extensions.set("code", "INVALID_QUERY");
        }
    }
    answer
}
