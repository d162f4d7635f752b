//! The host's libvirt, as a story sees it from outside: through virsh and the file system.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::guests::Places;

/// Runs virsh on the system's QEMU and gives its output; fails with a clear word.
pub fn virsh(args: &[&str]) -> String {
    virsh_at("qemu:///system", args)
}

/// The same elsewhere.
pub fn virsh_at(uri: &str, args: &[&str]) -> String {
    let output = Command::new("virsh")
        .args(["-q", "-c", uri])
        .args(args)
        .output()
        .expect("virsh is needed; scripts/test installs it");
    assert!(output.status.success(), "virsh {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether virsh does this well; what it says of failures is nobody's.
pub fn try_virsh(uri: &str, args: &[&str]) -> bool {
    let mut virsh = Command::new("virsh");
    virsh.args(["-q", "-c", uri]).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    virsh.status().expect("virsh is needed; scripts/test installs it").success()
}

/// Whether a domain of this name or UUID exists.
pub fn domain_exists(domain: &str) -> bool {
    let names = virsh(&["list", "--all", "--name"]);
    let uuids = virsh(&["list", "--all", "--uuid"]);
    names.lines().chain(uuids.lines()).any(|line| line.trim() == domain)
}

/// The domain's state, in virsh's words.
pub fn domain_state(domain: &str) -> Option<String> {
    domain_exists(domain).then(|| virsh(&["domstate", domain]).trim().to_owned())
}

/// SIGKILL for the process behind a domain, as the kernel does when memory runs out.
pub fn kill_hypervisor_process(name: &str) {
    let file = format!("/run/libvirt/qemu/{name}.pid");
    let pid = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A directory pool of the story's own, and a place for its guest.
pub struct Pool {
    pub name: String,
    pub dir: PathBuf,
    _place: Places,
}

impl Pool {
    /// Waits until there is a place for a guest.
    pub fn new(home: &Path) -> Self {
        let place = Places::take(1);
        let dir = home.join("pool");
        std::fs::create_dir(&dir).unwrap();
        let name = format!("story-{}", uuid::Uuid::new_v4());
        virsh(&["pool-create-as", &name, "dir", "--target", dir.to_str().unwrap()]);
        Self { name, dir, _place: place }
    }

    pub fn volumes(&self) -> Vec<PathBuf> {
        files_in(&self.dir)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let destroyed =
            Command::new("virsh").args(["-q", "-c", "qemu:///system", "pool-destroy", &self.name]).status();
        if !destroyed.is_ok_and(|status| status.success()) {
            eprintln!("the pool {} could not be removed", self.name);
        }
    }
}

/// What stands in a directory; a missing one is empty.
pub fn files_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Removes a story's domain, if the story failed before it did.
pub struct DomainGuard(pub String);

impl Drop for DomainGuard {
    fn drop(&mut self) {
        for args in [&["destroy"][..], &["undefine", "--nvram", "--managed-save", "--snapshots-metadata"][..]]
        {
            let _ = Command::new("virsh")
                .args(["-q", "-c", "qemu:///system"])
                .args([args[0], &self.0])
                .args(&args[1..])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Where the images and the agent's files for stories are: `scripts/test` builds them there.
pub fn test_images() -> PathBuf {
    PathBuf::from(
        std::env::var_os("INFINIBAY_TEST_IMAGES").unwrap_or_else(|| "/var/lib/infinibay/images".into()),
    )
}

/// See [`test_images`].
pub fn test_base_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("INFINIBAY_TEST_BASE").unwrap_or_else(|| "/var/lib/infinibay/base".into()))
}

/// Fails with a clear word where an image is not built.
pub fn need_image(name: &str) {
    let manifest = test_images().join(name).join("manifest.toml");
    assert!(manifest.exists(), "{} is missing; run scripts/build-guest-image", manifest.display());
}
