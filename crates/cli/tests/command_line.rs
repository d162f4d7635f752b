//! What can be seen of the executable without a daemon: help, exit statuses, profiles.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// The executable in an environment of the test's own.
fn infinibay(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infinibay"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn run(home: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    infinibay(home).args(args).envs(env.iter().copied()).output().unwrap()
}

fn words(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn help_tells_the_commands_and_the_statuses() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let help = words(&output.stdout);
    for word in ["list", "create", "exec", "snapshots", "events", "--json", "Exit status", "INFINIBAY_URL"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    assert!(!help.contains("generate"));
    for args in
        [&["vm", "--help"][..], &["exec", "--help"], &["snapshots", "create", "--help"], &["--version"]]
    {
        assert_eq!(run(home.path(), args, &[]).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_64() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["show"],
        &["create", "x"],
        &["create", "x", "--image", "a", "--install", "b"],
        &["create", "x", "--image", "a", "--memory", "1.5G"],
        &["exec", "x"],
        &["exec", "x", "--env", "=1", "true"],
        &["logs", "x", "--bytes", "0"],
    ] {
        let output = run(home.path(), args, &[]);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", words(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
        // Programs are told in their language.
        let output = run(home.path(), &[&["--json"], args].concat(), &[]);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(told["error"]["code"], "USAGE", "{args:?}");
    }
}

#[test]
fn without_a_profile_one_is_told_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["list"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(words(&output.stderr).contains("infinibay login"));
    let output = run(home.path(), &["list", "--json"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["error"]["code"], "PROFILE");
    for url in ["ftp://h", "http://u:secret@h", "nonsense"] {
        let output = run(home.path(), &["list", "--url", url], &[("INFINIBAY_TOKEN", "t")]);
        assert_eq!(output.status.code(), Some(78), "{url}");
        assert!(!words(&output.stderr).contains("secret"));
    }
}

#[test]
fn a_profile_that_others_may_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".config/infinibay/profiles.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "[profiles.default]\nurl = \"http://127.0.0.1:1\"\ntoken = \"hunter2\"\n").unwrap();
    for (mode, status) in [(0o644, 78), (0o640, 78), (0o604, 78), (0o620, 78), (0o600, 69), (0o400, 69)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = run(home.path(), &["list"], &[]);
        assert_eq!(output.status.code(), Some(status), "{mode:o}: {}", words(&output.stderr));
        assert!(!words(&output.stderr).contains("hunter2"));
        assert_eq!(words(&output.stderr).contains("chmod 600"), status == 78);
    }
}

#[test]
fn a_daemon_that_is_not_there_is_said_to_be_so() {
    let home = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let env = [("INFINIBAY_URL", &*url), ("INFINIBAY_TOKEN", "hunter2")];
    for args in
        [&["list"][..], &["show", "x"], &["events", "--follow", "01a206c0-c2bd-710c-bfd8-01bf3e44cd24"]]
    {
        let output = run(home.path(), args, &env);
        assert_eq!(output.status.code(), Some(69), "{args:?}: {}", words(&output.stderr));
        assert!(words(&output.stderr).contains("cannot be reached"), "{}", words(&output.stderr));
        assert!(!words(&output.stderr).contains("hunter2"));
    }
}

/// A server that gives one answer to everything; what it was asked goes to whoever reads.
fn serving(answer: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let read = stream.read(&mut request).unwrap_or(0);
            // Who has heard enough is gone.
            let _ = said.send(String::from_utf8_lossy(&request[..read]).into_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, heard)
}

#[test]
fn an_answer_of_another_house_is_not_believed() {
    let home = tempfile::tempdir().unwrap();
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 70),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 69),
        ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{\"data\":{}}", 70),
        ("nonsense\r\n\r\n", 69),
    ] {
        let (url, _heard) = serving(answer);
        let output = run(home.path(), &["list", "--url", &url], &[("INFINIBAY_TOKEN", "t")]);
        assert_eq!(output.status.code(), Some(status), "{answer}: {}", words(&output.stderr));
    }
}

#[test]
fn a_token_is_not_carried_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let (other, heard) = serving("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {other}/graphql\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (url, _) = serving(redirect.leak());
    let env = [
        ("INFINIBAY_TOKEN", "hunter2"),
        ("http_proxy", &*other),
        ("HTTP_PROXY", &*other),
        ("ALL_PROXY", &*other),
    ];
    let output = run(home.path(), &["list", "--url", &url], &env);
    assert_eq!(output.status.code(), Some(70), "{}", words(&output.stderr));
    assert!(heard.try_recv().is_err(), "the token went to another place");
}

#[test]
fn manuals_and_completions_come_of_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    let made = home.path().join("made");
    let output = run(home.path(), &["generate", made.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    for file in
        ["man/infinibay.1", "man/infinibay-exec.1", "completions/infinibay.bash", "completions/_infinibay"]
    {
        assert!(fs::read_to_string(made.join(file)).unwrap().contains("exec"), "{file}");
    }
    assert!(!made.join("man/infinibay-vm.1").exists() && !made.join("man/infinibay-generate.1").exists());
}
