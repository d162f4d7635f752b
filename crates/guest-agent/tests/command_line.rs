//! What a person at the guest's console can ask of the binary.

#![allow(clippy::unwrap_used, reason = "a failed step fails the story")]

use std::process::Command;

use agent_protocol::GuestMessage;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_infiniservice")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_tells_its_version_and_its_use() {
    assert_eq!(run(&["--version"]).1, concat!("infiniservice ", env!("CARGO_PKG_VERSION"), "\n"));
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(help.contains("INFINIBAY_VM_ID") && help.contains("--once"));
    for wrong in [&["--nonsense"][..], &["--once", "twice"]] {
        let (status, out, complaint) = run(wrong);
        assert_eq!((status, out.as_str()), (Some(2), ""));
        assert!(complaint.contains("--help"), "{complaint}");
    }
}

#[test]
fn once_prints_a_frame_that_the_host_would_take() {
    let (status, frame, _) = run(&["--once"]);
    assert_eq!(status, Some(0));
    let message = GuestMessage::decode(frame.trim_end().as_bytes());
    assert!(matches!(message, Ok(GuestMessage::Metrics(_))), "{message:?}");
}
