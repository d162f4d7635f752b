//! A PostgreSQL of the bench's own, with the settings that it comes with: what is measured against
//! a server that does not sync would not hold anywhere else.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::daemon::wait;

/// Ended, and its files removed, when dropped.
pub(crate) struct Cluster {
    server: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Blocks until it serves. To be called on the main thread: the server dies with the thread
    /// that started it.
    pub(crate) fn start() -> Self {
        // A directory in memory would not be a disk.
        let dir = tempfile::Builder::new().prefix("infinibay-bench-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        let binaries = crate::support::database::binaries();
        let root = rustix::process::getuid().is_root();
        if root {
            assert!(Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap().success());
        }
        let as_user = |program: &Path| {
            let mut command = Command::new("setpriv");
            if root {
                command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
            }
            command.args(["--pdeathsig", "QUIT"]).arg(program).current_dir("/").stdin(Stdio::null());
            command
        };
        let made = as_user(&binaries.join("initdb"))
            .args(["--no-instructions", "--auth", "trust", "--encoding", "UTF8", "--locale", "C"])
            .args(["--username", "postgres", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut server = as_user(&binaries.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-p", &port.to_string()])
            .args(["-c", &format!("unix_socket_directories={}", dir.path().display())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        wait("PostgreSQL to serve", Duration::from_secs(60), || {
            assert!(server.try_wait().unwrap().is_none(), "PostgreSQL ended");
            let ready = Command::new(binaries.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
                .status();
            ready.unwrap().success().then_some(())
        });
        Self { server, port, dir }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A database of that name, empty.
    pub(crate) async fn database(&self, name: &str) -> String {
        let mut admin = self.connect("postgres").await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
        self.url(name)
    }

    pub(crate) async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.expect("connecting to the bench's PostgreSQL")
    }

    /// Lets `psql` do this, as a person would.
    pub(crate) fn psql(&self, database: &str, command: &str) {
        let out = Command::new("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &self.url(database), "-c", command])
            .output()
            .expect("psql is needed");
        assert!(out.status.success(), "psql {command}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Nothing that was done before is left to be written while the next one is measured.
    pub(crate) fn checkpoint(&self) {
        self.psql("postgres", "CHECKPOINT");
    }

    /// A place on the same disk for files that the bench hands to it.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.server.wait();
    }
}
