//! The command line for people, as a person runs it.

use std::{
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::terminal::Terminal;

/// What a run said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It must have gone well; what it said.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.out
    }

    /// The same, as JSON.
    pub(crate) fn json(self) -> Value {
        let out = self.well();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// It must have failed with this status and this code.
    pub(crate) fn refused(&self, status: i32, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.err.contains(code), "{code} is not in {self:?}");
    }
}

/// Somebody with a home of his own, and perhaps a daemon in his environment.
pub(crate) struct Person {
    home: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Person {
    /// Nobody has told him anything.
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// With a daemon and a token in his environment.
    pub(crate) fn with(url: &str, token: &str) -> Self {
        Self::with_env(&[("INFINIBAY_URL", url), ("INFINIBAY_TOKEN", token)])
    }

    /// With this in his environment.
    pub(crate) fn with_env(env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { env, ..Self::new() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The executable, in his environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(infinibay());
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("TERM", "xterm")
            .env("PATH", "/usr/bin:/bin");
        command.envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// To its end; not on the threads that the story's guests live on.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "").await
    }

    /// To its end, with this on standard input.
    pub(crate) async fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut command = within(60, &self.command(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let work = move || {
            let mut child = command.spawn().unwrap();
            // One that needs no input may have ended already.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            Ran::of(child.wait_with_output().unwrap())
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    /// On a terminal of `script`'s making: what it showed there, and how it ended.
    pub(crate) async fn run_on_a_terminal(&self, args: &[&str]) -> Ran {
        let mut line = infinibay().display().to_string();
        for arg in args {
            line += &format!(" '{}'", arg.replace('\'', "'\\''"));
        }
        let mut command = Command::new("timeout");
        command.args([
            "--signal=KILL",
            "60",
            "script",
            "--quiet",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ]);
        command.env_clear().env("HOME", self.home.path()).env("TERM", "xterm").env("SHELL", "/bin/sh");
        command.envs(self.env.iter().cloned()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || {
            command.output().expect("script (util-linux) is needed; scripts/test installs it")
        });
        Ran::of(ran.await.unwrap())
    }

    /// On a terminal at which he sits.
    pub(crate) fn sits_at(&self, args: &[&str]) -> Terminal {
        Terminal::run(&self.command(args))
    }

    /// Begun, and listened to while it goes on.
    pub(crate) fn watch(&self, args: &[&str]) -> Watched {
        let mut child = self.begin(args);
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Watched { child, out: Heard::of(out), err: Heard::of(err) }
    }

    /// Begun, and ended by who asked for it.
    pub(crate) fn begin(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// One that goes on. Dropped, it is killed.
pub(crate) struct Watched {
    child: Child,
    pub(crate) out: Heard,
    pub(crate) err: Heard,
}

impl Watched {
    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// It ends by itself, or was told to.
    pub(crate) async fn ended(mut self) -> Ran {
        let status = until("it to end", || self.child.try_wait().unwrap()).await;
        // What it said last may still be on its way.
        let (out, err) = (self.out.whole().await, self.err.whole().await);
        Ran { status: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was said so far, and whether that is all.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<(String, bool)>>);

impl Heard {
    pub(crate) fn of(mut from: impl Read + Send + 'static) -> Self {
        let heard = Self::default();
        let ear = heard.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A pseudo-terminal that nobody holds any more ends with an error.
            while let Ok(read @ 1..) = from.read(&mut piece) {
                ear.0.lock().unwrap().0 += &String::from_utf8_lossy(&piece[..read]);
            }
            ear.0.lock().unwrap().1 = true;
        });
        heard
    }

    /// What was said so far.
    pub(crate) fn now(&self) -> String {
        self.0.lock().unwrap().0.clone()
    }

    /// Waits until this was said; what was said before and with it.
    pub(crate) async fn until(&self, words: &str) -> String {
        let said = || Some(self.now()).filter(|said| said.contains(words));
        let deadline = tokio::time::timeout(SOON, async {
            loop {
                if let Some(said) = said() {
                    return said;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        deadline.await.unwrap_or_else(|_| panic!("{words:?} is not in {:?}", self.now()))
    }

    /// Everything, once nothing more can come.
    pub(crate) async fn whole(&self) -> String {
        let heard = || Some(self.0.lock().unwrap().clone()).filter(|(_, whole)| *whole);
        until("the end of what it says", heard).await.0
    }
}

const SOON: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// Waits for what one looks for.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The same command, killed (status -1, or 137) when it takes longer than it may.
fn within(seconds: u32, command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.args(["--signal=KILL", &seconds.to_string()]).arg(command.get_program()).args(command.get_args());
    bounded.env_clear().env("PATH", "/usr/bin:/bin");
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded
}

/// What became of one that was begun.
pub(crate) async fn ended(child: Child) -> Ran {
    tokio::task::spawn_blocking(move || Ran::of(child.wait_with_output().unwrap())).await.unwrap()
}

/// The executable, which stands beside the daemon's.
pub(crate) fn infinibay() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_infinibayd")).with_file_name("infinibay");
    assert!(
        beside.exists(),
        "{} is not built; `cargo build -p infinibay-cli` does, and so does a run with --workspace",
        beside.display()
    );
    beside
}
