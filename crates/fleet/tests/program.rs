//! The program: says when it is ready, what it counts, and ends when its input does.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use serde_json::Value;

#[test]
fn it_serves_reports_and_ends_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids");
    let silent = "0b5f7f6e-5a55-4f8e-9d3b-0a9e0e2b7c11";
    std::fs::write(&ids, format!("6f0a1bd2-5f3f-4a0c-8a54-b2f0e4d7c102\n\n{silent} silent\n")).unwrap();
    let mut fleet = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["--interval-ms", "0", "--frames-total", "5", "--dir"])
        .arg(dir.path())
        .arg("--ids")
        .arg(&ids)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(fleet.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let ready = said.next().unwrap();
    assert_eq!(ready["ready"][1]["kind"], "silent");
    let vm = ready["ready"][0]["vm"].as_str().unwrap().to_owned();

    let mut client = UnixStream::connect(dir.path().join(format!("vm-{vm}.sock"))).unwrap();
    client.write_all(b"{\"type\":\"UnsafeCommand\",\"id\":\"a\",\"raw_command\":\"x\"}\n").unwrap();
    let all = |line: &Value| line["report"]["commands_answered"] == 1 && line["report"]["frames_sent"] == 3;
    assert_eq!(said.find(all).unwrap()["report"]["connected"], 1);

    drop(fleet.stdin.take());
    let end = said.last().unwrap();
    assert_eq!((&end["end"]["guests"], &end["guests"][0]["frames_sent"]), (&2.into(), &3.into()));
    assert!(fleet.wait().unwrap().success());
    // The guest's end is closed, after all that it said.
    client.read_to_end(&mut Vec::new()).unwrap();
}
