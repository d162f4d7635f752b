//! One link's task: connects, lets a session work, and waits before it connects again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chrono::Utc;
use tokio::{net::UnixStream, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    LinkError,
    backoff::{self, Backoff},
    connect::{ConnectError, connect},
    rate::Throttle,
    session::{End, Job, Limits, Session},
    shared::{Outlets, Shared},
    socket::SocketOwners,
};
use crate::vm::LinkEnd;

/// How often a link may tell the log that it opened or failed.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How often a link may complain about what its guest sends.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Everything a link needs besides its jobs.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) owners: Arc<SocketOwners>,
    pub(super) outlets: Outlets,
    pub(super) limits: Limits,
    pub(super) reconnect_base: Duration,
    pub(super) reconnect_max: Duration,
    pub(super) stop: CancellationToken,
}

impl Link {
    /// Works until it is stopped.
    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Box<Job>>) {
        let vm = self.shared.vm;
        let mut backoff = Backoff::new(self.reconnect_base, self.reconnect_max);
        let mut said = Throttle::new(LOG_INTERVAL);
        let mut complaints = Throttle::new(COMPLAINT_INTERVAL);
        while !self.stop.is_cancelled() {
            let attempt = self.while_refusing(&mut jobs, self.connect()).await;
            let (why, closed, was_heard) = match attempt {
                None => break,
                Some(Err(error)) => (error.to_string(), false, false),
                Some(Ok(stream)) => {
                    let mut session =
                        Session::new(&self.shared, &self.outlets, &mut complaints, self.limits, stream);
                    self.outlets.hint(vm);
                    let end = session.run(&mut jobs, &self.stop).await;
                    let was_heard = session.was_heard();
                    // Pending commands end here.
                    drop(session);
                    if matches!(end, End::Stopped) {
                        break;
                    }
                    (end.to_string(), true, was_heard)
                }
            };
            if let Some(held_back) = said.pass(Instant::now()) {
                tracing::info!(%vm, path = %self.path.display(), why, held_back, "no link to the agent");
            }
            self.shared.failed(why, Utc::now());
            if closed {
                self.outlets.hint(vm);
            }
            let wait = backoff.failed(was_heard, backoff::random());
            if self.while_refusing(&mut jobs, self.rest(wait)).await.is_none() {
                break;
            }
        }
        // Those that were not sent yet are told the same.
        self.shared.end_as(LinkEnd::ControllerStopping);
        self.shared.failed(End::Stopped.to_string(), Utc::now());
        self.outlets.hint(vm);
    }

    /// Connects, when not too many links do.
    async fn connect(&self) -> Result<UnixStream, ConnectError> {
        // Never closed.
        let _place = self.outlets.connecting.acquire().await;
        connect(&self.path, &self.owners).await
    }

    /// Waits, less long when somebody wants the link again: but never so short that asking often
    /// becomes a busy loop, and not to the moment: a scan asks for all links together.
    async fn rest(&self, wait: Duration) {
        let least = wait.min(self.reconnect_base);
        tokio::time::sleep(least).await;
        tokio::select! {
            () = tokio::time::sleep(wait - least) => {}
            () = async {
                self.shared.retry.notified().await;
                tokio::time::sleep(backoff::part(self.reconnect_base / 4, backoff::random())).await;
            } => {}
        }
    }

    /// Waits for `work`; whoever had a command waiting when the connection ended is told why. `None`:
    /// stopped.
    async fn while_refusing<T>(
        &self,
        jobs: &mut mpsc::Receiver<Box<Job>>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                done = &mut work => return Some(done),
                Some(job) = jobs.recv() => job.refuse(LinkError::Ended(self.shared.end())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::vm::VmId;

    #[tokio::test]
    async fn a_links_task_is_small() {
        let (frames, _) = mpsc::channel(1);
        let (hints, _) = mpsc::channel(1);
        let (late, _) = mpsc::channel(1);
        let (_jobs, jobs) = mpsc::channel(1);
        let link = Link {
            path: PathBuf::new(),
            shared: Arc::new(Shared::new(VmId::generate(), None)),
            owners: Arc::new(SocketOwners::resolve("")),
            outlets: Outlets { frames, hints, late, connecting: Arc::new(Semaphore::new(1)) },
            limits: Limits { frame_bytes: 1 << 20, frames_per_second: 50 },
            reconnect_base: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
            stop: CancellationToken::new(),
        };
        // Ten thousand of them may live; a buffer that moves into one would show here.
        let (task, shared) = (size_of_val(&link.run(jobs)), size_of::<Shared>());
        assert!(task <= 4096 && shared <= 1024, "{task} and {shared} bytes");
    }
}
