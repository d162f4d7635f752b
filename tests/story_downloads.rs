//! What guests download from the API's own address: the agent and its installers, whole, in parts and with
//! their checksums; nothing around them, however it is spelt; and installers that do what they say.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};
use support::{
    daemon::{Daemon, Home, Setup},
    database::{Backend, TestDatabase},
    raw,
};

/// What must not come out.
const SECRET: &str = "hunter2-outside-of-the-tree";

struct Shelf {
    daemon: Daemon,
    address: SocketAddr,
    dir: tempfile::TempDir,
    _home: Home,
    _db: TestDatabase,
}

impl Shelf {
    /// A daemon with this agent for Linux, and secrets around the tree.
    async fn with(agent: &[u8]) -> Self {
        let db = TestDatabase::new(Backend::Sqlite).await;
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        let shelf = base.join("infiniservice");
        fs::create_dir_all(shelf.join("binaries/linux")).unwrap();
        fs::create_dir_all(shelf.join("binaries/windows")).unwrap();
        for secret in [
            dir.path().join("secret"),
            base.join("secret"),
            shelf.join("secret"),
            shelf.join("binaries/secret"),
        ] {
            fs::write(secret, SECRET).unwrap();
        }
        fs::write(shelf.join("binaries/linux/infiniservice"), agent).unwrap();
        symlink(dir.path().join("secret"), shelf.join("binaries/windows/infiniservice.exe")).unwrap();
        let home = Home::new(Setup {
            uri: "test:///default".into(),
            database_url: Some(db.url.clone()),
            images_dir: dir.path().to_owned(),
            base_dir: base,
            env: Vec::new(),
        });
        let daemon = home.start();
        let address = raw::address(&daemon);
        Self { daemon, address, dir, _home: home, _db: db }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/infiniservice/{path}", self.daemon.url)
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn given(name: &str, default: &str) -> PathBuf {
    std::env::var_os(name).map_or_else(|| default.into(), PathBuf::from)
}

/// The agent as guests get it, which `scripts/test setup` builds.
fn real_agent() -> Vec<u8> {
    let path = given("INFINIBAY_TEST_BASE", "/var/lib/infinibay/base")
        .join("infiniservice/binaries/linux/infiniservice");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run scripts/test setup", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_come_whole_in_parts_and_with_their_checksums() {
    let agent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let shelf = Shelf::with(&agent).await;
    let http = reqwest::Client::new();
    let get = async |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(http.get(shelf.url("linux/binary")), |r, (k, v)| r.header(*k, *v));
        request.send().await.unwrap()
    };
    let whole = get(&[]).await;
    assert_eq!(whole.status(), 200);
    let tag = format!("\"{}\"", hex(&agent));
    for (name, value) in [
        ("content-length", "3000000"),
        ("content-type", "application/octet-stream"),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-cache"),
        ("etag", tag.as_str()),
        ("x-checksum-sha256", hex(&agent).as_str()),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(whole.headers()[name], value, "{name}");
    }
    assert!(whole.headers()["repr-digest"].to_str().unwrap().starts_with("sha-256=:"));
    assert!(whole.bytes().await.unwrap() == agent, "other bytes came");

    let known = get(&[("if-none-match", &tag)]).await;
    assert_eq!((known.status().as_u16(), known.bytes().await.unwrap().len()), (304, 0));
    let rest = get(&[("range", "bytes=2999990-"), ("if-range", &tag)]).await;
    assert_eq!(
        (rest.status().as_u16(), rest.headers()["content-range"].to_str().unwrap()),
        (206, "bytes 2999990-2999999/3000000")
    );
    assert_eq!(rest.bytes().await.unwrap(), agent[2_999_990..]);
    let other = get(&[("range", "bytes=10-"), ("if-range", "\"of another file\"")]).await;
    assert_eq!((other.status().as_u16(), other.bytes().await.unwrap().len()), (200, agent.len()));
    let beyond = get(&[("range", "bytes=3000000-")]).await;
    assert_eq!(
        (beyond.status().as_u16(), beyond.headers()["content-range"].to_str().unwrap()),
        (416, "bytes */3000000")
    );
    let head = http.head(shelf.url("linux/binary")).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"3000000".parse().unwrap())
    );

    // Another agent has another tag, at once.
    let place = shelf.dir.path().join("base/infiniservice/binaries/linux");
    fs::write(place.join("new"), "another agent").unwrap();
    fs::rename(place.join("new"), place.join("infiniservice")).unwrap();
    let other = get(&[("if-none-match", &tag)]).await;
    assert_eq!((other.status().as_u16(), other.text().await.unwrap().as_str()), (200, "another agent"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_is_reached_by_any_spelling() {
    let shelf = Shelf::with(b"agent").await;
    for path in [
        "/infiniservice/windows/binary",
        "/infiniservice/freebsd/binary",
        "/infiniservice/LINUX/binary",
        "/infiniservice/linux/binary/",
        "/infiniservice//linux/binary",
        "/infiniservice/linux/secret",
        "/infiniservice/secret",
        "/infiniservice/..",
        "/infiniservice/../secret",
        "/infiniservice/linux/../../secret",
        "/infiniservice/../../../../etc/passwd",
        "/infiniservice/..%2f..%2fsecret/binary",
        "/infiniservice/..%2Fsecret",
        "/infiniservice/linux%2f..%2f..%2fsecret/binary",
        "/infiniservice/linux%2fbinary",
        "/infiniservice/%2e%2e/secret",
        "/infiniservice/.%2e/%2e./secret",
        "/infiniservice/..%252f..%252fsecret/binary",
        "/infiniservice/%252e%252e/secret",
        "/infiniservice/linux%00/binary",
        "/infiniservice/linux%00.exe/binary",
        "/infiniservice/linux/binary%00",
        "/infiniservice/..\\..\\secret/binary",
        "/infiniservice/..%5c..%5csecret/binary",
        "/infiniservice/%c0%ae%c0%ae/secret",
        "/infiniservice/%c0%ae%c0%ae%c0%af%c0%ae%c0%ae%c0%afsecret/binary",
        "/infiniservice/%e0%80%ae%e0%80%ae/binary",
        "/infiniservice/..%u2215secret/binary",
        "/infiniservice/%ff/binary",
        "/infiniservice/linux;/../secret/binary",
        "/infiniservice/linux/binary/../../../secret",
        "/infiniservice/linux/script/..%2f..%2fsecret",
        "//etc/passwd",
        "/secret",
        "http://x/infiniservice/../secret",
    ] {
        let answer = raw::get(shelf.address, path, "").await;
        assert!(matches!(raw::status(&answer), 400 | 404), "{path}: {answer}");
        assert!(!answer.contains(SECRET) && !answer.contains("root:"), "{path}: {answer}");
    }
    // Bytes that are no path at all.
    for path in [
        &b"/infiniservice/linux\0/binary"[..],
        b"/infiniservice/\xc0\xae\xc0\xae/secret",
        b"/infiniservice/ /binary",
    ] {
        let request = [b"GET ", path, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat();
        let answer = raw::exchange(shelf.address, &request).await;
        assert!(matches!(raw::status(&answer), 400 | 404), "{path:?}: {answer}");
        assert!(!answer.contains(SECRET), "{path:?}: {answer}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let request =
            format!("{method} /infiniservice/linux/binary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(raw::status(&raw::exchange(shelf.address, request.as_bytes()).await), 405, "{method}");
    }
    assert!(raw::get(shelf.address, "/infiniservice/linux/binary", "").await.ends_with("agent"));
}

/// Runs the installer into a root of its own; its status and words.
fn install(script: &Path, root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("sh")
        .arg(script)
        .arg("--root")
        .arg(root)
        .args(arguments)
        .env_remove("INFINISERVICE_URL")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_installer_for_linux_installs_what_it_was_promised() {
    let agent = real_agent();
    let shelf = Shelf::with(&agent).await;
    let script = shelf.dir.path().join("fetched.sh");
    fs::write(&script, reqwest::get(shelf.url("linux/script")).await.unwrap().bytes().await.unwrap())
        .unwrap();
    let root = shelf.dir.path().join("root");
    let (url, wrong) = (shelf.url("").trim_end_matches('/').to_owned(), hex(b"another"));
    let id = "550e8400-e29b-41d4-a716-446655440000";
    let program = root.join("usr/local/bin/infiniservice");

    let (status, said) = install(&script, &root, &["--vm-id", id, "--url", &url, "--sha256", &wrong]);
    assert!(status == Some(1) && said.contains(&wrong) && !program.exists(), "{said}");
    for _ in 0..2 {
        let (status, said) = install(&script, &root, &["--vm-id", id, "--url", &url]);
        assert_eq!(status, Some(0), "{said}");
        assert!(fs::read(&program).unwrap() == agent, "another program was installed");
        let settings = fs::read_to_string(root.join("etc/infiniservice/infiniservice.env")).unwrap();
        assert_eq!(settings, format!("INFINIBAY_VM_ID={id}\nINFINISERVICE_URL={url}\n"));
    }
    let (status, said) = install(&script, &root, &["--url", &url, "--sha256", &wrong]);
    assert!(status == Some(1) && fs::read(&program).unwrap() == agent, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_installer_for_windows_is_powershell_and_says_what_it_must() {
    let shelf = Shelf::with(b"agent").await;
    let script = reqwest::get(shelf.url("windows/script")).await.unwrap().text().await.unwrap();
    let ours = include_str!("../crates/guest-agent/install/install-windows.ps1");
    assert!(script == ours, "another script came");
    let parse = |text: &str| {
        let file = shelf.dir.path().join("judged.ps1");
        fs::write(&file, text).unwrap();
        let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/story_downloads/powershell.py");
        let python =
            given("INFINIBAY_TEST_VALIDATORS", "/var/lib/infinibay/validators").join("venv/bin/python");
        let output = Command::new(&python).arg(judge).arg(&file).output();
        let output =
            output.unwrap_or_else(|error| panic!("{}: {error}; run scripts/test setup", python.display()));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("Traceback"), "{said}; run scripts/test setup");
        (output.status.code(), said)
    };
    assert_eq!(parse(&script).0, Some(0), "{}", parse(&script).1);
    // The parser does see mistakes.
    for (from, to) in [("try {", "try"), ("'Stopped')", "'Stopped'"), ("} catch {", "catch {")] {
        assert!(script.contains(from));
        assert_eq!(parse(&script.replacen(from, to, 1)).0, Some(1), "{from} without its end was not seen");
    }
    // No Windows runs here: what it rests on stands in its text, in this order.
    let mut rest = script.as_str();
    for words in [
        "[string]$VmId",
        "$ErrorActionPreference = 'Stop'",
        "Get-FileHash",
        "SecurityProtocolType]::Tls12",
        "X-Checksum-Sha256",
        "$is -ne $Wanted",
        "/windows/binary",
        "came without a checksum",
        "Assert-Program $temporary $wanted",
        "Stop-Service",
        "Move-Item -LiteralPath $temporary -Destination $program",
        "if (-not $existing)",
        "New-Service",
        "Start-Service",
    ] {
        rest = rest.split_once(words).unwrap_or_else(|| panic!("{words} is missing, or not in its place")).1;
    }
    assert!(!ours.contains("Invoke-Expression") && ours.is_ascii());
}
