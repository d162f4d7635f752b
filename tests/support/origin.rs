//! A server that files are imported from, which does what its paths say, also what no server
//! should. It listens on an address of loopback that stories can tell apart from the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The address of loopback that stories allow.
pub(crate) const ALLOWED: &str = "127.0.0.2";

/// What a path does.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// Serves the file, and parts of it.
    Fine(Arc<Vec<u8>>),
    /// The same, so many bytes each 50 ms.
    Slow(Arc<Vec<u8>>, usize),
    /// Announces the whole, and closes after so many bytes, once; then as it should.
    CutsOnce(Arc<Vec<u8>>, usize),
    /// The same with the first, and has only the second from then on.
    Replaces(Arc<Vec<u8>>, usize, Arc<Vec<u8>>),
    /// The same, but of the second it gives parts to whoever asked for parts of the first.
    Mixes(Arc<Vec<u8>>, usize, Arc<Vec<u8>>),
    /// Announces so many bytes more than come, every time.
    Boasts(Arc<Vec<u8>>, usize),
    /// Announces so many bytes of more.
    Understates(Arc<Vec<u8>>, usize),
    /// Never ends, and does not say how long it is.
    Endless,
    /// A byte now and then, for ever.
    Drips,
    /// This head, and this body.
    Says(&'static str, Arc<Vec<u8>>),
    /// A redirect to there.
    Leads(String),
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// Where the range that was asked for begins.
    pub(crate) from: Option<u64>,
    pub(crate) if_range: Option<String>,
}

#[derive(Default)]
struct Seen {
    manners: HashMap<String, Manner>,
    asked: Vec<Asked>,
    sent: HashMap<String, u64>,
}

/// Listens while it lives.
pub(crate) struct Origin {
    port: u16,
    address: &'static str,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    pub(crate) async fn new() -> Self {
        Self::at(ALLOWED).await
    }

    pub(crate) async fn at(address: &'static str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("an address of loopback");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { port, address, seen, task }
    }

    /// What a path does from now on; the path's URL.
    pub(crate) fn on(&self, path: &str, manner: Manner) -> String {
        self.seen.lock().unwrap().manners.insert(path.to_owned(), manner);
        format!("http://{}:{}{path}", self.address, self.port)
    }

    /// The requests for a path, in order.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let seen = self.seen.lock().unwrap();
        seen.asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Bytes of bodies that a path sent.
    pub(crate) fn sent(&self, path: &str) -> u64 {
        self.seen.lock().unwrap().sent.get(path).copied().unwrap_or(0)
    }
}

const ETAG: &str = "\"state-1\"";

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        match stream.read(&mut byte).await {
            Ok(1) if head.len() < 16384 => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let from = header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok());
    let first = {
        let mut seen = seen.lock().unwrap();
        let first = !seen.asked.iter().any(|asked| asked.path == path);
        seen.asked.push(Asked { path: path.clone(), from, if_range: header("if-range") });
        first
    };
    let Some(manner) = seen.lock().unwrap().manners.get(&path).cloned() else {
        let _ = stream.write_all(b"HTTP/1.1 404 None\r\ncontent-length: 0\r\n\r\n").await;
        return;
    };
    let counted = |count: usize| {
        *seen.lock().unwrap().sent.entry(path.clone()).or_default() += count as u64;
    };
    // Whoever hangs up has had enough.
    let _ = carry_on(&mut stream, manner, from, first, &counted).await;
    let _ = stream.shutdown().await;
}

async fn carry_on(
    stream: &mut TcpStream,
    manner: Manner,
    from: Option<u64>,
    first: bool,
    counted: &(dyn Fn(usize) + Send + Sync),
) -> std::io::Result<()> {
    let begin = |whole: &[u8]| from.map_or(0, |from| usize::try_from(from).unwrap().min(whole.len()));
    let head = |whole: &[u8], announced: usize| {
        let begin = begin(whole);
        let total = whole.len();
        let status = match from {
            Some(_) => format!("206 Part\r\ncontent-range: bytes {begin}-{}/{total}", total - 1),
            None => "200 Fine".to_owned(),
        };
        format!(
            "HTTP/1.1 {status}\r\netag: {ETAG}\r\ncontent-length: {announced}\r\nconnection: close\r\n\r\n"
        )
    };
    match manner {
        Manner::Fine(whole) => {
            let rest = &whole[begin(&whole)..];
            stream.write_all(head(&whole, rest.len()).as_bytes()).await?;
            for chunk in rest.chunks(65536) {
                stream.write_all(chunk).await?;
                counted(chunk.len());
            }
        }
        Manner::Slow(whole, rate) => {
            let rest = &whole[begin(&whole)..];
            stream.write_all(head(&whole, rest.len()).as_bytes()).await?;
            for chunk in rest.chunks(rate) {
                stream.write_all(chunk).await?;
                counted(chunk.len());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Manner::CutsOnce(whole, after) => {
            let rest = &whole[begin(&whole)..];
            stream.write_all(head(&whole, rest.len()).as_bytes()).await?;
            let sent = if first { &rest[..after.min(rest.len())] } else { rest };
            stream.write_all(sent).await?;
            counted(sent.len());
        }
        Manner::Replaces(old, after, new) => {
            let (whole, sent, tag) =
                if first { (&old, after, ETAG) } else { (&new, new.len(), "\"state-2\"") };
            let length = whole.len();
            let head = format!("HTTP/1.1 200 Fine\r\netag: {tag}\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&whole[..sent]).await?;
        }
        Manner::Mixes(old, after, new) => {
            let (whole, tag) = if first { (&old, ETAG) } else { (&new, "\"state-2\"") };
            stream.write_all(head(whole, whole.len() - begin(whole)).replace(ETAG, tag).as_bytes()).await?;
            stream.write_all(if first { &whole[..after] } else { &whole[begin(whole)..] }).await?;
        }
        Manner::Boasts(whole, more) => {
            let (rest, pretended) = (&whole[begin(&whole)..], whole.len() + more);
            let range = format!("content-range: bytes {}-{}/{pretended}", begin(&whole), pretended - 1);
            let status = if from.is_some() { "206 Part" } else { "200 Fine" };
            let length = rest.len() + more;
            let head =
                format!("HTTP/1.1 {status}\r\n{range}\r\netag: {ETAG}\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(rest).await?;
        }
        Manner::Understates(whole, announced) => {
            stream.write_all(head(&whole, announced).as_bytes()).await?;
            stream.write_all(&whole).await?;
        }
        Manner::Endless => {
            stream.write_all(b"HTTP/1.1 200 Fine\r\nconnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[7; 65536]).await?;
                counted(65536);
            }
        }
        Manner::Drips => {
            stream.write_all(b"HTTP/1.1 200 Fine\r\ncontent-length: 1000000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Manner::Says(head, body) => {
            let length = body.len();
            stream
                .write_all(
                    format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
                        .as_bytes(),
                )
                .await?;
            stream.write_all(&body).await?;
        }
        Manner::Leads(there) => {
            let head = format!(
                "HTTP/1.1 302 There\r\nlocation: {there}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
        }
    }
    Ok(())
}
