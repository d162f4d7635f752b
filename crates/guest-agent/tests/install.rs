//! The installer, run into an empty root as an operating system's installer would run it.

#![allow(clippy::unwrap_used, reason = "a failed step fails the story")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install");
const WANTED: &str = "etc/systemd/system/multi-user.target.wants";

/// A medium with the script on it, and a root to install into.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(stage.medium()).unwrap();
        fs::copy(Path::new(INSTALL).join("install-linux.sh"), stage.medium().join("install-linux.sh"))
            .unwrap();
        stage
    }

    fn with_binary(self) -> Self {
        // As it comes from an ISO: not executable.
        let binary = self.medium().join("infiniservice");
        fs::copy(env!("CARGO_BIN_EXE_infiniservice"), &binary).unwrap();
        fs::set_permissions(binary, fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    fn medium(&self) -> PathBuf {
        self.dir.path().join("medium")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.root().join(path)).unwrap().permissions().mode() & 0o777
    }

    /// Status and what was said.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new("sh")
            .arg(self.medium().join("install-linux.sh"))
            .arg("--root")
            .arg(self.root())
            .args(arguments)
            .env_remove("INFINISERVICE_URL")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Everything under the root, to see that nothing is left lying about.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), root, found);
                } else {
                    found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root(), &self.root(), &mut found);
        found.sort();
        found
    }
}

const INSTALLED: [&str; 4] = [
    "etc/infiniservice/infiniservice.env",
    "etc/systemd/system/infiniservice.service",
    "etc/systemd/system/multi-user.target.wants/infiniservice.service",
    "usr/local/bin/infiniservice",
];

/// The checksum of these bytes, as `sha256sum` prints it.
fn sha256(body: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// Serves one body, as the controller does with its checksum.
fn serve(body: Vec<u8>) -> String {
    let header = format!("x-checksum-sha256: {}\r\n", sha256(&body));
    serve_with(body, header)
}

/// Serves one body at every address, for as long as somebody asks.
fn serve_with(body: Vec<u8>, more: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/infiniservice", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            let right = request[..count].starts_with(b"GET /infiniservice/linux/binary ");
            let status = if right { "200 OK" } else { "404 Not Found" };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok();
        }
    });
    address
}

#[test]
fn the_seals_key_is_put_where_root_alone_can_read_it() {
    let stage = Stage::new().with_binary();
    let key = stage.medium().join("seal.key");
    for text in ["one\n", "two\n"] {
        fs::write(&key, text).unwrap();
        // As it comes from an ISO: for everybody to read.
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let (status, said) = stage.run(&[]);
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(stage.text("etc/infiniservice/seal.key"), text);
        assert_eq!(stage.mode("etc/infiniservice/seal.key"), 0o600);
    }
    // A medium without one takes none away.
    fs::remove_file(key).unwrap();
    assert_eq!(stage.run(&[]).0, Some(0));
    assert_eq!(stage.text("etc/infiniservice/seal.key"), "two\n");
}

#[test]
fn from_the_medium_and_once_more() {
    let stage = Stage::new().with_binary();
    fs::write(
        stage.medium().join("infiniservice.env"),
        "INFINIBAY_VM_ID=old\nINFINIBAY_METRICS_INTERVAL=7\n",
    )
    .unwrap();
    for _ in 0..2 {
        let (status, said) = stage.run(&["--vm-id", "550e8400-e29b-41d4-a716-446655440000"]);
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(stage.files(), INSTALLED);
        assert_eq!(
            stage.text("etc/infiniservice/infiniservice.env"),
            "INFINIBAY_METRICS_INTERVAL=7\nINFINIBAY_VM_ID=550e8400-e29b-41d4-a716-446655440000\n"
        );
        assert_eq!(stage.mode("etc/infiniservice/infiniservice.env"), 0o600);
        assert_eq!(stage.mode("usr/local/bin/infiniservice"), 0o755);
        assert_eq!(stage.mode("usr/local/bin"), 0o755);
    }
    // The script alone carries the same unit as the file beside it.
    let unit = fs::read_to_string(Path::new(INSTALL).join("infiniservice.service")).unwrap();
    assert_eq!(stage.text("etc/systemd/system/infiniservice.service"), unit);
    assert_eq!(stage.text(&format!("{WANTED}/infiniservice.service")), unit, "the link leads elsewhere");
}

#[test]
fn over_http_when_the_medium_has_no_binary() {
    let url = serve(fs::read(env!("CARGO_BIN_EXE_infiniservice")).unwrap());
    let stage = Stage::new();
    let (status, said) = stage.run(&["--vm-id", "x", "--url", &url, "--first-boot", "cloud-init"]);
    assert_eq!(status, Some(0), "{said} (this story needs curl or wget)");
    assert_eq!(stage.files(), INSTALLED);
    assert_eq!(
        stage.text("etc/infiniservice/infiniservice.env"),
        format!("INFINIBAY_VM_ID=x\nINFINISERVICE_URL={url}\nINFINIBAY_FIRST_BOOT=cloud-init\n")
    );
}

#[test]
fn an_error_page_is_no_program() {
    let url = serve(b"<html>not here</html>".to_vec());
    let stage = Stage::new();
    let (status, said) = stage.run(&["--url", &url]);
    assert!(status != Some(0) && said.contains("no program"), "{said}");
    assert!(!stage.root().join("usr/local/bin/infiniservice").exists());
}

#[test]
fn a_program_of_another_checksum_is_refused() {
    let good = fs::read(env!("CARGO_BIN_EXE_infiniservice")).unwrap();
    let (right, wrong) = (sha256(&good), sha256(b"another"));
    let stage = Stage::new();
    let without = serve_with(good.clone(), String::new());
    let (status, said) = stage.run(&["--url", &without]);
    assert!(status == Some(1) && said.contains("without a checksum"), "{said}");
    let lying = serve_with(good.clone(), format!("X-Checksum-Sha256: {wrong}\r\n"));
    let (status, said) = stage.run(&["--url", &lying]);
    assert!(status == Some(1) && said.contains(&wrong), "{said}");
    let honest = serve(good);
    let (status, said) = stage.run(&["--url", &honest, "--sha256", &wrong]);
    assert!(status == Some(1) && said.contains(&wrong), "{said}");
    let settings = "etc/infiniservice/infiniservice.env";
    assert_eq!(stage.files(), [settings], "something of it was left");
    let (status, said) = stage.run(&["--url", &lying, "--sha256", &right.to_uppercase()]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(stage.files(), INSTALLED);
    // What is installed stays while what comes is wrong.
    let (status, said) = stage.run(&["--url", &lying]);
    assert!(status == Some(1) && said.contains(&wrong), "{said}");
    assert_eq!(stage.files(), INSTALLED);
    let stage = Stage::new().with_binary();
    assert_eq!(stage.run(&["--sha256", &wrong]).0, Some(1), "beside the script, too");
}

#[test]
fn what_comes_through_a_pipe_takes_nothing_from_where_somebody_is() {
    let stage = Stage::new().with_binary();
    fs::write(stage.medium().join("seal.key"), "of a stranger").unwrap();
    // Also where the directory has a file of the shell's own name.
    fs::write(stage.medium().join("sh"), "").unwrap();
    let script = fs::File::open(stage.medium().join("install-linux.sh")).unwrap();
    let output = Command::new("sh")
        .args(["-s", "--", "--vm-id", "x", "--root"])
        .arg(stage.root())
        .current_dir(stage.medium())
        .env_remove("INFINISERVICE_URL")
        .stdin(script)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no binary beside this script"), "{said}");
    assert!(!stage.root().join("usr/local/bin/infiniservice").exists());
    assert!(!stage.root().join("etc/infiniservice/seal.key").exists());
}

#[test]
fn a_best_effort_never_fails_and_tries_again() {
    let stage = Stage::new();
    let (status, _) = stage.run(&["--best-effort", "--vm-id", "x"]);
    assert_eq!(status, Some(0));
    let log = stage.text("var/log/infiniservice-install.log");
    assert!(log.contains("no binary beside this script"), "{log}");
    let retry = stage.text(&format!("{WANTED}/infiniservice-install.service"));
    assert!(retry.contains("ExecStart=/bin/sh /var/lib/infiniservice/install-linux.sh"), "{retry}");
    assert!(stage.root().join("var/lib/infiniservice/install-linux.sh").exists());
    // The settings are there for the second try, which cleans up behind the first.
    assert_eq!(stage.text("etc/infiniservice/infiniservice.env"), "INFINIBAY_VM_ID=x\n");
    let stage = stage.with_binary();
    let (status, said) = stage.run(&[]);
    assert_eq!(status, Some(0), "{said}");
    let mut files = stage.files();
    files.retain(|f| !f.starts_with("var/log/"));
    assert_eq!(files, INSTALLED);
    assert_eq!(stage.text("etc/infiniservice/infiniservice.env"), "INFINIBAY_VM_ID=x\n");
}

#[test]
fn arguments_that_would_not_survive_the_settings_file_are_refused() {
    let stage = Stage::new().with_binary();
    for wrong in [
        ["--vm-id", "a b"],
        ["--vm-id", "a\nB=c"],
        ["--url", "ftp://x"],
        ["--sha256", "abc"],
        ["--sha256", "gg56f21ec2d6bd0ebd0ebb5ed3d64b5d4c3b9c4ab5a4ac7b5a4ac7b5a4ac7b5a"],
        ["--url", "http://x/$(id)"],
        ["--url", "http://x/\"y"],
        ["--first-boot", "maybe"],
        ["--nonsense", "x"],
    ] {
        assert_eq!(stage.run(&wrong).0, Some(2), "{wrong:?}");
        assert_eq!(stage.run(&[&["--best-effort"], &wrong[..]].concat()).0, Some(0), "{wrong:?}");
    }
    assert!(!stage.root().exists());
}
