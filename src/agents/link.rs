//! One link's task: connects, lets a session work, and waits before it connects again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chrono::Utc;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    LinkError, backoff,
    connect::connect,
    rate::Throttle,
    session::{End, Job, Limits, Session},
    shared::{Outlets, Shared},
    socket::SocketOwners,
};

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
    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let vm = self.shared.vm;
        let mut failures = 0;
        let mut said = Throttle::new(LOG_INTERVAL);
        let mut complaints = Throttle::new(COMPLAINT_INTERVAL);
        while !self.stop.is_cancelled() {
            let attempt = self.while_refusing(&mut jobs, connect(&self.path, &self.owners)).await;
            let (why, closed) = match attempt {
                None => break,
                Some(Err(error)) => (error.to_string(), false),
                Some(Ok(stream)) => {
                    let mut session =
                        Session::new(&self.shared, &self.outlets, &mut complaints, self.limits, stream);
                    self.outlets.hint(vm);
                    let end = session.run(&mut jobs, &self.stop).await;
                    if session.was_heard() {
                        failures = 0;
                    }
                    // Pending commands end here.
                    drop(session);
                    if matches!(end, End::Stopped) {
                        break;
                    }
                    (end.to_string(), true)
                }
            };
            if let Some(held_back) = said.pass(Instant::now()) {
                tracing::info!(%vm, path = %self.path.display(), why, held_back, "no link to the agent");
            }
            self.shared.failed(why, Utc::now());
            if closed {
                self.outlets.hint(vm);
            }
            let wait = backoff::delay(failures, self.reconnect_base, self.reconnect_max, backoff::random());
            failures = failures.saturating_add(1);
            if self.while_refusing(&mut jobs, self.rest(wait)).await.is_none() {
                break;
            }
        }
        self.shared.failed(End::Stopped.to_string(), Utc::now());
        self.outlets.hint(vm);
    }

    /// Waits, less long when somebody wants the link again: but never so short that asking often
    /// becomes a busy loop.
    async fn rest(&self, wait: Duration) {
        let least = wait.min(self.reconnect_base);
        tokio::time::sleep(least).await;
        tokio::select! {
            () = tokio::time::sleep(wait - least) => {}
            () = self.shared.retry.notified() => {}
        }
    }

    /// Waits for `work`; whoever wants a command sent meanwhile is told at once that there is
    /// nobody to send it to. `None`: stopped.
    async fn while_refusing<T>(
        &self,
        jobs: &mut mpsc::Receiver<Job>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                done = &mut work => return Some(done),
                Some(job) = jobs.recv() => job.refuse(LinkError::NotConnected),
            }
        }
    }
}
