//! What installers say of how far they are: `stage=WORD`, by POST or, from one that can only ask, as a
//! query, to an address that only this one VM's installer was given.
//!
//! Whoever is on the guests' network can try. So a peer has few tries, few are looked up at the same
//! time, nothing is read that no report has, and neither an answer nor the log shows a token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::to_bytes,
    extract::{ConnectInfo, Path, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::Utc;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::listener::Peer;
use crate::{
    agents::TokenBucket,
    lifecycle::{Lifecycle, LifecycleError},
    vm::{InstallReport, chain, truncate_to_micros},
};

/// Hexadecimal digits of a token.
const TOKEN_DIGITS: usize = 64;
/// Longest report, bytes.
const MAX_BODY: usize = 256;
/// How long a report may take to arrive, and to be looked up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Reports of one peer: so many at once, and per second on average.
const BURST: f64 = 60.0;
const PER_SECOND: f64 = 1.0;
/// Peers that are remembered.
const MAX_PEERS: usize = 1024;
/// A peer that was silent for so long has all its tries again.
const FORGET: Duration = Duration::from_secs(60);
/// Reports that are looked up at the same time.
const LOOKUPS: usize = 4;

/// Takes what installers say.
#[async_trait]
pub trait InstallReports: Send + Sync + 'static {
    /// `false`: no installation that is under way has that token.
    async fn report(&self, token: &str, report: &InstallReport) -> Result<bool, LifecycleError>;
}

#[async_trait]
impl InstallReports for Lifecycle {
    async fn report(&self, token: &str, report: &InstallReport) -> Result<bool, LifecycleError> {
        self.report_install(token, report).await
    }
}

struct Ear {
    reports: Arc<dyn InstallReports>,
    tries: Mutex<Tries>,
    lookups: Semaphore,
}

/// The routes.
pub(super) fn router(reports: Arc<dyn InstallReports>) -> Router {
    let ear = Ear { reports, tries: Mutex::default(), lookups: Semaphore::new(LOOKUPS) };
    Router::new().route("/install/{token}", get(hear).post(hear)).with_state(Arc::new(ear))
}

async fn hear(State(ear): State<Arc<Ear>>, Path(token): Path<String>, request: Request) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.address.ip());
    if !ear.tries.lock().unwrap_or_else(PoisonError::into_inner).allow(peer, Instant::now()) {
        return said(StatusCode::TOO_MANY_REQUESTS, "too many reports; wait");
    }
    if !is_token(&token) {
        return nobody();
    }
    let stage = match stage(request).await {
        Ok(stage) => stage,
        Err(refused) => return refused,
    };
    let at = truncate_to_micros(Utc::now());
    let Some(report) = InstallReport::new(&stage, at) else {
        return said(StatusCode::BAD_REQUEST, "send stage=WORD, of a-z, 0-9 and '-', at most 64");
    };
    let heard = async {
        // Nobody closes the semaphore.
        let _place = ear.lookups.acquire().await.ok()?;
        Some(ear.reports.report(&token, &report).await)
    };
    match timeout(PATIENCE, heard).await {
        Ok(Some(Ok(true))) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(Ok(false))) => nobody(),
        Ok(Some(Err(error))) => {
            tracing::warn!(error = chain(&error), "an installer's report could not be noted");
            said(StatusCode::SERVICE_UNAVAILABLE, "not now; try again")
        }
        Ok(None) | Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, "not now; try again"),
    }
}

/// The word of a report, not looked at yet: no stage has a character that would be written otherwise
/// in a form.
async fn stage(request: Request) -> Result<String, Response> {
    let is_post = request.method() == Method::POST;
    let text = if is_post {
        let body = timeout(PATIENCE, to_bytes(request.into_body(), MAX_BODY)).await;
        let body = body.map_err(|_| said(StatusCode::REQUEST_TIMEOUT, "the report did not come"))?;
        let body = body.map_err(|_| said(StatusCode::PAYLOAD_TOO_LARGE, "a report has at most 256 bytes"))?;
        String::from_utf8_lossy(&body).into_owned()
    } else {
        request.uri().query().unwrap_or_default().to_owned()
    };
    Ok(text.strip_prefix("stage=").unwrap_or_default().to_owned())
}

fn is_token(text: &str) -> bool {
    text.len() == TOKEN_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Wrong, never given out, and of no use any more are one answer.
fn nobody() -> Response {
    said(StatusCode::NOT_FOUND, "no installation under way reports here")
}

fn said(status: StatusCode, words: &'static str) -> Response {
    (status, format!("{words}\n")).into_response()
}

/// How many reports each peer may still make.
#[derive(Default)]
struct Tries {
    peers: HashMap<IpAddr, (TokenBucket, Instant)>,
}

impl Tries {
    fn allow(&mut self, peer: IpAddr, now: Instant) -> bool {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGET);
            if self.peers.len() >= MAX_PEERS {
                return false;
            }
        }
        let new = || (TokenBucket::new(PER_SECOND, BURST, now), now);
        let (bucket, last) = self.peers.entry(peer).or_insert_with(new);
        *last = now;
        bucket.allow(1.0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_peer_has_so_many_tries_and_others_have_theirs() {
        let start = Instant::now();
        let mut tries = Tries::default();
        let passed = (0..200).filter(|_| tries.allow(peer(1), start)).count();
        assert_eq!(passed, 60);
        assert!(tries.allow(peer(2), start));
        assert!(tries.allow(peer(1), start + Duration::from_secs(1)));
        assert!(!tries.allow(peer(1), start + Duration::from_secs(1)));
    }

    #[test]
    fn only_so_many_peers_are_remembered() {
        let start = Instant::now();
        let mut tries = Tries::default();
        let passed = (0..5000).filter(|number| tries.allow(peer(*number), start)).count();
        assert_eq!((passed, tries.peers.len()), (MAX_PEERS, MAX_PEERS));
        assert!(tries.allow(peer(9999), start + FORGET));
        assert_eq!(tries.peers.len(), 1);
    }

    #[test]
    fn a_token_is_known_by_its_form() {
        assert!(is_token(&"0af".repeat(21).split_at(63).0.repeat(2)[..64]));
        for bad in
            [String::new(), "a".repeat(63), "a".repeat(65), "A".repeat(64), "g".repeat(64), "é".repeat(32)]
        {
            assert!(!is_token(&bad), "{bad}");
        }
    }
}
