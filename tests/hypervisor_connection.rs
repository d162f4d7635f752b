//! The connection to libvirtd lost, frozen and found again, on a private libvirtd so that nobody
//! else notices. It runs without privileges, and serves libvirt's in-memory driver.

#[path = "hypervisor/support.rs"]
mod support;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use infinibay::{
    config::HypervisorConfig,
    hypervisor::{Hypervisor, HypervisorError, HypervisorEvent, libvirt::LibvirtHypervisor},
    vm::{DomainState, VmId},
};
use support::{PATIENCE, about, config, domain_xml, event, present, until};

/// `nobody` on every Linux; libvirtd as root would meddle with the system's own.
const NOBODY: u32 = 65534;

struct Daemon {
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Daemon {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        std::fs::write(
            directory.path().join("libvirtd.conf"),
            format!(
                "auth_unix_rw = \"none\"\nunix_sock_rw_perms = \"0777\"\nlog_outputs = \"2:file:{}\"\n",
                log.display()
            ),
        )
        .expect("write the daemon's configuration");
        if am_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY))
                .expect("give the directory to nobody");
        }
        let mut daemon = Self { directory, child: None };
        daemon.run().await;
        daemon
    }

    async fn run(&mut self) {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = if am_root() {
            let mut command = Command::new("setpriv");
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "libvirtd"]);
            command
        } else {
            Command::new("libvirtd")
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let child = command
            .arg("--config")
            .arg(at("libvirtd.conf"))
            .arg("--pid-file")
            .arg(at("pid"))
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin", path.to_string_lossy()))
            .env("HOME", self.directory.path())
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("XDG_CONFIG_HOME", at("config"))
            .env("XDG_CACHE_HOME", at("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need libvirtd and setpriv");
        self.child = Some(child);
        let socket = self.socket();
        until("the private libvirtd to listen", async || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        })
        .await;
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/libvirt/libvirt-sock")
    }

    fn config(&self) -> HypervisorConfig {
        let uri = format!("test+unix:///default?socket={}", self.socket().display());
        HypervisorConfig { call_timeout: Duration::from_secs(1), ..config(&uri) }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("the daemon runs").id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("run kill");
        assert!(status.success(), "kill {signal} {pid}");
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("kill the private libvirtd");
        child.wait().expect("wait for the private libvirtd");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

async fn defined(hypervisor: &LibvirtHypervisor) -> VmId {
    let id = VmId::generate();
    hypervisor.define(id, domain_xml("test", id, &format!("hyper-{id}"), None)).await.expect("define");
    id
}

#[tokio::test]
async fn after_a_loss_everything_is_registered_again() {
    let mut daemon = Daemon::start().await;
    let hypervisor = LibvirtHypervisor::start(daemon.config());
    let mut events = hypervisor.events();
    hypervisor.connected(PATIENCE).await.unwrap();
    let id = defined(&hypervisor).await;
    event("defined", &mut events, about(id)).await;

    daemon.kill();
    event("lost", &mut events, |event| matches!(event, HypervisorEvent::Disconnected)).await;
    assert!(!hypervisor.is_connected());
    let error = hypervisor.observe(id).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unreachable { .. }), "unknown, not absent: {error:?}");
    assert!(hypervisor.observe_all().await.is_err(), "no shorter list");

    daemon.run().await;
    event("found", &mut events, |event| matches!(event, HypervisorEvent::Connected)).await;
    let id = defined(&hypervisor).await;
    event("defined after the loss", &mut events, about(id)).await;
    hypervisor.start(id).await.unwrap();
    event("started after the loss", &mut events, about(id)).await;
    assert_eq!(present(&hypervisor, id).await.state, DomainState::Running);
    assert!(hypervisor.observe_all().await.unwrap().domains.contains_key(&id));
}

#[tokio::test]
async fn a_call_that_hangs_keeps_only_its_own_domain_busy() {
    let daemon = Daemon::start().await;
    let hypervisor = LibvirtHypervisor::start(daemon.config());
    let mut events = hypervisor.events();
    hypervisor.connected(PATIENCE).await.unwrap();
    let (hung, other) = (defined(&hypervisor).await, defined(&hypervisor).await);

    daemon.signal("-STOP");
    let error = hypervisor.start(hung).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Deadline { .. }), "{error:?}");
    assert!(hypervisor.is_busy(hung));
    assert!(!hypervisor.is_busy(other));
    daemon.signal("-CONT");
    until("the late call to return", async || (!hypervisor.is_busy(hung)).then_some(())).await;
    event("a hint to look", &mut events, about(hung)).await;
    hypervisor.connected(PATIENCE).await.unwrap();
    assert_eq!(present(&hypervisor, hung).await.state, DomainState::Running, "late, but done");
    assert_eq!(present(&hypervisor, other).await.state, DomainState::Shutoff);
}

#[tokio::test]
async fn a_frozen_server_is_given_up() {
    let daemon = Daemon::start().await;
    let hypervisor = LibvirtHypervisor::start(daemon.config());
    let mut events = hypervisor.events();
    hypervisor.connected(PATIENCE).await.unwrap();
    let id = defined(&hypervisor).await;

    daemon.signal("-STOP");
    let error = hypervisor.observe(id).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Deadline { .. }), "{error:?}");
    event("given up", &mut events, |event| matches!(event, HypervisorEvent::Disconnected)).await;
    until("the hanging call to return with its connection", async || (!hypervisor.is_busy(id)).then_some(()))
        .await;
    daemon.signal("-CONT");
    event("found", &mut events, |event| matches!(event, HypervisorEvent::Connected)).await;
    hypervisor.observe_all().await.unwrap();
}
