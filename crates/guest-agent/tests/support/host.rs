//! A host end for the real binary: a Unix socket or the master of a pseudo-terminal.

// Each story uses its part of this file.
#![allow(dead_code, clippy::unwrap_used, reason = "each story uses its part; a failed step fails the story")]

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agent_protocol::{Answer, FrameDecoder, GuestMessage, Handshake};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use serde_json::{Value, json};

/// Every wait ends after this.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A running agent; ended with the value.
pub(crate) struct Agent {
    child: Child,
    pub(crate) dir: tempfile::TempDir,
    listener: Option<UnixListener>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Agent {
    fn start(dir: tempfile::TempDir, listener: Option<UnixListener>, settings: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_infiniservice"))
            .env("INFINIBAY_VM_ID", "story")
            .env("INFINIBAY_DEVICE", dir.path().join("port"))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start infiniservice");
        Self { child, dir, listener }
    }

    /// An agent whose port is a socket, so that the host end can come and go.
    pub(crate) fn on_socket(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("port")).unwrap();
        Self::start(dir, Some(listener), settings)
    }

    /// An agent whose port is a character device.
    pub(crate) fn on_terminal(settings: &[(&str, &str)]) -> (Self, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = terminal(&dir.path().join("port"));
        (Self::start(dir, None, settings), host)
    }

    /// An agent whose port is not there yet.
    pub(crate) fn without_port(settings: &[(&str, &str)]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), None, settings)
    }

    /// Where the agent looks for its port.
    pub(crate) fn port(&self) -> PathBuf {
        self.dir.path().join("port")
    }

    /// Waits for the agent to connect.
    pub(crate) fn host(&self) -> Host {
        let listener = self.listener.as_ref().expect("an agent on a socket");
        wait_readable(listener, Instant::now() + LIMIT, "the agent to connect");
        Host::new(listener.accept().unwrap().0.into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory, KiB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = text.lines().find(|l| l.starts_with("Rss:")).expect("a resident size");
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Makes a pseudo-terminal, raw, and leads `path` to it.
pub(crate) fn terminal(path: &Path) -> Host {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let mut mode = tcgetattr(&master).unwrap();
    mode.make_raw();
    tcsetattr(&master, OptionalActions::Now, &mode).unwrap();
    let slave = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let next = path.with_extension("next");
    symlink(slave, &next).unwrap();
    std::fs::rename(next, path).unwrap();
    Host::new(master)
}

fn wait_readable(fd: impl rustix::fd::AsFd, deadline: Instant, what: &str) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited in vain for {what}");
        let left = Timespec::try_from(left).unwrap();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if poll(&mut fds, Some(&left)).is_ok_and(|n| n > 0) {
            return;
        }
    }
}

/// One connection to the agent.
pub(crate) struct Host {
    fd: OwnedFd,
    decoder: FrameDecoder,
}

impl Host {
    fn new(fd: OwnedFd) -> Self {
        let flags = fcntl_getfl(&fd).unwrap() | OFlags::NONBLOCK;
        fcntl_setfl(&fd, flags).unwrap();
        Self { fd, decoder: FrameDecoder::default() }
    }

    /// Writes all of it, within the limit.
    pub(crate) fn send_bytes(&mut self, mut bytes: &[u8]) {
        let deadline = Instant::now() + LIMIT;
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::AGAIN) => {
                    assert!(Instant::now() < deadline, "the agent does not read");
                    let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
                    poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
                }
                Err(e) => panic!("write to the agent: {e}"),
            }
        }
    }

    /// Writes what fits now.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.fd, bytes)?)
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes());
    }

    pub(crate) fn shell(&mut self, id: &str, line: &str, timeout: u32) {
        self.send(&json!({"type": "UnsafeCommand", "id": id, "raw_command": line, "timeout": timeout}));
    }

    /// The next message, which must be a proper one.
    pub(crate) fn next(&mut self, what: &str) -> GuestMessage {
        let frame = self.next_frame(what);
        GuestMessage::decode(&frame)
            .unwrap_or_else(|e| panic!("{e}: {:.200}", String::from_utf8_lossy(&frame)))
    }

    pub(crate) fn next_frame(&mut self, what: &str) -> Vec<u8> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(frame) = self.decoder.next_frame() {
                return frame.unwrap();
            }
            wait_readable(&self.fd, deadline, what);
            let mut buffer = vec![0; 64 << 10];
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(0) => panic!("the agent hung up; waited for {what}"),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => panic!("read from the agent: {e}; waited for {what}"),
            }
        }
    }

    /// Reads without regard to lines until these bytes come.
    pub(crate) fn read_until(&mut self, what: &str, wanted: &[u8]) {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        while !seen.windows(wanted.len()).any(|window| window == wanted) {
            wait_readable(&self.fd, deadline, what);
            let mut buffer = vec![0; 1024];
            let count = rustix::io::read(&self.fd, &mut buffer).unwrap();
            assert!(count > 0, "the agent hung up; waited for {what}");
            seen.extend_from_slice(&buffer[..count]);
        }
    }

    /// The first message that fits; others are passed over.
    pub(crate) fn find<T>(&mut self, what: &str, mut fits: impl FnMut(GuestMessage) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(found) = fits(self.next(what)) {
                return found;
            }
        }
        panic!("waited in vain for {what}");
    }

    pub(crate) fn handshake(&mut self) -> Handshake {
        self.find("a handshake", |m| if let GuestMessage::Handshake(h) = m { Some(h) } else { None })
    }

    pub(crate) fn answer(&mut self, id: &str) -> Answer {
        self.find(&format!("the answer to {id}"), |message| match message {
            GuestMessage::Answer(answer) if answer.id == id => Some(answer),
            _ => None,
        })
    }
}

/// The code of a failed answer.
pub(crate) fn code(answer: &Answer) -> &str {
    assert!(!answer.success, "{answer:?}");
    answer.error.as_ref().and_then(|e| e.code.as_ref()).and_then(Value::as_str).expect("a code")
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        breathe();
    }
}

/// A moment for the agent to go on.
pub(crate) fn breathe() {
    poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
}
