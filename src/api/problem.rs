//! Refusals outside of a resolver, in GraphQL's shape: clients have one way to read errors.

use async_graphql::{ErrorExtensionValues, Pos, Response as Answer};
use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::store;

impl ApiError {
    /// As the answer of a query that failed before it began.
    pub(super) fn into_answer(self) -> Answer {
        told(self.code());
        let mut error = async_graphql::Error::from(self).into_server_error(Pos::default());
        error.locations.clear();
        Answer::from_errors(vec![error])
    }

    /// The same over HTTP, with the status that proxies and scripts understand.
    pub(super) fn into_http(self) -> Response {
        let status = match self.code() {
            "UNAUTHENTICATED" => StatusCode::UNAUTHORIZED,
            "TOO_MANY_ATTEMPTS" | "RATE_LIMITED" => StatusCode::TOO_MANY_REQUESTS,
            "FORBIDDEN" | "ORIGIN_NOT_ALLOWED" => StatusCode::FORBIDDEN,
            "VM_NOT_FOUND" | "NOT_FOUND" => StatusCode::NOT_FOUND,
            "WRONG_STATE" => StatusCode::CONFLICT,
            "PAYLOAD_TOO_LARGE" => StatusCode::PAYLOAD_TOO_LARGE,
            "URI_TOO_LONG" => StatusCode::URI_TOO_LONG,
            "BODY_TIMEOUT" => StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT" => StatusCode::GATEWAY_TIMEOUT,
            "SHUTTING_DOWN" | "TOO_MANY_CONNECTIONS" | "STORE_UNAVAILABLE" | "HYPERVISOR_UNAVAILABLE" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            "INTERNAL" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let wait = self.wait();
        let mut response = (status, Json(self.into_answer())).into_response();
        if let Some(wait) = wait {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Longest message about a query, in characters.
const MAX_MESSAGE: usize = 500;

/// Most errors of GraphQL itself in one answer; a long query can be wrong in a thousand places.
const MAX_ERRORS: usize = 10;

/// Every error has a code: those of GraphQL itself (syntax, validation, limits) get
/// `INVALID_QUERY`. Their messages repeat what was sent, which may be a megabyte, or meant for a
/// terminal.
pub(super) fn coded(mut answer: Answer) -> Answer {
    let mut of_graphql = 0;
    answer.errors.retain(|error| {
        let has_code = error.extensions.as_ref().is_some_and(|told| told.get("code").is_some());
        of_graphql += usize::from(!has_code);
        has_code || of_graphql <= MAX_ERRORS
    });
    for error in &mut answer.errors {
        let extensions = error.extensions.get_or_insert_with(ErrorExtensionValues::default);
        if extensions.get("code").is_none() {
            extensions.set("code", "INVALID_QUERY");
            if let Some(request) = store::request_at_hand() {
                extensions.set("requestId", request.to_string());
            }
            error.message = repeated(&error.message);
        }
        if let Some(async_graphql::Value::String(code)) = extensions.get("code") {
            told(code);
        }
    }
    answer
}

/// Counts what somebody was told. Codes are ours, and so few; most refusals of strangers are nowhere else.
fn told(code: &str) {
    metrics::counter!("infinibay_refusals_total", "code" => code.to_owned()).increment(1);
}

fn repeated(message: &str) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    let mut said: String = message.chars().take(MAX_MESSAGE).map(plain).collect();
    if message.chars().nth(MAX_MESSAGE).is_some() {
        said.push('…');
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_is_wrong_in_many_places_is_told_of_some() {
        let own = ApiError::new("FORBIDDEN", "no").into_answer().errors.remove(0);
        let graphql = || async_graphql::ServerError::new("what is that?", None);
        let mut errors: Vec<_> = (0..500).map(|_| graphql()).collect();
        errors.extend((0..20).map(|_| own.clone()));
        let told = coded(Answer::from_errors(errors)).errors;
        assert_eq!(told.len(), MAX_ERRORS + 20, "a refusal of ours is never left out");
    }

    #[test]
    fn what_graphql_repeats_is_bounded_and_steers_no_terminal() {
        assert_eq!(repeated("no \u{1b}[2J\0 of that\n  |"), "no \u{fffd}[2J\u{fffd} of that\n  |");
        let most = "ä".repeat(MAX_MESSAGE);
        assert_eq!(repeated(&most), most);
        assert_eq!(repeated(&format!("{most}a")), format!("{most}…"));
    }
}
