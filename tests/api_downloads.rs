//! What guests fetch: two files for each of two platforms, and nothing around them.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

use std::{fs, sync::Arc, time::Duration};

use async_trait::async_trait;
use infinibay::{
    api::{InstallReports, serve_guests},
    lifecycle::LifecycleError,
    vm::InstallReport,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// No installation is under way.
struct Nobody;

#[async_trait]
impl InstallReports for Nobody {
    async fn report(&self, _token: &str, _report: &InstallReport) -> Result<bool, LifecycleError> {
        Ok(false)
    }
}

struct Shelf {
    _dir: tempfile::TempDir,
    url: String,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn shelf() -> Shelf {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("base/infiniservice");
    fs::create_dir_all(root.join("binaries/linux")).unwrap();
    fs::create_dir_all(root.join("install")).unwrap();
    fs::write(root.join("binaries/linux/infiniservice"), vec![7; 3 << 20]).unwrap();
    fs::write(root.join("install/install-linux.sh"), "#!/bin/sh\n").unwrap();
    fs::write(dir.path().join("base/secret"), "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let base_dir = dir.path().join("base");
    let served = tokio::spawn(serve_guests(listener, base_dir, Arc::new(Nobody), stop.clone()));
    Shelf { _dir: dir, url: format!("http://{address}"), address, stop, served }
}

async fn get(url: String) -> (u16, String, Vec<u8>) {
    let answer = reqwest::get(&url).await.unwrap();
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    (answer.status().as_u16(), kind.unwrap_or_default(), answer.bytes().await.unwrap().to_vec())
}

/// As a client that does not tidy its paths.
async fn raw(shelf: &Shelf, path: &str) -> String {
    let mut stream = TcpStream::connect(shelf.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn both_files_come_whole() {
    let shelf = shelf().await;
    let (status, kind, body) = get(format!("{}/infiniservice/linux/binary", shelf.url)).await;
    assert_eq!((status, kind.as_str()), (200, "application/octet-stream"));
    assert!(body == vec![7; 3 << 20], "{} bytes came", body.len());
    let (status, kind, body) = get(format!("{}/infiniservice/linux/script", shelf.url)).await;
    assert_eq!(
        (status, kind.as_str(), body.as_slice()),
        (200, "text/plain; charset=utf-8", &b"#!/bin/sh\n"[..])
    );
    let rest = reqwest::Client::new()
        .get(format!("{}/infiniservice/linux/binary", shelf.url))
        .header("range", "bytes=3145720-")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (rest.status().as_u16(), rest.bytes().await.unwrap().len()),
        (206, 8),
        "a download cannot go on"
    );
}

#[tokio::test]
async fn nothing_else_is_there() {
    let shelf = shelf().await;
    for path in [
        "/infiniservice/windows/binary",
        "/infiniservice/freebsd/binary",
        "/infiniservice/LINUX/binary",
        "/infiniservice/../binary",
        "/infiniservice/..%2f..%2fsecret/binary",
        "/infiniservice/linux%2f..%2f..%2f..%2fsecret/binary",
        "/infiniservice/linux%00/binary",
        "/infiniservice/linux/../../secret",
        "/infiniservice/linux/install",
        "/secret",
        "/graphql",
        "/",
    ] {
        let answer = raw(&shelf, path).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["404", "400"].contains(&status), "{path}: {answer}");
        assert!(!answer.contains("secret"), "{path}: {answer}");
    }
    let (status, _, script) = get(format!("{}/infiniservice/windows/script", shelf.url)).await;
    assert!(
        status == 200 && script.starts_with(b"# Installs infiniservice"),
        "ours stands in where there is none"
    );
    let (_, _, words) = get(format!("{}/infiniservice/windows/binary", shelf.url)).await;
    assert!(String::from_utf8(words).unwrap().contains("no such file"));
    let (_, _, words) = get(format!("{}/infiniservice/freebsd/script", shelf.url)).await;
    assert!(String::from_utf8(words).unwrap().contains("linux, windows"));
}

#[tokio::test]
async fn a_guest_that_holds_on_does_not_hold_the_others() {
    let shelf = shelf().await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(shelf.address).await.unwrap();
        // Those over the bound are closed, sooner or later while this is written.
        let _ = stream.write_all(b"GET /infiniservice/linux/binary HTTP/1.1\r\nHost: x\r\n").await;
        held.push(stream);
    }
    // Another guest, at another address.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(shelf.address).await.unwrap();
    other
        .write_all(b"GET /infiniservice/linux/script HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), other.read_to_string(&mut answer)).await;
    read.expect("the other guest was not served").unwrap();
    assert!(answer.ends_with("#!/bin/sh\n"), "{answer}");
    shelf.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), shelf.served).await;
    ended.expect("the held connections hold the stop").unwrap().unwrap();
}
