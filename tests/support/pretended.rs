//! Installers that are none. Linux's is the kernel and the RAM disk of the guest of tests, with an `init`
//! of the story's own; Windows' is a few instructions that a BIOS runs.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    daemon::Client,
    host::{need_image, test_images},
    stage::SOON,
};

/// Says that it is done, and switches off.
pub(crate) const DONE_AT_ONCE: &str = "#!/bin/busybox sh
[ -e /preseed.cfg ] && echo 'infinibay: stage installed'
/bin/busybox sleep 1
/bin/busybox poweroff -f
";
/// Has something to do for as long as anybody waits.
pub(crate) const NEVER_DONE: &str = "#!/bin/busybox sh
while :; do
    echo 'unpacking'
    /bin/busybox sleep 1
done
";
/// Writes what stands behind it to the serial port, up to a zero, and halts.
const WRITE_AND_HALT: [u8; 35] = [
    0xfa, // cli
    0xe8, 0x00, 0x00, // call the next instruction
    0x5e, // pop si
    0x83, 0xc6, 0x1f, // add si: the text
    0x2e, 0xac, // next: lodsb cs:[si]
    0x84, 0xc0, // test al, al
    0x74, 0x12, // jz end
    0x88, 0xc4, // mov ah, al
    0xba, 0xfd, 0x03, // mov dx, line status
    0xec, // wait: in al, dx
    0xa8, 0x20, // test al, empty
    0x74, 0xfb, // jz wait
    0x88, 0xe0, // mov al, ah
    0xba, 0xf8, 0x03, // mov dx, data
    0xee, // out dx, al
    0xeb, 0xe8, // jmp next
    0xf4, // end: hlt
    0xeb, 0xfd, // jmp end
];

/// A disc in `dir` that is taken for Debian's.
pub(crate) fn debian(dir: &Path, name: &str, init: &str) -> PathBuf {
    let tree = dir.join(name);
    for folder in [".disk", "install.amd"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    let about = "Debian GNU/Linux 13.0.0 \"Trixie\" - Official amd64 NETINST with firmware 20250809-11:20";
    fs::write(tree.join(".disk/info"), about).unwrap();
    fs::write(tree.join("install.amd/vmlinuz"), kernel()).unwrap();
    fs::write(tree.join("install.amd/initrd.gz"), initrd(dir, init)).unwrap();
    disc(&tree, "Debian 13.0.0 amd64 n", &[])
}

/// A disc in `dir` that is taken for Windows' of that build. Where a BIOS boots it, it says at once that
/// it has finished, and goes on running.
pub(crate) fn windows(dir: &Path, name: &str, build: &str) -> PathBuf {
    let tree = dir.join(name);
    fs::create_dir_all(tree.join("sources")).unwrap();
    let xml = format!(
        "\u{feff}<WIM><IMAGE INDEX=\"1\"><WINDOWS><ARCH>9</ARCH><INSTALLATIONTYPE>Client</INSTALLATIONTYPE>\
         <VERSION><MAJOR>10</MAJOR><BUILD>{build}</BUILD></VERSION></WINDOWS><NAME>Windows Pro</NAME></IMAGE></WIM>"
    );
    let xml: Vec<u8> = xml.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut wim = vec![0; 208];
    wim[..8].copy_from_slice(b"MSWIM\0\0\0");
    wim[72..80].copy_from_slice(&(xml.len() as u64 | 2 << 56).to_le_bytes());
    wim[80..88].copy_from_slice(&208_u64.to_le_bytes());
    wim.extend(xml);
    fs::write(tree.join("sources/install.wim"), wim).unwrap();
    fs::write(tree.join("sources/boot.wim"), "MSWIM").unwrap();
    let mut boot = WRITE_AND_HALT.to_vec();
    boot.extend(b"infinibay: stage finished\r\n\0");
    boot.resize(2048, 0);
    fs::write(tree.join("boot.bin"), boot).unwrap();
    disc(&tree, "CCCOMA_X64FRE", &["-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"])
}

/// A disc beside a directory, of what is in it.
fn disc(tree: &Path, label: &str, boot: &[&str]) -> PathBuf {
    let disc = tree.with_extension("iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-R", "-J", "-V", label])
        .args(boot)
        .arg("-o")
        .args([&disc, tree])
        .output()
        .expect("xorriso is needed; scripts/test installs it");
    assert!(made.status.success(), "xorriso: {}", String::from_utf8_lossy(&made.stderr));
    disc
}

/// Takes a disc into the library under this name.
pub(crate) async fn import(client: &Client, name: &str, disc: &Path) {
    const IMPORT: &str = "mutation($i: ImportMediumInput!) { importMedium(input: $i) { id } }";
    let input = json!({ "name": name, "kind": "INSTALLATION", "path": disc });
    client.ask(IMPORT, json!({ "i": input })).await;
    let deadline = Instant::now() + SOON;
    loop {
        const LOOK: &str = "query($n: String!) { medium(name: $n) { state error { message } } }";
        let now: Value = client.ask(LOOK, json!({ "n": name })).await["medium"].take();
        if now["state"] == "READY" {
            return;
        }
        assert!(now["state"] != "FAILED" && Instant::now() < deadline, "the disc is {now}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

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
