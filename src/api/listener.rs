//! Listening within bounds.
//!
//! Whoever may connect may also connect a thousand times and say nothing. A listener therefore
//! holds only so many connections, in all and of one peer, and ends those on which nothing has
//! moved for a while, unless a request of theirs is being worked on.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, connect_info::Connected},
    middleware::Next,
    response::Response,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

/// How much of a listener there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once; more wait.
    pub(super) connections: usize,
    /// Connections of one address at once; more are closed.
    pub(super) per_peer: usize,
    /// A connection on which nothing moves for so long is closed.
    pub(super) idle: Duration,
    /// How long a graceful stop waits for connections.
    pub(super) stop_limit: Duration,
}

/// Serves until `stop`, then lets requests under way end, within the bound.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    bounds: Bounds,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = Bounded {
        inner: listener,
        bounds,
        places: Arc::new(Semaphore::new(bounds.connections)),
        peers: Arc::default(),
    };
    let routes = routes.layer(axum::middleware::from_fn(at_work));
    let service = routes.into_make_service_with_connect_info::<Peer>();
    let server = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(bounds.stop_limit).await;
    };
    tokio::select! {
        ended = server => ended,
        () = overdue => Ok(()),
    }
}

struct Bounded {
    inner: TcpListener,
    bounds: Bounds,
    places: Arc<Semaphore>,
    peers: Arc<Peers>,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // Nobody closes the semaphore.
                std::future::pending().await
            };
            let (stream, address) = Listener::accept(&mut self.inner).await;
            let Some(peer) = self.peers.clone().admit(address.ip(), self.bounds.per_peer) else {
                tracing::debug!(%address, "too many connections of one peer");
                continue;
            };
            // An event must not wait until the one before it has been acknowledged.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%address, %error, "a connection answers with delay");
            }
            return (Connection::new(stream, self.bounds.idle, place, peer), address);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// How many connections each peer has.
#[derive(Debug, Default)]
struct Peers {
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    fn admit(self: Arc<Self>, peer: IpAddr, limit: usize) -> Option<PeerPlace> {
        {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(peer).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        Some(PeerPlace { peers: self, peer })
    }
}

#[derive(Debug)]
struct PeerPlace {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// How many requests of a connection are being worked on.
#[derive(Debug, Clone, Default)]
struct AtWork(Arc<AtomicUsize>);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    at_work: AtWork,
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self { address: *stream.remote_addr(), at_work: stream.io().at_work.clone() }
    }
}

/// Lowers the count however the request ends.
struct Working(AtWork);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn at_work(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let count = peer.at_work;
    count.0.fetch_add(1, Ordering::Relaxed);
    let _working = Working(count);
    next.run(request).await
}

/// A connection that is closed when it idles.
struct Connection {
    stream: TcpStream,
    idle: Duration,
    moved: Instant,
    alarm: Pin<Box<Sleep>>,
    at_work: AtWork,
    _place: OwnedSemaphorePermit,
    _peer: PeerPlace,
}

impl Connection {
    fn new(stream: TcpStream, idle: Duration, place: OwnedSemaphorePermit, peer: PeerPlace) -> Self {
        Self {
            stream,
            idle,
            moved: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(idle)),
            at_work: AtWork::default(),
            _place: place,
            _peer: peer,
        }
    }

    /// Notes what moved; while nothing does, looks at the clock.
    fn watched<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.moved = Instant::now();
            return result;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.at_work.0.load(Ordering::Relaxed) > 0 {
                self.moved = now;
            }
            let end = self.moved + self.idle;
            if now >= end {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(end);
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watched(cx, result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watched(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
