//! A client that sends what it is told to, byte by byte, and tidies nothing.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::daemon::Daemon;

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(20);

/// Where the daemon is.
pub fn address(daemon: &Daemon) -> SocketAddr {
    daemon.url.split("://").nth(1).unwrap().parse().unwrap()
}

/// A connection from this address of the loopback network.
pub async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// What comes until the end, which has to come.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A closed connection may also show as a reset; what came before counts.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection was not closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends these bytes on a connection of their own; everything that comes back.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // Who is refused early need not be read to the end.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// A `GET` of this path, just as it is written, with further lines of a head.
pub async fn get(to: SocketAddr, path: &str, more: &str) -> String {
    exchange(to, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n").as_bytes())
        .await
}

/// A `POST` of JSON.
pub fn post(path: &str, body: &str, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

/// The status of an answer; 0 where there was none.
pub fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// The value of a header of an answer.
pub fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (is, value) = line.split_once(':')?;
        is.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The code of the error that an answer tells.
pub fn code(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let told: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    told["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("no code: {answer}")).to_owned()
}
