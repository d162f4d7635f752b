//! One link's task: connects, lets a session work, and waits before it connects again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chrono::Utc;
use tokio::{net::UnixStream, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    LinkError,
    backoff::{self, Backoff},
    connect::{ConnectError, connect},
    rate::{Throttle, TokenBucket},
    seal::Sealing,
    session::{End, Job, Limits, Rates, Session},
    shared::{Outlets, Shared},
    socket::{FileId, SocketOwners},
};
use crate::vm::LinkEnd;

/// How often a link may tell the log that it opened or failed.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How often a link may complain about what its guest sends.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Hints to the loop: at once, and per second on average. A guest that comes and goes, or greets
/// differently each time, must not keep the loop busy; what a hint does not tell, the next scan finds.
const HINT_BURST: f64 = 5.0;
const HINT_RATE: f64 = 0.5;

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
    pub(super) sealing: Option<Arc<Sealing>>,
    pub(super) stop: CancellationToken,
}

impl Link {
    /// Works until it is stopped.
    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Box<Job>>) {
        let vm = self.shared.vm;
        let mut backoff = Backoff::new(self.reconnect_base, self.reconnect_max);
        let mut said = Throttle::new(LOG_INTERVAL);
        let mut complaints = Throttle::new(COMPLAINT_INTERVAL);
        let mut hint_rate = TokenBucket::new(HINT_RATE, HINT_BURST, Instant::now());
        let mut tried = None;
        while !self.stop.is_cancelled() {
            let attempt = self.while_refusing(&mut jobs, self.connect(&mut tried)).await;
            let (why, closed, was_heard) = match attempt {
                None => break,
                Some(Err(error)) => (error.to_string(), false, false),
                Some(Ok(stream)) => {
                    self.hint(&mut hint_rate);
                    let rates = Rates { complaints: &mut complaints, hints: &mut hint_rate };
                    let mut session = Session::new(
                        &self.shared,
                        &self.outlets,
                        rates,
                        self.limits,
                        self.sealing.as_deref(),
                        stream,
                    );
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
                self.hint(&mut hint_rate);
            }
            let wait = backoff.failed(was_heard, backoff::random());
            match self.while_refusing(&mut jobs, self.rest(wait, tried)).await {
                None => break,
                Some(Rested::Enough) => {}
                Some(Rested::AnotherFile) => backoff.forget(),
            }
        }
        // Those that were not sent yet are told the same.
        self.shared.end_as(LinkEnd::ControllerStopping);
        self.shared.failed(End::Stopped.to_string(), Utc::now());
        self.outlets.hint(vm);
    }

    /// Connects, when not too many links do.
    async fn connect(&self, tried: &mut Option<FileId>) -> Result<UnixStream, ConnectError> {
        // Never closed.
        let _place = self.outlets.connecting.acquire().await;
        connect(&self.path, &self.owners, tried).await
    }

    /// The loop should look, unless it was told so too often of late.
    fn hint(&self, rate: &mut TokenBucket) {
        if rate.allow(1.0, Instant::now()) {
            self.outlets.hint(self.shared.vm);
        }
    }

    /// Waits, less long when the file at the path is another than the one that was `tried`. That
    /// somebody asks for the link is no news by itself: the loop asks whenever it looks, and it
    /// looks because a connection ended.
    async fn rest(&self, wait: Duration, tried: Option<FileId>) -> Rested {
        let news = async {
            // However often files come and go, this is no busy loop.
            tokio::time::sleep(self.reconnect_base).await;
            loop {
                self.shared.look.notified().await;
                // Not to the moment: a scan asks for all links together.
                let spread = self.reconnect_base / 8;
                tokio::time::sleep(spread + backoff::part(spread, backoff::random())).await;
                // Never closed.
                let _place = self.outlets.connecting.acquire().await;
                if FileId::at(&self.path).await != tried {
                    break;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => Rested::Enough,
            () = news => Rested::AnotherFile,
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

/// Why a link tries again.
enum Rested {
    /// Its time is over.
    Enough,
    /// Another file stands at the path, or one where there was none.
    AnotherFile,
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
            sealing: None,
            stop: CancellationToken::new(),
        };
        // Ten thousand of them may live; a buffer that moves into one would show here.
        let (task, shared) = (size_of_val(&link.run(jobs)), size_of::<Shared>());
        assert!(task <= 4096 && shared <= 1024, "{task} and {shared} bytes");
    }
}
