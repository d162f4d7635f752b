//! One private PostgreSQL cluster for all test processes that run at the same time, gone with the
//! last of them, however it ends.
//!
//! Every process that uses the cluster holds a shared lock on its `users.lock`; the kernel takes
//! that back from a process that dies. A keeper, a small shell script in a session of its own,
//! owns the server as its child, waits for the exclusive lock, lingers a moment for the next test
//! process, then ends the server and removes the directory. Should the keeper be killed, the
//! server is told by its parent-death signal.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use infinibay::store::Store;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

const KEEPER: &str = include_str!("keeper.sh");

#[derive(Debug)]
pub(super) struct Cluster {
    port: u16,
    template: OnceCell<String>,
    /// Held as long as the process lives.
    _use: File,
}

impl Cluster {
    /// The cluster, started unless another test process did. Blocks.
    pub(super) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let base = base();
            let _turn = lock(&base.join("turn.lock"), FlockOperation::LockExclusive).expect("taking turns");
            if let Some(running) = join(&base) {
                return running;
            }
            sweep(&base);
            let mut failures = Vec::new();
            for _ in 0..3 {
                // A port found free may be taken the moment after; then another is tried.
                match start(&base) {
                    Ok(started) => return started,
                    Err(why) => failures.push(why),
                }
            }
            panic!("PostgreSQL did not start:\n{}", failures.join("\n"));
        })
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub(super) async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.url("postgres")).await.expect("connecting to the PostgreSQL test cluster")
    }

    /// The name of the database that has this program's schema, to copy from.
    pub(super) async fn template(&self) -> &str {
        self.template.get_or_init(|| self.make_template()).await
    }

    async fn make_template(&self) -> String {
        let name = format!("template_{}", schema_digest());
        let turn = tokio::task::spawn_blocking(|| {
            lock(&base().join("turn.lock"), FlockOperation::LockExclusive).expect("taking turns")
        });
        let _turn = turn.await.expect("waiting for a turn");
        let mut admin = self.admin().await;
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .expect("looking for the template");
        if !there {
            // Under a name of its own until it is whole.
            let half = format!("half_{}", uuid::Uuid::new_v4().simple());
            let create = format!("CREATE DATABASE {half} TEMPLATE template0");
            sqlx::query(AssertSqlSafe(create)).execute(&mut admin).await.expect("creating the template");
            let store = Store::open(&self.url(&half), 1, std::time::Duration::from_secs(30))
                .await
                .expect("opening the template");
            store.migrate().await.expect("migrating the template");
            store.close().await;
            let rename = format!("ALTER DATABASE {half} RENAME TO {name}");
            sqlx::query(AssertSqlSafe(rename)).execute(&mut admin).await.expect("naming the template");
        }
        admin.close().await.expect("closing the administrator's connection");
        name
    }
}

/// The directory that all test processes of this user know.
fn base() -> PathBuf {
    let user = rustix::process::getuid();
    let base = std::env::temp_dir().join(format!("infinibay-test-postgres-{}", user.as_raw()));
    DirBuilder::new().recursive(true).mode(0o755).create(&base).expect("making the test clusters' directory");
    let owner = std::fs::symlink_metadata(&base).expect("looking at the test clusters' directory");
    assert!(owner.is_dir() && owner.uid() == user.as_raw(), "{} is not ours", base.display());
    base
}

fn lock(path: &Path, operation: FlockOperation) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    flock(&file, operation)?;
    Ok(file)
}

/// Uses the cluster that another process started, if it is still there and will stay.
fn join(base: &Path) -> Option<Cluster> {
    let current = std::fs::read_to_string(base.join("current")).ok()?;
    let (name, port) = current.trim().split_once(' ')?;
    let users = base.join(name).join("users.lock");
    if !users.exists() {
        return None;
    }
    // Refused: its keeper is ending it.
    let held = lock(&users, FlockOperation::NonBlockingLockShared).ok()?;
    let same = std::fs::metadata(&users).ok()?.ino() == held.metadata().ok()?.ino();
    let port = port.parse().ok()?;
    let answers = same && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    answers.then(|| Cluster { port, template: OnceCell::new(), _use: held })
}

/// Removes what keepers left that were killed, once their servers have ended.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let alive = entry.path().join("alive.lock");
        if alive.exists() && lock(&alive, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // At worst it stays for the next sweep.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn start(base: &Path) -> Result<Cluster, String> {
    let binaries = binaries();
    let dir = tempfile::Builder::new().prefix("c-").tempdir_in(base).map_err(|e| e.to_string())?;
    let held = lock(&dir.path().join("users.lock"), FlockOperation::NonBlockingLockShared)
        .map_err(|e| format!("locking: {e}"))?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .map_err(|e| format!("finding a free port: {e}"))?
        .port();
    // PostgreSQL refuses to run as root.
    let run_as = if rustix::process::getuid().is_root() { "postgres" } else { "" };
    // From here on the directory is the keeper's, who removes it in any case.
    let dir = dir.keep();
    let mut keeper = Command::new("setsid")
        .args(["sh", "-c", KEEPER, "infinibay-test-postgres"])
        .arg(&dir)
        .arg(&binaries)
        .arg(port.to_string())
        .arg(run_as)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("starting setsid (package util-linux): {e}"))?;
    let mut said = String::new();
    let mut out = BufReader::new(keeper.stdout.take().ok_or("the keeper has no output")?);
    out.read_line(&mut said).map_err(|e| format!("hearing from the keeper: {e}"))?;
    if said.trim() != "ready" {
        out.read_to_string(&mut said).map_err(|e| format!("hearing from the keeper: {e}"))?;
        return Err(format!("the keeper of {} said: {said}", dir.display()));
    }
    let name = dir.file_name().ok_or("the directory has no name")?.to_string_lossy();
    let fresh = base.join(format!("current.{}", std::process::id()));
    std::fs::write(&fresh, format!("{name} {port}\n"))
        .and_then(|()| std::fs::rename(&fresh, base.join("current")))
        .map_err(|e| format!("telling where it is: {e}"))?;
    Ok(Cluster { port, template: OnceCell::new(), _use: held })
}

/// The directory of `initdb` and `postgres`.
pub(crate) fn binaries() -> PathBuf {
    let asked = Command::new("pg_config").arg("--bindir").output();
    let told = asked
        .ok()
        .filter(|out| out.status.success())
        .map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    found.sort();
    let all = found.into_iter().rev().chain(told);
    all.into_iter()
        .find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
        .expect("PostgreSQL's server is needed to test on it: install the package postgresql")
}

/// Names the schema: another working copy with other migrations gets a template of its own.
fn schema_digest() -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .expect("listing the migrations")
        .map(|entry| entry.expect("listing the migrations").path())
        .collect();
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        digest.update(file.file_name().expect("a migration's name").as_encoded_bytes());
        digest.update([0]);
        digest.update(std::fs::read(&file).expect("reading a migration"));
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
