use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn bounds() -> Bounds {
    Bounds {
        connections: 8,
        when_full: WhenFull::Refuses,
        per_peer: 2,
        unbounded: Networks::default(),
        head: Duration::from_secs(60),
        head_bytes: 8192,
        idle: Duration::from_millis(300),
        stop_limit: Duration::from_secs(1),
    }
}

/// A door behind which a body is refused before it was read.
async fn hasty() -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let refuse = axum::routing::post(|| async { (hyper::StatusCode::PAYLOAD_TOO_LARGE, "too much") });
    let (routes, token) = (Router::new().route("/", refuse), stop.clone());
    let bounds = Bounds { idle: Duration::from_secs(60), ..bounds() };
    tokio::spawn(async move { serve(listener, routes, bounds, None, token).await.unwrap() });
    (address, stop)
}

async fn start(bounds: Bounds, work: Duration) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let routes = Router::new().route(
        "/",
        get(move || async move {
            tokio::time::sleep(work).await;
            "done"
        }),
    );
    let token = stop.clone();
    tokio::spawn(async move { serve(listener, routes, bounds, None, token).await.unwrap() });
    (address, stop)
}

/// What comes until the end, which has to come.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    // A closed connection may also show as a reset.
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the connection was not closed");
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn silence_is_closed_and_work_is_not() {
    let (address, stop) = start(bounds(), Duration::from_secs(1)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    // The work takes more than three times as long as idling is allowed.
    let mut working = TcpStream::connect(address).await.unwrap();
    working.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = rest(&mut working).await;
    assert!(answer.ends_with("done"), "{answer}");
    stop.cancel();
}

#[tokio::test]
async fn one_peer_has_so_many_connections() {
    let bounds = Bounds { idle: Duration::from_secs(60), ..bounds() };
    let (address, stop) = start(bounds, Duration::ZERO).await;
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        rest(stream).await
    };
    let first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    let refused = rest(&mut third).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.ends_with(REFUSAL), "{refused}");
    assert!(ask(&mut second).await.ends_with("done"));
    // Its place is free again, as soon as the server has noticed.
    for attempt in 0.. {
        let mut fourth = TcpStream::connect(address).await.unwrap();
        let _ = fourth.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        if rest(&mut fourth).await.ends_with("done") {
            break;
        }
        assert!(attempt < 100, "the place was not freed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(first);
    stop.cancel();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let bounds = Bounds { idle: Duration::from_secs(60), ..bounds() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(
        listener,
        Router::new().route("/", get(std::future::pending::<()>)),
        bounds,
        None,
        stop.clone(),
    ));
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::task::yield_now().await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), served).await.expect("the stop waits").unwrap().unwrap();
}

#[tokio::test]
async fn what_is_written_does_not_wait_for_what_was_written_before() {
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = inner.local_addr().unwrap();
    let mut listener = Door::new(inner, &bounds(), false);
    let _peer = TcpStream::connect(address).await.unwrap();
    let (connection, _) = listener.accept().await;
    assert!(connection.stream.nodelay().unwrap());
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off() {
    let bounds = Bounds { idle: Duration::from_secs(60), head: Duration::from_millis(500), ..bounds() };
    let (address, stop) = start(bounds, Duration::ZERO).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    let (mut read, mut write) = slow.split();
    let mut answer = Vec::new();
    let trickle = async {
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = read.read_to_end(&mut answer) => {}
        () = trickle => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("it was never cut off"),
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "it was served");
    stop.cancel();
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let bounds = Bounds { idle: Duration::from_secs(60), ..bounds() };
    let (address, stop) = start(bounds, Duration::ZERO).await;
    let mut long = TcpStream::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(9000));
    let _ = long.write_all(request.as_bytes()).await;
    let answer = rest(&mut long).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    stop.cancel();
}

#[tokio::test]
async fn who_sends_too_much_hears_so() {
    let (address, stop) = hasty().await;
    let mut long = TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n";
    long.write_all(head.as_bytes()).await.unwrap();
    // All of it is sent before the answer is looked at, as many clients do.
    let body = vec![b'x'; 64 << 10];
    for piece in 0..160 {
        long.write_all(&body).await.unwrap_or_else(|error| panic!("piece {piece} of 160: {error}"));
    }
    let answer = rest(&mut long).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too much"), "{answer}");
    stop.cancel();
}

#[tokio::test]
async fn who_never_stops_sending_is_left() {
    let (address, stop) = hasty().await;
    let mut endless = TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    endless.write_all(head.as_bytes()).await.unwrap();
    let sending = async {
        let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
        while endless.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(20), sending).await.expect("it is read for ever");
    stop.cancel();
}
