//! One child process: its own group, a deadline that ends the whole group, bounded output.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::fd::{AsFd as _, OwnedFd},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid},
};
use serde_json::{Value, json};

use super::answer::{encoded_char, encoded_length};

/// What is kept of each stream for an answer.
pub(super) const KEEP_BYTES: usize = 256 << 10;
/// After the process itself has ended, how long to wait for others that hold its pipes.
const DRAIN: Duration = Duration::from_millis(500);
/// Between the request to end and the order.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to vanish before it is left to itself.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How often to look at a process that cannot be polled (kernels before 5.3).
const LOOK: Duration = Duration::from_millis(50);

/// A process that outlived its killing; somebody has to wait for it still.
pub(super) type Remains = Child;

/// What to run. Arguments go to the program as they are, never through a shell.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: &'a [&'a str],
    pub(super) directory: Option<&'a Path>,
    pub(super) environment: Option<&'a BTreeMap<String, String>>,
    pub(super) limit: Duration,
    /// Bytes kept of each stream.
    pub(super) keep: usize,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// `None`: it was ended by a signal.
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) timed_out: bool,
    pub(super) limit: Duration,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
    pub(super) remains: Option<Remains>,
}

impl Finished {
    pub(super) fn succeeded(&self) -> bool {
        self.exit_code == Some(0) && !self.timed_out
    }

    /// `{timed_out, signal: int|null, stdout_bytes, stderr_bytes, stdout_truncated,
    /// stderr_truncated}`
    pub(super) fn facts(&self) -> Value {
        json!({
            "timed_out": self.timed_out,
            "signal": self.signal,
            "stdout_bytes": self.stdout.total,
            "stderr_bytes": self.stderr.total,
            "stdout_truncated": self.stdout.is_truncated(),
            "stderr_truncated": self.stderr.is_truncated(),
        })
    }
}

/// The beginning of a stream, and how long it was.
#[derive(Debug, Default)]
pub(super) struct Captured {
    head: Vec<u8>,
    total: u64,
}

impl Captured {
    fn is_truncated(&self) -> bool {
        self.total > self.head.len() as u64
    }

    /// As text; what is no UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// As text of at most `room` bytes of JSON, with a mark where something is missing.
    pub(super) fn clipped(&self, room: usize) -> String {
        let text = self.text();
        if !self.is_truncated() && encoded_length(&text) <= room {
            return text;
        }
        let mark = format!("\n[output truncated: {} bytes in all]", self.total);
        let mut room = room.saturating_sub(encoded_length(&mark));
        let fits = |c: &char| {
            let length = encoded_char(*c);
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        };
        text.chars().take_while(fits).chain(mark.chars()).collect()
    }

    /// Puts other bytes in the place of what was read.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.total = bytes.len() as u64;
        self.head = bytes;
    }

    fn take(&mut self, bytes: &[u8], keep: usize) {
        self.total += bytes.len() as u64;
        let room = keep.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A stream being read; `None` once it has ended.
struct Stream<R> {
    pipe: Option<R>,
    captured: Captured,
}

impl<R: Read + std::os::fd::AsFd> Stream<R> {
    fn new(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { pipe, captured: Captured::default() })
    }

    /// Reads a bounded piece, so that a talkative process cannot keep the clock from being seen.
    fn drain(&mut self, buffer: &mut [u8], keep: usize) {
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.captured.take(&buffer[..count], keep),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// The process has ended; others may still hold its pipes.
    Draining {
        until: Instant,
    },
    /// The group was asked to end.
    Ending {
        until: Instant,
    },
    /// The group was ordered to end.
    Killed {
        until: Instant,
    },
}

/// Runs it to its end.
///
/// # Errors
/// It could not be started.
pub(super) fn run(job: &Job<'_>) -> io::Result<Finished> {
    let mut command = Command::new(job.program);
    command.args(job.arguments).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(directory) = job.directory {
        command.current_dir(directory);
    }
    if let Some(environment) = job.environment {
        command.envs(environment);
    }
    let mut child = command.spawn()?;
    let mut stdout = Stream::new(child.stdout.take())?;
    let mut stderr = Stream::new(child.stderr.take())?;
    let pid = Pid::from_child(&child);
    // The agent is spared when memory is short; what it runs must not inherit that. Without the
    // right to change it there was nothing to inherit.
    let _nothing_inherited = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
    let mut buffer = vec![0; 16 << 10];
    let deadline = Instant::now() + job.limit;
    let mut phase = Phase::Running;
    let mut timed_out = false;

    // The process is looked at without being reaped until the very end: a process that was not
    // reaped keeps its number, so a signal to its group can reach nobody else.
    let gone = loop {
        let ended = has_ended(pid)?;
        stdout.drain(&mut buffer, job.keep);
        stderr.drain(&mut buffer, job.keep);
        let silent = stdout.pipe.is_none() && stderr.pipe.is_none();
        let now = Instant::now();
        let until = match phase {
            Phase::Running if ended => {
                phase = Phase::Draining { until: now + DRAIN };
                continue;
            }
            Phase::Running if now >= deadline => {
                timed_out = true;
                signal_group(pid, Signal::TERM);
                phase = Phase::Ending { until: now + TERM_GRACE };
                continue;
            }
            Phase::Running => deadline,
            Phase::Draining { until } if silent || now >= until => break true,
            // All that is left of the group has had its chance.
            Phase::Ending { until } if (ended && silent) || now >= until => {
                signal_group(pid, Signal::KILL);
                phase = Phase::Killed { until: now + KILL_GRACE };
                continue;
            }
            Phase::Killed { .. } if ended => break true,
            Phase::Killed { until } if now >= until => break false,
            Phase::Draining { until } | Phase::Ending { until } | Phase::Killed { until } => until,
        };
        // An ended process is readable for ever; then only its pipes and the clock matter.
        let watched = if ended { None } else { pidfd.as_ref() };
        let mut wait = until.saturating_duration_since(now);
        if watched.is_none() && !ended {
            wait = wait.min(LOOK);
        }
        await_any(&stdout, &stderr, watched, wait)?;
    };

    let status = if gone { Some(child.wait()?) } else { None };
    Ok(Finished {
        exit_code: status.and_then(|s| s.code()).filter(|_| !timed_out),
        signal: status.and_then(|s| std::os::unix::process::ExitStatusExt::signal(&s)),
        timed_out,
        limit: job.limit,
        stdout: stdout.captured,
        stderr: stderr.captured,
        remains: (!gone).then_some(child),
    })
}

fn has_ended(pid: Pid) -> io::Result<bool> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), look))?;
    Ok(status.is_some_and(|s| s.exited() || s.killed() || s.dumped()))
}

fn signal_group(pid: Pid, signal: Signal) {
    // A group without members is what was wanted.
    let _nobody_left = kill_process_group(pid, signal);
}

fn await_any<A: std::os::fd::AsFd, B: std::os::fd::AsFd>(
    stdout: &Stream<A>,
    stderr: &Stream<B>,
    process: Option<&OwnedFd>,
    wait: Duration,
) -> io::Result<()> {
    let fds = [stdout.pipe.as_ref().map(|p| p.as_fd()), stderr.pipe.as_ref().map(|p| p.as_fd())];
    let fds = fds.into_iter().chain([process.map(|p| p.as_fd())]).flatten();
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str, limit: Duration) -> Finished {
        let job = Job {
            program: "/bin/sh",
            arguments: &["-c", line],
            directory: None,
            environment: None,
            limit,
            keep: 1000,
        };
        run(&job).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_and_status_come_back() {
        let done = sh("echo out; echo err >&2; exit 3", LONG);
        assert_eq!((done.exit_code, done.signal, done.timed_out), (Some(3), None, false));
        assert_eq!((done.stdout.text().as_str(), done.stderr.text().as_str()), ("out\n", "err\n"));
        assert_eq!(sh("kill -9 $$", LONG).signal, Some(9));
    }

    #[test]
    fn more_output_than_is_kept_is_drained_and_marked() {
        let done = sh("head -c 300000 /dev/zero | tr '\\0' x; echo end >&2", LONG);
        assert!(done.succeeded());
        assert_eq!((done.stdout.head.len(), done.stdout.total), (1000, 300_000));
        let text = done.stdout.clipped(500);
        assert!(text.ends_with("[output truncated: 300000 bytes in all]"), "{text}");
        assert!(encoded_length(&text) <= 500);
        assert_eq!(done.stderr.clipped(500), "end\n");
    }

    #[test]
    fn a_background_child_that_keeps_the_pipe_does_not_hold_the_answer() {
        let begun = Instant::now();
        let done = sh("sleep 30 & echo $!", LONG);
        assert!(done.succeeded() && begun.elapsed() < Duration::from_secs(10));
        let pid = Pid::from_raw(done.stdout.text().trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).expect("it is left alone");
    }

    #[test]
    fn the_deadline_ends_the_whole_group_even_if_it_will_not_listen() {
        let done =
            sh("trap '' TERM; (trap '' TERM; sleep 60) & echo $!; wait; sleep 60", Duration::from_secs(1));
        assert!(done.timed_out && done.exit_code.is_none());
        let pid: i32 = done.stdout.text().trim().parse().unwrap();
        let begun = Instant::now();
        // Killed, it still waits to be reaped by init: gone, or a zombie.
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z")) {
            assert!(begun.elapsed() < Duration::from_secs(10), "process {pid} lives on");
            crate::wake::pause(Duration::from_millis(20));
        }
    }
}
