//! A PostgreSQL server of a story's own, to be ended and started again.
#![allow(dead_code)] // each story uses a part of it

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::chown,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{super::daemon::wait, cluster::binaries};

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty database on a server of its own. Dropped, it ends.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// A running one.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("infinibay-postgres-").tempdir_in("/var/tmp").unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let mut server = Self { dir, port: free.unwrap().port(), child: None };
        if rustix::process::getuid().is_root() {
            let passwd = fs::read_to_string("/etc/passwd").unwrap();
            let line = passwd.lines().find(|line| line.starts_with("postgres:"));
            let ids: Vec<u32> = line
                .into_iter()
                .flat_map(|line| line.split(':').skip(2).take(2))
                .flat_map(str::parse)
                .collect();
            let [user, group] = ids[..] else {
                panic!("these stories need the user postgres (package postgresql)")
            };
            chown(server.dir.path(), Some(user), Some(group)).unwrap();
        }
        let mut initdb = server.command("initdb");
        initdb.args([
            "--no-sync",
            "--no-instructions",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ]);
        let output = initdb.args(["--username", "postgres"]).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        server.run();
        server
    }

    /// For `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it, after [`Self::stop`] or [`Self::kill`], and waits until it takes connections.
    pub(crate) fn run(&mut self) {
        let (port, sockets) = (self.port.to_string(), self.dir.path().display().to_string());
        let mut command = self.command("postgres");
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
            &format!("unix_socket_directories={sockets}"),
            // What outlives the server's processes is all that is wanted of it.
            "fsync=off",
            "shared_buffers=32MB",
        ] {
            command.args(["-c", setting]);
        }
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        wait("the PostgreSQL server to take connections", PATIENCE, || {
            let mut ready = Command::new(binaries().join("pg_isready"));
            let asked = ready.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap();
            assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none(), "the server ended");
            asked.success().then_some(())
        });
    }

    /// Ends it as an administrator does who does not wait for its clients.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Ends it as a fault does: it has to recover.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the server runs");
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// PostgreSQL refuses to run as root; and it is not to outlive the test.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if rustix::process::getuid().is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
        }
        command.args(["--pdeathsig", "QUIT"]).arg(binaries().join(program));
        command.arg("-D").arg(self.dir.path().join("data")).current_dir("/").stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("---- what the PostgreSQL server logged ----\n{log}");
        }
        if self.child.is_some() {
            self.end(Signal::QUIT);
        }
    }
}
