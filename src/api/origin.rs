//! Which web pages may open sockets. A browser lets any page open one anywhere and says only where the page
//! comes from; so that is looked at here. Whoever is no browser says nothing of the kind, and is let through
//! to show his token like everybody.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{error::ApiError, front::Front, rate};
use crate::config::Origins;

/// Where Socket.IO is, which begins without an upgrade.
const SOCKET_IO: &str = "/socket.io";

/// Refuses sockets of foreign pages: for all routes, as a layer.
pub(super) async fn checked(State(front): State<Front>, request: Request, next: Next) -> Response {
    let upgrade = request.headers().contains_key(header::UPGRADE) || request.method() == Method::CONNECT;
    let opens = upgrade || request.uri().path().starts_with(SOCKET_IO);
    if opens && !may_open(request.headers(), &front.http.allowed_origins) {
        rate::refused("origin");
        return ApiError::new("ORIGIN_NOT_ALLOWED", "pages of this origin may not use this API")
            .into_http()
            .into_response();
    }
    next.run(request).await
}

fn may_open(headers: &HeaderMap, allowed: &Origins) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if origins.next().is_some() {
        return false;
    }
    // A page of ours: what it was loaded from is what it asks.
    let place = origin.split_once("://").map(|(_, place)| place);
    let ours = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    allowed.contains(origin)
        || place.is_some_and(|place| ours.is_some_and(|ours| ours.eq_ignore_ascii_case(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn pages_of_ours_and_of_those_named_may() {
        let env =
            [("INFINIBAY__HTTP__ALLOWED_ORIGINS".to_owned(), "https://console.example".to_owned())].into();
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let sources = Sources { file: Some(file.path().into()), env, ..Sources::default() };
        let allowed = Config::load(&sources).unwrap().http.allowed_origins;
        let asked = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "vm.example:4000".parse().unwrap());
            for origin in origins {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            may_open(&headers, &allowed)
        };
        for good in [&[][..], &["http://vm.example:4000"], &["https://console.example"]] {
            assert!(asked(good), "{good:?}");
        }
        for bad in [
            &["https://evil.example"][..],
            &["null"],
            &[""],
            &["http://vm.example"],
            &["https://console.example.evil.example"],
            &["https://console.example", "https://evil.example"],
        ] {
            assert!(!asked(bad), "{bad:?}");
        }
    }
}
