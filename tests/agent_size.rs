//! The agent as it is handed out to guests stays small: it travels on every guest's seed medium,
//! lives in every guest's memory, and has to run in any Linux.
#![allow(clippy::unwrap_used, reason = "a story fails where it stands")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixListener,
};

const MAX_FILE_BYTES: u64 = 4 << 20;
const MAX_RESIDENT_KIB: u64 = 12 << 10;
const LIMIT: Duration = Duration::from_secs(30);

/// The program header that names a dynamic loader.
const PT_INTERP: u32 = 3;

/// The binary that `scripts/test` lays out, whatever profile this test was built with.
fn shipped() -> PathBuf {
    let base = env::var_os("INFINIBAY_TEST_BASE").map_or("/var/lib/infinibay/base".into(), PathBuf::from);
    let path = base.join("infiniservice/binaries/linux/infiniservice");
    assert!(path.is_file(), "no agent at {}: `scripts/test` lays it out", path.display());
    path
}

/// The types of an ELF64 file's program headers.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    assert_eq!(elf.get(..6), Some(&b"\x7fELF\x02\x01"[..]), "no little-endian ELF64 file");
    let number = |at: usize, bytes: usize| {
        let bytes = elf.get(at..at + bytes).expect("a whole file");
        bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let types = (0..count).map(|n| number(usize::try_from(table + n * size).unwrap(), 4));
    types.map(|kind| u32::try_from(kind).unwrap()).collect()
}

/// A process that ends with the story.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn resident_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the agent runs");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("a resident size");
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_file_is_small_and_static() {
    let path = shipped();
    let elf = fs::read(&path).unwrap();
    assert!((elf.len() as u64) < MAX_FILE_BYTES, "{} has {} bytes", path.display(), elf.len());
    let headers = program_headers(&elf);
    assert!(!headers.is_empty() && !headers.contains(&PT_INTERP), "{} is not static", path.display());
    // The same look at a binary that is not static tells the difference.
    let own = fs::read(env::current_exe().unwrap()).unwrap();
    assert!(program_headers(&own).contains(&PT_INTERP), "this test's own binary");
}

async fn lines_until(
    reader: &mut (impl tokio::io::AsyncBufRead + Unpin),
    what: &str,
    mut enough: impl FnMut(&Value) -> bool,
) {
    let read = async {
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).await.unwrap() > 0, "the agent hung up before {what}");
            // It begins with an empty line, which ends whatever was left in the channel.
            if !line.trim().is_empty() && enough(&serde_json::from_str(&line).expect("a frame")) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"));
}

fn start(agent: &Path, port: &Path) -> Running {
    let child = Command::new(agent)
        .env("INFINIBAY_VM_ID", "size")
        .env("INFINIBAY_DEVICE", port)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the agent");
    Running(child)
}

#[tokio::test]
async fn at_work_it_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let port = dir.path().join("port");
    let listener = UnixListener::bind(&port).unwrap();
    let agent = start(&shipped(), &port);
    let (stream, _) =
        tokio::time::timeout(LIMIT, listener.accept()).await.expect("the agent connects").unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    lines_until(&mut reader, "its greeting", |frame| frame["type"] == "handshake").await;
    for _ in 0..3 {
        writer.write_all(b"{\"type\":\"Metrics\"}\n").await.unwrap();
        lines_until(&mut reader, "a reading", |frame| frame["type"] == "metrics").await;
    }
    let command = concat!(
        r#"{"type":"UnsafeCommand","id":"1","raw_command":"head -c 200000 /dev/zero | tr '\\0' x","timeout":20}"#,
        "\n"
    );
    writer.write_all(command.as_bytes()).await.unwrap();
    lines_until(&mut reader, "an answer", |frame| {
        frame["id"] == "1" && frame["stdout"].as_str().is_some_and(|out| out.len() == 200_000)
    })
    .await;
    let resident = resident_kib(agent.0.id());
    assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB are resident");
}
