//! An installer that is none: the kernel and the RAM disk of the guest of tests, with an `init` of the
//! story's own.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use super::host::{need_image, test_images};

/// Its kernel.
pub(crate) fn kernel() -> Vec<u8> {
    pocket("kernel")
}

/// A file of the guest of tests, by what its manifest calls it.
fn pocket(key: &str) -> Vec<u8> {
    need_image("pocket");
    let dir = test_images().join("pocket");
    let manifest = fs::read_to_string(dir.join("manifest.toml")).unwrap();
    let of = |line: &str| Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned());
    fs::read(dir.join(manifest.lines().find_map(of).unwrap())).unwrap()
}

/// Its RAM disk, with another `init` behind it. `dir` is a place for that.
pub(crate) fn initrd(dir: &Path, says: &str) -> Vec<u8> {
    let init = dir.join("init");
    fs::write(&init, says).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--owner=0:0", "--quiet"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cpio is needed; scripts/test installs it");
    cpio.stdin.take().unwrap().write_all(b"init\n").unwrap();
    let output = cpio.wait_with_output().unwrap();
    assert!(output.status.success(), "cpio failed");
    let mut whole = pocket("initrd");
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole.extend(output.stdout);
    whole
}
