//! The gate that every libvirt call passes: off the async threads, so many at a time, each with
//! a deadline. It knows nothing of libvirt; what it keeps is the promise about late calls.
//!
//! A call that is past its deadline, or whose caller stopped waiting, is *not over*. What it is
//! about, mostly a domain, counts as busy, and no further call is let in for it, until the call has
//! really returned; for a domain a hint then says that it is time to look.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use crate::{
    hypervisor::{HypervisorError, HypervisorEvent},
    vm::VmId,
};

/// Where a call queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// The loop's work, `max_calls` at a time.
    Work,
    /// What people ask, [`ASKED_AT_ONCE`] at a time: however often they ask and whatever hangs,
    /// the loop keeps its places.
    Ask,
    /// One place of its own: the scan must get through even while every other place is held by
    /// a call that hangs.
    Scan,
}

/// What a call is about. While a late one is under way, no other about the same is let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// This domain, or a volume of it.
    Domain(VmId),
    /// This domain's plug, which can be pulled while the domain is busy.
    Plug(VmId),
    /// The list of this domain's snapshots, which can be read while the domain is busy.
    Snapshots(VmId),
    /// This domain's QEMU agent, which can be talked to while the domain is busy.
    Agent(VmId),
    /// How far the copy of a volume is that is made for this domain: a question that may hang while the
    /// domain is not busy.
    Copy(VmId),
    /// What type new domains get.
    DomainType,
    /// The host.
    Host,
    /// The network of this name.
    Network(String),
    /// The storage pool of this name, as a whole.
    Pool(String),
    /// Whoever has this name.
    Name(String),
}

/// How many questions of people are put to libvirt at once.
const ASKED_AT_ONCE: usize = 2;

#[derive(Debug)]
pub(super) struct Gate {
    work: Arc<Semaphore>,
    ask: Arc<Semaphore>,
    scan: Arc<Semaphore>,
    limit: Duration,
    late: Arc<Late>,
    calls: AtomicU64,
}

/// Calls that nobody waits for any more, by what they are about.
#[derive(Debug)]
struct Late {
    by_subject: Mutex<HashMap<Subject, usize>>,
    events: broadcast::Sender<HypervisorEvent>,
}

impl Late {
    fn has(&self, subject: &Subject) -> bool {
        self.by_subject.lock().unwrap_or_else(PoisonError::into_inner).contains_key(subject)
    }
}

impl Gate {
    /// A gate for `max_calls` calls at a time (and a few more for people and the scan), each waited
    /// for up to `limit`. Hints about late calls that came back go to `events`.
    pub(super) fn new(max_calls: u32, limit: Duration, events: broadcast::Sender<HypervisorEvent>) -> Self {
        Self {
            work: Arc::new(Semaphore::new(usize::try_from(max_calls).unwrap_or(1).max(1))),
            ask: Arc::new(Semaphore::new(ASKED_AT_ONCE)),
            scan: Arc::new(Semaphore::new(1)),
            limit,
            late: Arc::new(Late { by_subject: Mutex::new(HashMap::new()), events }),
            calls: AtomicU64::new(0),
        }
    }

    /// Whether a late call for this domain is still under way.
    pub(super) fn is_busy(&self, id: VmId) -> bool {
        self.late.has(&Subject::Domain(id)) || self.late.has(&Subject::Plug(id))
    }

    /// How often the gate was passed.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Runs `call` on a thread that may block.
    pub(super) async fn run<T, F>(
        &self,
        operation: String,
        subject: Option<Subject>,
        lane: Lane,
        call: F,
    ) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: FnOnce(&str) -> Result<T, HypervisorError> + Send + 'static,
    {
        let is_busy = || subject.as_ref().is_some_and(|subject| self.late.has(subject));
        if is_busy() {
            return Err(HypervisorError::Deadline { operation, limit: self.limit });
        }
        let permit = self.permit(&operation, lane).await?;
        // A call that was in time when the wait for a place began may have become late since.
        if is_busy() {
            return Err(HypervisorError::Deadline { operation, limit: self.limit });
        }
        self.calls.fetch_add(1, Ordering::Relaxed);

        let ticket = Arc::new(Ticket {
            state: Mutex::new(TicketState::Waited),
            operation: operation.clone(),
            subject,
            started: Instant::now(),
            late: Arc::clone(&self.late),
        });
        let caller = Caller(Arc::clone(&ticket));
        let running = Running { ticket, _permit: permit };
        let task = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let outcome = call(&running.ticket.operation);
            // However late it came back: what takes long is what somebody looks for.
            metrics::histogram!("infinibay_libvirt_call_seconds").record(begun.elapsed().as_secs_f64());
            drop(running);
            outcome
        });
        let joined = tokio::time::timeout(self.limit, task).await;
        // From here on the call is late, if it has not ended.
        drop(caller);
        match joined {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(join)) => Err(HypervisorError::Invalid {
                reason: format!("the call broke off: {}", broken_off(join)),
                operation,
            }),
            Err(_) => Err(HypervisorError::Deadline { operation, limit: self.limit }),
        }
    }

    async fn permit(&self, operation: &str, lane: Lane) -> Result<OwnedSemaphorePermit, HypervisorError> {
        let semaphore = match lane {
            Lane::Work => &self.work,
            Lane::Ask => &self.ask,
            Lane::Scan => &self.scan,
        };
        match tokio::time::timeout(self.limit, Arc::clone(semaphore).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The call was not made, so nothing is under way: not a `Deadline`.
            Ok(Err(_)) | Err(_) => Err(HypervisorError::Unreachable {
                operation: format!("{operation} (all calls allowed at once are hanging)"),
                source: None,
            }),
        }
    }
}

fn broken_off(join: tokio::task::JoinError) -> String {
    match join.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without words")
            .to_owned(),
        Err(join) => join.to_string(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TicketState {
    /// Under way, and somebody waits for it.
    Waited,
    /// Under way, and nobody waits for it.
    Late,
    /// Over.
    Done,
}

#[derive(Debug)]
struct Ticket {
    state: Mutex<TicketState>,
    operation: String,
    subject: Option<Subject>,
    started: Instant,
    late: Arc<Late>,
}

/// The waiting side. Dropped when the answer is there, when the deadline is over, and when the
/// waiting future is dropped: all the same to the ticket.
struct Caller(Arc<Ticket>);

impl Drop for Caller {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != TicketState::Waited {
            return;
        }
        *state = TicketState::Late;
        if let Some(subject) = &self.0.subject {
            let mut late = self.0.late.by_subject.lock().unwrap_or_else(PoisonError::into_inner);
            *late.entry(subject.clone()).or_default() += 1;
        }
        tracing::warn!(operation = self.0.operation, "libvirt does not answer; the call is still under way");
    }
}

/// The working side. Dropped when the call has returned or panicked.
struct Running {
    ticket: Arc<Ticket>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        let ticket = &self.ticket;
        let mut state = ticket.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_late = std::mem::replace(&mut *state, TicketState::Done) == TicketState::Late;
        drop(state);
        if !was_late {
            return;
        }
        if let Some(subject) = &ticket.subject {
            let mut late = ticket.late.by_subject.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = late.get_mut(subject) {
                *count -= 1;
                if *count == 0 {
                    late.remove(subject);
                }
            }
            drop(late);
            if let Subject::Domain(id) | Subject::Plug(id) = subject {
                // No receiver is no error.
                let _ = ticket.late.events.send(HypervisorEvent::Domain(*id));
            }
        }
        tracing::warn!(
            operation = ticket.operation,
            after_ms = ticket.started.elapsed().as_millis(),
            "a late libvirt call has returned"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::poll;

    use super::*;

    fn gate(max: u32, limit_ms: u64) -> (Arc<Gate>, broadcast::Receiver<HypervisorEvent>) {
        let (events, received) = broadcast::channel(16);
        (Arc::new(Gate::new(max, Duration::from_millis(limit_ms), events)), received)
    }

    /// A call that ends when it is told to.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce(&str) -> Result<(), HypervisorError> + Send + 'static) {
        let (release, wait) = mpsc::channel::<()>();
        let call = move |_: &str| {
            // Ends also when the test is gone.
            let _ = wait.recv_timeout(Duration::from_secs(20));
            Ok(())
        };
        (release, call)
    }

    fn about(id: VmId) -> Option<Subject> {
        Some(Subject::Domain(id))
    }

    #[tokio::test]
    async fn a_late_call_keeps_its_domain_busy_until_it_returns() {
        let (gate, mut events) = gate(4, 50);
        let id = VmId::generate();
        let (release, call) = hanging();
        let error = gate.run("hang".to_owned(), about(id), Lane::Work, call).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Deadline { .. }), "{error}");
        assert!(gate.is_busy(id));

        let refused = gate.run("again".to_owned(), about(id), Lane::Work, |_| Ok(())).await.unwrap_err();
        assert!(
            matches!(refused, HypervisorError::Deadline { .. }),
            "a busy domain is left alone: {refused}"
        );
        let other = VmId::generate();
        gate.run("other".to_owned(), about(other), Lane::Work, |_| Ok(())).await.unwrap();

        release.send(()).unwrap();
        let hint = tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
        assert!(matches!(hint, HypervisorEvent::Domain(seen) if seen == id));
        assert!(!gate.is_busy(id));
        gate.run("after".to_owned(), about(id), Lane::Work, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_stops_waiting_leaves_the_domain_busy() {
        let (gate, mut events) = gate(4, 60_000);
        let id = VmId::generate();
        let (release, call) = hanging();
        let waiting = gate.run("hang".to_owned(), about(id), Lane::Work, call);
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        assert!(gate.is_busy(id));
        release.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
        assert!(!gate.is_busy(id));
    }

    #[tokio::test]
    async fn hanging_calls_hold_their_places_but_not_the_scans() {
        let (gate, _events) = gate(1, 1_000);
        let (release, call) = hanging();
        gate.run("hang".to_owned(), about(VmId::generate()), Lane::Work, call).await.unwrap_err();
        let error = gate.run("more".to_owned(), None, Lane::Work, |_| Ok(())).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Unreachable { .. }), "{error}");
        gate.run("scan".to_owned(), None, Lane::Scan, |_| Ok(())).await.unwrap();
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_frees_the_place() {
        let (gate, _events) = gate(1, 5_000);
        let id = VmId::generate();
        let error = gate
            .run("burst".to_owned(), about(id), Lane::Work, |_| -> Result<(), _> { panic!("cannot free") })
            .await
            .unwrap_err();
        assert!(error.to_string().contains("cannot free"), "{error}");
        assert!(!gate.is_busy(id));
        gate.run("next".to_owned(), about(id), Lane::Work, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn who_waited_for_a_place_finds_the_domain_busy() {
        let (gate, _events) = gate(2, 60_000);
        let id = VmId::generate();
        let (release, call) = hanging();
        let mut late = Box::pin(gate.run("hang".to_owned(), about(id), Lane::Work, call));
        assert!(poll!(&mut late).is_pending());
        let (release_other, call) = hanging();
        let mut other = Box::pin(gate.run("other".to_owned(), about(VmId::generate()), Lane::Work, call));
        assert!(poll!(&mut other).is_pending());
        let mut waiting = Box::pin(gate.run("again".to_owned(), about(id), Lane::Work, |_| Ok(())));
        assert!(poll!(&mut waiting).is_pending(), "there is no place for it");

        drop(late);
        release_other.send(()).unwrap();
        other.await.unwrap();
        let refused = waiting.await.unwrap_err();
        assert!(matches!(refused, HypervisorError::Deadline { .. }), "{refused}");
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_question_after_a_copy_that_hangs_takes_one_place_and_no_other_call() {
        let (gate, _events) = gate(2, 200);
        let id = VmId::generate();
        let mut releases = Vec::new();
        for _ in 0..4 {
            let (release, call) = hanging();
            releases.push(release);
            let asked = gate.run("how far".to_owned(), Some(Subject::Copy(id)), Lane::Work, call).await;
            assert!(matches!(asked, Err(HypervisorError::Deadline { .. })), "{asked:?}");
        }
        assert!(!gate.is_busy(id));
        gate.run("work".to_owned(), about(id), Lane::Work, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn what_people_ask_takes_no_place_of_the_loops() {
        let (gate, _events) = gate(1, 200);
        let mut releases = Vec::new();
        for subject in [Subject::Host, Subject::Network("a".to_owned())] {
            let (release, call) = hanging();
            releases.push(release);
            gate.run("hang".to_owned(), Some(subject), Lane::Ask, call).await.unwrap_err();
        }
        let again = gate.run("again".to_owned(), Some(Subject::Host), Lane::Ask, |_| Ok(())).await;
        assert!(matches!(again, Err(HypervisorError::Deadline { .. })), "late: not asked again: {again:?}");
        let more = Some(Subject::Name("b".to_owned()));
        let more = gate.run("more".to_owned(), more, Lane::Ask, |_| Ok(())).await;
        assert!(matches!(more, Err(HypervisorError::Unreachable { .. })), "no place left: {more:?}");
        gate.run("work".to_owned(), about(VmId::generate()), Lane::Work, |_| Ok(())).await.unwrap();
        for release in releases {
            release.send(()).unwrap();
        }
    }
}
