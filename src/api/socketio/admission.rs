//! Who may connect at all, before anybody has introduced himself: as many as there are places for
//! WebSockets, whichever way they come.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use tokio_util::sync::CancellationToken;

use super::{
    bridge::{self, Cuts, Library},
    lines::Lines,
};
use crate::api::{caller, doors::Doors, error::ApiError, places::Place};

/// What the route needs to let somebody in.
#[derive(Clone)]
pub(super) struct Admission {
    library: Library,
    doors: Doors,
    stop: CancellationToken,
    lines: Lines,
}

/// A connection of the protocol below Socket.IO; it travels with the request that opened it, and
/// so lives as long as the connection.
pub(super) struct Connection {
    cut: CancellationToken,
    place: Place,
}

impl Connection {
    /// Cancelled when it ends.
    pub(super) fn token(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Whoever it is has shown a token.
    pub(super) fn introduced(&self) {
        self.place.introduced();
    }
}

impl Admission {
    pub(super) fn new(doors: &Doors, library: Library, lines: Lines) -> Self {
        Self { library, doors: doors.clone(), stop: doors.stop.clone(), lines }
    }
}

/// Lets a request of a connection that there is pass, and a new one where there is a place.
pub(super) async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let mut connection = None;
    let id = parameter(&request, "sid").map(str::to_owned);
    if id.is_none() {
        let from = caller::address(request.extensions());
        let Doors { limits, places, .. } = &admission.doors;
        let place = match limits.check(None, from).and_then(|()| places.enter(from)) {
            Ok(place) => place,
            Err(refused) => return refused.into_http(),
        };
        let begun = Arc::new(Connection { cut: CancellationToken::new(), place });
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
