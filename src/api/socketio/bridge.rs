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

use super::{MAX_PAYLOAD, admission::Connection, frames::Frames};
use crate::api::{caller::Caller, error::ApiError};

/// What is on its way in either direction, bytes.
const PIPE: usize = 16 * 1024;
/// How long a client may take to read a piece of that.
const SEND_LIMIT: Duration = Duration::from_secs(10);

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;
/// The library.
pub(super) type Library = Arc<dyn Fn(hyper::Request<Incoming>) -> Answering + Send + Sync>;

/// Answers the upgrade; `connection` is of one that begins here.
pub(super) async fn upgrade(
    library: Library,
    mut request: Request,
    connection: Option<Arc<Connection>>,
) -> Response {
    let cut = connection.as_ref().map_or_else(CancellationToken::new, |connection| connection.token());
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
            frames.pass(&piece[..read]).map_err(|_| io::Error::other("a message is too long"))?;
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
            timeout(SEND_LIMIT, to_client.write_all(&piece[..read])).await??;
        }
    };
    tokio::select! {
        ended = inbound => ended,
        ended = outbound => ended,
    }
}
