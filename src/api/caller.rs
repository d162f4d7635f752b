//! Whose request it is, as far as that is known before he says who he is: an address, and a number by which
//! the request is found in the log, in the audit log and in the errors it got.

use std::{net::IpAddr, time::Instant};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{Extensions, HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{forwarded, front::Front, listener::Peer};
use crate::store::{self, AskedFrom};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is noted under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// Where it comes from: behind a trusted proxy, whom that asks for.
    pub(super) address: IpAddr,
    /// Its number.
    pub(super) request: Uuid,
}

/// Notes who asks; the rest of the way knows it.
pub(super) async fn noted(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.address.ip());
    let Some(peer) = peer else { return next.run(request).await };
    let headers = request.headers();
    let http = &front.http;
    let caller = Caller {
        address: forwarded::caller(peer, headers, &http.trusted_proxies, http.proxy_header),
        request: numbered(headers).unwrap_or_else(Uuid::now_v7),
    };
    let id = caller.request;
    let span = tracing::info_span!("request", %id, method = %request.method(), path = request.uri().path(), from = %caller.address);
    request.extensions_mut().insert(caller);
    let origin = asked_from(request.extensions());
    let begun = Instant::now();
    let answered = async {
        let response = store::asked_from(origin, next.run(request)).await;
        tracing::debug!(status = response.status().as_u16(), took = ?begun.elapsed(), "a request was answered");
        response
    };
    let mut response = answered.instrument(span).await;
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The number a client gave its request, where it is one: a UUID, with hyphens or without. Anything else
/// would be a text of a stranger's in our log.
fn numbered(headers: &HeaderMap) -> Option<Uuid> {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let (Some(one), None) = (given.next(), given.next()) else { return None };
    let text = one.to_str().ok().filter(|text| matches!(text.len(), 32 | 36))?;
    Uuid::try_parse(text).ok().filter(|id| !id.is_nil())
}

/// Where a request comes from, by what was noted on its way in.
pub(super) fn asked_from(noted: &Extensions) -> AskedFrom {
    AskedFrom {
        address: address(noted).map(|address| address.to_string()),
        request: noted.get::<Caller>().map(|caller| caller.request),
    }
}

/// The address that counts.
pub(super) fn address(noted: &Extensions) -> Option<IpAddr> {
    let caller = noted.get::<Caller>().map(|caller| caller.address);
    caller.or_else(|| noted.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_uuid_and_one() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(REQUEST_ID, value.parse().unwrap());
            }
            numbered(&headers).map(|id| id.to_string())
        };
        let id = "0198c0de-0000-7000-8000-000000000001";
        assert_eq!(read(&[id]).as_deref(), Some(id));
        assert_eq!(read(&["0198c0de000070008000000000000001"]).as_deref(), Some(id));
        assert_eq!(read(&["0198C0DE-0000-7000-8000-000000000001"]).as_deref(), Some(id));
        let braced = format!("{{{id}}}");
        let nil = Uuid::nil().to_string();
        for bad in [
            &[][..],
            &[""],
            &["x"],
            &[braced.as_str()],
            &[nil.as_str()],
            &[id, id],
            &["x; drop\ttable audit_log --; 12345678"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
