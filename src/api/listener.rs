//! Listening within bounds.
//!
//! Whoever may connect may also connect a thousand times and say nothing. A listener therefore
//! holds only so many connections, in all and of one peer, and ends those on which nothing has
//! moved for a while, unless a request of theirs is being worked on.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::Response,
    serve::Listener,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::{rate, tls::Tls};
use crate::config::Networks;

/// How much of a listener there is.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Connections at once.
    pub(super) connections: usize,
    /// What becomes of more.
    pub(super) when_full: WhenFull,
    /// Connections of one address at once; more are refused.
    pub(super) per_peer: usize,
    /// Addresses without that bound.
    pub(super) unbounded: Networks,
    /// How long a request's head may take to arrive, and a handshake; how long the next one is waited for.
    pub(super) head: Duration,
    /// The longest head, bytes.
    pub(super) head_bytes: usize,
    /// A connection on which nothing moves for so long is closed.
    pub(super) idle: Duration,
    /// How long a graceful stop waits for connections.
    pub(super) stop_limit: Duration,
}

/// What becomes of connections for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// They wait until there is.
    Waits,
    /// They are told so.
    Refuses,
}

/// What is said on a connection for which there is no room, whatever is asked on it.
const REFUSAL: &str = "{\"data\":null,\"errors\":[{\"message\":\"too many connections are open; try again\",\
    \"extensions\":{\"code\":\"TOO_MANY_CONNECTIONS\"}}]}";
/// Connections that are told so at the same time; others are just closed.
const REFUSALS: usize = 64;
/// How long one of them may take to hear it.
const HEARING: Duration = Duration::from_secs(1);
/// How long what a client still sends is read and forgotten once all has been said to it, and how
/// much of that: a body of which no more was wanted. Without it the kernel resets the connection,
/// which takes the answer back on its way.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 32 << 20;

/// Serves until `stop`, then lets requests under way end, within the bound.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    bounds: Bounds,
    tls: Option<Tls>,
    stop: CancellationToken,
) -> io::Result<()> {
    let routes = routes.layer(axum::middleware::from_fn(at_work));
    let stop_limit = bounds.stop_limit;
    let house = House {
        bounds: Arc::new(bounds),
        routes,
        tls,
        stop: stop.clone(),
        overdue: CancellationToken::new(),
    };
    let mut door = Door::new(listener, &house.bounds, house.tls.is_some());
    let (guests, places) = (TaskTracker::new(), Arc::clone(&door.places));
    loop {
        let (connection, address) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = door.accept() => accepted,
        };
        guests.spawn(house.clone().receive(connection, address));
    }
    // Nobody else comes in.
    drop(door);
    guests.close();
    let all = u32::try_from(house.bounds.connections).unwrap_or(u32::MAX);
    let ended = async {
        guests.wait().await;
        // WebSockets left those tasks and still have their places.
        let _ = places.acquire_many(all).await;
    };
    if timeout(stop_limit, ended).await.is_err() {
        tracing::info!("connections are cut off: they did not end in time");
    }
    house.overdue.cancel();
    Ok(())
}

/// What a connection meets inside.
#[derive(Clone)]
struct House {
    bounds: Arc<Bounds>,
    routes: Router,
    tls: Option<Tls>,
    stop: CancellationToken,
    overdue: CancellationToken,
}

impl House {
    async fn receive(self, connection: Connection, address: SocketAddr) {
        let peer = Peer { address, secure: self.tls.is_some(), at_work: connection.at_work.clone() };
        let overdue = self.overdue.clone();
        let served = async {
            let Some(tls) = &self.tls else { return self.converse(connection, peer).await };
            // Whoever has not shown that he speaks TLS is not waited for at a stop.
            let shaken = tokio::select! {
                () = self.stop.cancelled() => return,
                shaken = timeout(self.bounds.head, tls.acceptor().accept(connection)) => shaken,
            };
            match shaken {
                Ok(Ok(stream)) => self.converse(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
            }
        };
        tokio::select! {
            () = served => {}
            () = overdue.cancelled() => {}
        }
    }

    async fn converse<I>(&self, io: I, peer: Peer)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let routes = self.routes.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            let answered = routes.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answered.await.unwrap_or_else(|never| match never {})) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head)
            .max_buf_size(self.bounds.head_bytes);
        let conversation = http.serve_connection(TokioIo::new(io), service).with_upgrades();
        let mut conversation = std::pin::pin!(conversation);
        let ended = tokio::select! {
            ended = conversation.as_mut() => ended,
            () = self.stop.cancelled() => {
                conversation.as_mut().graceful_shutdown();
                conversation.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "a connection ended badly");
        }
    }
}

/// Lets connections in.
struct Door {
    inner: TcpListener,
    idle: Duration,
    when_full: WhenFull,
    per_peer: usize,
    unbounded: Networks,
    by_tls: bool,
    places: Arc<Semaphore>,
    peers: Arc<Peers>,
    refusals: Arc<Semaphore>,
}

impl Door {
    fn new(inner: TcpListener, bounds: &Bounds, by_tls: bool) -> Self {
        Self {
            inner,
            idle: bounds.idle,
            when_full: bounds.when_full,
            per_peer: bounds.per_peer,
            unbounded: bounds.unbounded.clone(),
            by_tls,
            places: Arc::new(Semaphore::new(bounds.connections)),
            peers: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        }
    }

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let waited = match self.when_full {
                WhenFull::Refuses => None,
                // Nobody closes the semaphore.
                WhenFull::Waits => self.places.clone().acquire_owned().await.ok(),
            };
            let (stream, address) = Listener::accept(&mut self.inner).await;
            let Some(place) = waited.or_else(|| self.places.clone().try_acquire_owned().ok()) else {
                tracing::debug!(%address, "too many connections");
                self.refuse(stream);
                continue;
            };
            let limit = if self.unbounded.contains(address.ip()) { usize::MAX } else { self.per_peer };
            let Some(peer) = self.peers.clone().admit(rate::network(address.ip()), limit) else {
                tracing::debug!(%address, "too many connections of one peer");
                self.refuse(stream);
                continue;
            };
            // An event must not wait until the one before it has been acknowledged.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%address, %error, "a connection answers with delay");
            }
            return (Connection::new(stream, self.idle, place, peer), address);
        }
    }

    /// Says that there is no room. Inside TLS that would cost as much as serving.
    fn refuse(&self, stream: TcpStream) {
        rate::refused("connections");
        let Ok(hearing) = self.refusals.clone().try_acquire_owned() else { return };
        if self.by_tls {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = timeout(HEARING, tell(stream)).await.unwrap_or(Ok(())) {
                tracing::debug!(%error, "a refused connection did not hear why");
            }
            drop(hearing);
        });
    }
}

/// Closing with something unread would take back what was said, so the request is read and forgotten.
async fn tell(stream: TcpStream) -> io::Result<()> {
    let mut stream = stream.into_std()?;
    let length = REFUSAL.len();
    write!(
        stream,
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{REFUSAL}"
    )?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut stream = TcpStream::from_std(stream)?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
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
    /// Whether the connection is TLS.
    pub(super) secure: bool,
    at_work: AtWork,
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
    lingering: Option<Lingering>,
    _place: OwnedSemaphorePermit,
    _peer: PeerPlace,
}

/// A connection on which all has been said.
struct Lingering {
    end: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Connection {
    fn new(stream: TcpStream, idle: Duration, place: OwnedSemaphorePermit, peer: PeerPlace) -> Self {
        Self {
            stream,
            idle,
            moved: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(idle)),
            at_work: AtWork::default(),
            lingering: None,
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

    /// Says that there is no more, then reads and forgets what still comes, within bounds.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                let end = Box::pin(tokio::time::sleep(LINGER));
                this.lingering.insert(Lingering { end, bytes: 0 })
            }
        };
        while lingering.bytes < LINGER_BYTES && lingering.end.as_mut().poll(cx).is_pending() {
            let mut unread = [0; 8192];
            let mut unread = ReadBuf::new(&mut unread);
            // A connection that broke meanwhile has ended as well as one that was closed.
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
            lingering.bytes += unread.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
