//! A libvirtd of a story's own, with QEMU behind it, to be stopped, killed and frozen while guests
//! run: nobody else of this host notices.
//!
//! As root, libvirtd has fixed places. So it lives in namespaces of its own: directories of the
//! story lie over the system's there, it has no network but an empty one, and all its processes,
//! guests too, end with the first of them. What guests and controller share (disks, agents' sockets,
//! consoles) stands elsewhere and has one path on both sides.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{daemon::wait, guests::Places, host};

const KEEPER: &str = include_str!("libvirtd/keeper.sh");
/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dropped, it ends with all its guests.
pub struct Libvirtd {
    dir: tempfile::TempDir,
    /// Waits for the first process of the namespaces.
    keeper: Child,
    /// That process.
    first: Pid,
    _places: Places,
}

impl Libvirtd {
    /// A running one, without domains, pools and networks, once there are places for so many guests.
    pub fn start(guests: usize) -> Self {
        Self::start_with(guests, "", "remember_owner = 0\n")
    }

    /// One that lets in a group's members, as distributions have it, and gives files back to their owners.
    pub fn start_for(group: &str, guests: usize) -> Self {
        let lets_in = format!("unix_sock_group = \"{group}\"\nunix_sock_rw_perms = \"0770\"\n");
        Self::start_with(guests, &lets_in, "")
    }

    fn start_with(guests: usize, more: &str, qemu: &str) -> Self {
        let places = Places::take(guests);
        let dir = tempfile::Builder::new().prefix("infinibay-libvirtd-").tempdir_in("/var/tmp").unwrap();
        // QEMU's user passes through it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for place in ["run", "lib", "cache", "log", "etc"] {
            fs::create_dir(dir.path().join(place)).unwrap();
        }
        for (name, lines) in [
            (
                "libvirtd.conf",
                format!(
                    "auth_unix_rw = \"none\"\nlog_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n{more}"
                ),
            ),
            ("virtlogd.conf", String::new()),
            // What the host has of these is set up for the system's own libvirtd.
            (
                "qemu.conf",
                format!("security_driver = \"none\"\nnamespaces = [ ]\ncgroup_controllers = [ ]\n{qemu}"),
            ),
        ] {
            fs::write(dir.path().join("etc").join(name), lines).unwrap();
        }
        // Told by the kernel when the test dies, however that happens.
        let mut keeper = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "--propagation", "private", "sh", "-c", KEEPER, "infinibay-test-libvirtd"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("these stories need setpriv and unshare (package util-linux), and root");
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "ready", "the namespaces of a private libvirtd could not be set up");
        let children = format!("/proc/{0}/task/{0}/children", keeper.id());
        let first = fs::read_to_string(&children).unwrap().trim().parse().ok().and_then(Pid::from_raw);
        let first = first.unwrap_or_else(|| panic!("{children} names nobody"));
        let libvirtd = Self { dir, keeper, first, _places: places };
        libvirtd.daemon("virtlogd");
        libvirtd.run();
        libvirtd
    }

    /// For the controller's `hypervisor.uri` and for virsh.
    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.at("run/libvirt-sock").display())
    }

    /// Starts it, after [`Self::stop`] or [`Self::kill`], and waits until it answers.
    pub fn run(&self) {
        self.daemon("libvirtd");
        let answers = || host::try_virsh(&self.uri(), &["version"]).then_some(());
        wait("the private libvirtd to answer", PATIENCE, answers);
    }

    /// Ends it as an administrator does. Guests run on.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Ends it as a fault does. Guests run on.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// It takes connections and answers nothing, until [`Self::thaw`].
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// See [`Self::freeze`].
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Runs virsh on it and gives its output.
    pub fn virsh(&self, args: &[&str]) -> String {
        host::virsh_at(&self.uri(), args)
    }

    /// The process of this domain's QEMU, which is asked for without libvirt; `None` where it has none.
    pub fn guest(&self, name: &str) -> Option<Pid> {
        self.outside(&self.at(&format!("run/qemu/{name}.pid")))
    }

    /// Makes a directory pool `story` in `home`; its directory.
    pub fn pool(&self, home: &Path) -> PathBuf {
        let dir = home.join("pool");
        fs::create_dir(&dir).unwrap();
        self.virsh(&["pool-create-as", "story", "dir", "--target", dir.to_str().unwrap()]);
        dir
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pid(&self) -> Pid {
        self.outside(&self.at("libvirtd.pid")).expect("the private libvirtd runs")
    }

    fn end(&self, signal: Signal) {
        let pid = self.pid();
        kill_process(pid, signal).unwrap();
        let ended = || test_kill_process(pid).is_err().then_some(());
        wait("the private libvirtd to end", PATIENCE, ended);
    }

    /// Starts a daemon in the namespaces; it has its own pid file and serves when this returns.
    fn daemon(&self, program: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("nsenter")
            .args(["--target", &self.first.as_raw_nonzero().to_string(), "--mount", "--net", "--pid"])
            .args([program, "--daemon", "--pid-file"])
            .arg(self.at(&format!("{program}.pid")))
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::null())
            .output()
            .expect("these stories need nsenter (package util-linux)");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The process that a pid file of the namespaces names, by its number out here.
    fn outside(&self, file: &Path) -> Option<Pid> {
        let inside = fs::read_to_string(file).ok()?.trim().to_owned();
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(self.first.as_raw_nonzero().get()).expect("the namespaces are there");
        let is_it = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            line.and_then(|line| line.split_whitespace().last()).is_some_and(|last| last == inside)
        };
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .find(|pid| namespace(*pid).as_ref() == Some(&ours) && is_it(*pid))
            .and_then(Pid::from_raw)
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.at("log/libvirtd.log")).unwrap_or_default();
            eprintln!("---- what the private libvirtd logged ----\n{log}");
        }
        // Reaped by the keeper only when all others of the namespaces have ended.
        if let Err(error) = kill_process(self.first, Signal::KILL) {
            eprintln!("the private libvirtd was gone already: {error}");
        }
        let _ = self.keeper.wait();
    }
}
