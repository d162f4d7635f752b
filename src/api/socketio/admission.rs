//! Who may connect at all, before anybody has introduced himself: as many as there are places for
//! WebSockets, whichever way they come.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    bridge::{self, Cuts, Library},
    lines::Lines,
};
use crate::api::{doors::Doors, error::ApiError};

/// What the route needs to let somebody in.
#[derive(Clone)]
pub(super) struct Admission {
    library: Library,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    lines: Lines,
}

/// A connection of the protocol below Socket.IO; it travels with the request that opened it, and
/// so lives as long as the connection.
pub(super) struct Connection {
    cut: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Cancelled when it ends.
    pub(super) fn token(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl Admission {
    pub(super) fn new(doors: &Doors, library: Library, lines: Lines) -> Self {
        Self { library, places: doors.websockets.clone(), stop: doors.stop.clone(), lines }
    }
}

/// Lets a request of a connection that there is pass, and a new one where there is a place.
pub(super) async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let mut connection = None;
    let id = parameter(&request, "sid").map(str::to_owned);
    if id.is_none() {
        let Ok(place) = admission.places.clone().try_acquire_owned() else {
            let words = "too many connections are open; try again";
            return ApiError::new("TOO_MANY_CONNECTIONS", words).into_http();
        };
        let begun = Arc::new(Connection { cut: CancellationToken::new(), _place: place });
        request.extensions_mut().insert(begun.clone());
        connection = Some(begun);
    }
    if request.headers().contains_key(header::UPGRADE) {
        let line = id.map(|id| admission.lines.enter(id));
        return bridge::upgrade(admission.library, request, Cuts { connection, line }).await;
    }
    // One that polls waits for what comes next.
    tokio::select! {
        answer = next.run(request) => answer,
        () = admission.stop.cancelled() => {
            ApiError::new("SHUTTING_DOWN", "the controller is stopping; try again").into_http()
        }
    }
}

/// The first of that name in the query.
fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}
