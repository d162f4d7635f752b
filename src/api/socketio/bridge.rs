//! WebSockets of Socket.IO, with bounds that the library has not: how long a message may be, and how
//! long a client may take to read. The library speaks into one end of a pipe; what comes from the
//! client is looked at, frame by frame, on its way into the other.

use std::{convert::Infallible, io, pin::Pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_PAYLOAD,
    admission::Connection,
    counting::{self, Cut},
    frames::Frames,
    lines::Line,
};
use crate::api::{caller::Caller, error::ApiError};

/// What is on its way in either direction, bytes.
const PIPE: usize = 16 * 1024;
/// How long a client may take to read a piece of that.
const SEND_LIMIT: Duration = Duration::from_secs(10);

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;
/// The library.
pub(super) type Library = Arc<dyn Fn(hyper::Request<Incoming>) -> Answering + Send + Sync>;

/// Whereby a WebSocket is ended from here.
pub(super) struct Cuts {
    /// Of one that begins with it.
    pub(super) connection: Option<Arc<Connection>>,
    /// Of one that polled before.
    pub(super) line: Option<Line>,
}

impl Cuts {
    /// Both at once never are; of neither nobody ends anything.
    fn token(&self) -> CancellationToken {
        let begun = self.connection.as_ref().map(|connection| connection.token());
        begun.or_else(|| self.line.as_ref().map(Line::token)).unwrap_or_default()
    }
}

/// Answers the upgrade.
pub(super) async fn upgrade(library: Library, mut request: Request, cuts: Cuts) -> Response {
    let cut = cuts.token();
    let Cuts { connection, line } = cuts;
    let outer = hyper::upgrade::on(&mut request);
    match open(library, request, connection).await {
        Ok(mut answer) => {
            if answer.status() == hyper::StatusCode::SWITCHING_PROTOCOLS {
                let inner = hyper::upgrade::on(&mut answer);
                tokio::spawn(async move {
                    let bridged = async {
                        let (outer, inner) = tokio::try_join!(outer, inner).map_err(io::Error::other)?;
                        relay(TokioIo::new(outer), TokioIo::new(inner)).await
                    };
                    if let Some(Err(error)) = cut.run_until_cancelled(bridged).await {
                        tracing::debug!(%error, "a WebSocket of Socket.IO ends");
                    }
                    drop(line);
                });
            }
            answer.map(Body::new)
        }
        Err(error) => ApiError::internal(&error).into_http(),
    }
}

/// Asks the library for a WebSocket over a pipe of its own.
async fn open(
    library: Library,
    request: Request,
    connection: Option<Arc<Connection>>,
) -> Result<hyper::Response<Incoming>, hyper::Error> {
    let (near, far) = tokio::io::duplex(PIPE);
    let caller = request.extensions().get::<Caller>().copied();
    let serve = service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(connection) = &connection {
            request.extensions_mut().insert(connection.clone());
        }
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        library(request)
    });
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), serve).with_upgrades();
    tokio::spawn(ends(served));
    let (mut sender, asked) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(ends(asked.with_upgrades()));
    let (parts, _) = request.into_parts();
    sender.send_request(hyper::Request::from_parts(parts, Body::empty())).await
}

async fn ends(half: impl Future<Output = Result<(), hyper::Error>>) {
    if let Err(error) = half.await {
        tracing::debug!(%error, "a pipe to Socket.IO ends");
    }
}

/// Until either side ends, a message is too long, or the client does not read.
async fn relay(outer: impl AsyncRead + AsyncWrite, inner: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(outer);
    let (mut from_library, mut to_library) = tokio::io::split(inner);
    let inbound = async {
        let (mut frames, mut piece) = (Frames::new(MAX_PAYLOAD), vec![0; 4096]);
        loop {
            let read = from_client.read(&mut piece).await?;
            if read == 0 {
                return io::Result::Ok(());
            }
            if frames.pass(&piece[..read]).is_err() {
                counting::cut(Cut::TooLong);
                return Err(io::Error::other("a message is too long"));
            }
            to_library.write_all(&piece[..read]).await?;
        }
    };
    let outbound = async {
        let mut piece = vec![0; 4096];
        loop {
            let read = from_library.read(&mut piece).await?;
            if read == 0 {
                return Ok(());
            }
            let Ok(written) = timeout(SEND_LIMIT, to_client.write_all(&piece[..read])).await else {
                counting::cut(Cut::Unread);
                return Err(io::Error::other("the client does not read"));
            };
            written?;
        }
    };
    tokio::select! {
        ended = inbound => ended,
        ended = outbound => ended,
    }
}
