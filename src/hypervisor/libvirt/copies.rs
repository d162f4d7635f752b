//! Copies of volumes: each a call of minutes on a thread of its own, beside the gate, whose places and
//! deadlines are for calls that end soon. What came of it is kept until it is asked for.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use virt::{storage_pool::StoragePool, storage_vol::StorageVol};

use super::{
    LibvirtHypervisor,
    gate::{Lane, Subject},
    session::{Call, absent_as_none},
    supervisor::Link,
    volumes::{active_pool, exists_already, find, path_of, plain_xml, still_made},
};
use crate::{
    domain_xml::{Malformed, document::Document},
    hypervisor::{Copied, Copies, Copying, HypervisorError, HypervisorEvent, VolumeCopy},
    vm::VmId,
};

/// Copies at once: they read and write as fast as the disks can. Others wait for their turn.
const COPIES_AT_ONCE: usize = 2;
/// A copy of which nothing more was written for so long does not move.
const STALLS_AFTER: Duration = Duration::from_secs(300);

/// The copies that this process began, by VM.
#[derive(Debug)]
pub(super) struct CopyTable {
    jobs: Mutex<HashMap<VmId, Job>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    copy: VolumeCopy,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It waits for its turn, which ends with this.
    Waiting(DropGuard),
    /// It is libvirt's.
    Made(Making),
    /// What came of it.
    Ended(Result<PathBuf, HypervisorError>),
}

#[derive(Debug)]
struct Making {
    /// Bytes that the copied volume takes on its disk, once that is known.
    expected: Option<u64>,
    /// Bytes that were there when it last grew, and when that was.
    grown: (u64, Instant),
    /// Its standstill was told.
    stalled: bool,
}

impl Making {
    fn begun(now: Instant) -> Self {
        Self { expected: None, grown: (0, now), stalled: false }
    }

    /// How it stands, when so many bytes were seen to be there.
    fn look(&mut self, there: Option<u64>, now: Instant) -> Copying {
        if there.is_some_and(|bytes| bytes > self.grown.0) {
            (self.grown, self.stalled) = ((there.unwrap_or_default(), now), false);
        }
        if now.duration_since(self.grown.1) >= STALLS_AFTER {
            return Copying::Stalled;
        }
        let expected = self.expected.filter(|bytes| *bytes > 0);
        Copying::UnderWay(there.zip(expected).map(|(there, expected)| percent(there, expected)))
    }
}

/// What whoever asks for a copy finds.
#[derive(Debug)]
enum Entered {
    /// One, that stands like this.
    Stands(Result<Copied, HypervisorError>),
    /// None: it is noted, and to be begun unless it is withdrawn.
    Begins(CancellationToken),
}

impl Default for CopyTable {
    fn default() -> Self {
        Self { jobs: Mutex::default(), places: Arc::new(Semaphore::new(COPIES_AT_ONCE)) }
    }
}

impl CopyTable {
    fn jobs(&self) -> MutexGuard<'_, HashMap<VmId, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: VmId, copy: &VolumeCopy) -> Entered {
        let mut jobs = self.jobs();
        match jobs.remove(&id) {
            Some(Job { copy: known, stage: Stage::Ended(ended) }) if known == *copy => {
                Entered::Stands(ended.map(Copied::Whole))
            }
            None | Some(Job { stage: Stage::Ended(_), .. }) => {
                let turn = CancellationToken::new();
                let stage = Stage::Waiting(turn.clone().drop_guard());
                jobs.insert(id, Job { copy: copy.clone(), stage });
                Entered::Begins(turn)
            }
            Some(job) => {
                // Also another one: it has to end before the next begins.
                jobs.insert(id, job);
                Entered::Stands(Ok(Copied::UnderWay))
            }
        }
    }

    /// Hands the copy over to libvirt; not if it was withdrawn.
    fn begin(&self, id: VmId, turn: &CancellationToken) -> bool {
        let mut jobs = self.jobs();
        if turn.is_cancelled() {
            return false;
        }
        let Some(job) = jobs.get_mut(&id) else { return false };
        let waiting = std::mem::replace(&mut job.stage, Stage::Made(Making::begun(Instant::now())));
        if let Stage::Waiting(guard) = waiting {
            guard.disarm();
        }
        true
    }

    fn withdraw(&self, id: VmId) {
        self.jobs().retain(|of, job| *of != id || !matches!(job.stage, Stage::Waiting(_)));
    }

    /// What has ended is nobody's affair any more.
    pub(super) fn forget(&self, id: VmId) {
        self.jobs().retain(|of, job| *of != id || !matches!(job.stage, Stage::Ended(_)));
    }

    fn expect(&self, id: VmId, bytes: u64) {
        if let Some(Job { stage: Stage::Made(making), .. }) = self.jobs().get_mut(&id) {
            making.expected = Some(bytes);
        }
    }

    fn look(&self, id: VmId, there: Option<u64>, now: Instant) -> Copying {
        match self.jobs().get_mut(&id) {
            None | Some(Job { stage: Stage::Ended(_), .. }) => Copying::Nothing,
            Some(Job { stage: Stage::Waiting(_), .. }) => Copying::UnderWay(None),
            Some(Job { stage: Stage::Made(making), copy }) => {
                let standing = making.look(there, now);
                if standing == Copying::Stalled && !std::mem::replace(&mut making.stalled, true) {
                    tracing::warn!(
                        vm = %id,
                        pool = copy.pool,
                        from_pool = copy.from_pool,
                        "a copy does not move; it keeps its place, its VM and the one that is copied until libvirt \
                         ends it"
                    );
                }
                standing
            }
        }
    }

    fn end(&self, id: VmId, outcome: Result<PathBuf, HypervisorError>) {
        if let Some(job) = self.jobs().get_mut(&id) {
            job.stage = Stage::Ended(outcome);
        }
    }
}

#[async_trait]
impl Copies for LibvirtHypervisor {
    async fn copy_volume(&self, id: VmId, copy: VolumeCopy) -> Result<Copied, HypervisorError> {
        let turn = match self.copies.enter(id, &copy) {
            Entered::Stands(standing) => return standing,
            Entered::Begins(turn) => turn,
        };
        let (table, link, limit) =
            (Arc::clone(&self.copies), Arc::clone(&self.link), self.config.call_timeout);
        let events = self.events.clone();
        tokio::spawn(async move {
            // The semaphore is never closed; if it were, there would be no bound.
            let place = tokio::select! {
                () = turn.cancelled() => return,
                place = Arc::clone(&table.places).acquire_owned() => place,
            };
            if !table.begin(id, &turn) {
                return;
            }
            let at_work = Arc::clone(&table);
            let operation = format!("copy volume {:?} of pool {:?}", copy.from_name, copy.from_pool);
            let words = operation.clone();
            let work = tokio::task::spawn_blocking(move || {
                run(&link, &operation, limit, &copy, |bytes| at_work.expect(id, bytes))
            });
            let outcome = work.await.unwrap_or_else(|join| {
                Err(HypervisorError::Invalid {
                    operation: words,
                    reason: format!("the call broke off: {join}"),
                })
            });
            drop(place);
            table.end(id, outcome);
            // It is time to look; no receiver is no error.
            let _ = events.send(HypervisorEvent::Domain(id));
        });
        Ok(Copied::UnderWay)
    }

    async fn withdraw_copy(&self, id: VmId) {
        self.copies.withdraw(id);
    }

    async fn copying(&self, id: VmId) -> Copying {
        let copy = match self.copies.jobs().get(&id) {
            Some(Job { copy, stage: Stage::Made(making) }) if making.expected.is_some() => Some(copy.clone()),
            _ => None,
        };
        let there = match copy {
            Some(copy) => self.there(id, copy).await,
            None => None,
        };
        self.copies.look(id, there, Instant::now())
    }
}

impl LibvirtHypervisor {
    /// Bytes of a copy that are there, where that can be told.
    async fn there(&self, id: VmId, copy: VolumeCopy) -> Option<u64> {
        let operation = format!("look how far volume {:?} is", copy.name);
        // About what no other call is about: one that hangs here lets only the next question wait. It is
        // asked at every look, and would else take all places one after the other.
        let asked = self.call(operation, Some(Subject::Copy(id)), Lane::Work, move |call| {
            let pool = call.ask(|conn| conn.lookup_storage_pool_by_name(&copy.pool))?;
            allocation(call, &pool, &copy.name)
        });
        asked.await.ok().flatten()
    }
}

fn percent(there: u64, expected: u64) -> u8 {
    let percent = u128::from(there) * 100 / u128::from(expected.max(1));
    // All of it is there only when libvirt says so.
    u8::try_from(percent.min(99)).unwrap_or(99)
}

fn allocation(call: &Call<'_>, pool: &StoragePool, name: &str) -> Result<Option<u64>, HypervisorError> {
    let Some(volume) = find(call, pool, name)? else { return Ok(None) };
    Ok(Some(call.ask(|_| volume.info())?.allocation))
}

fn run(
    link: &watch::Sender<Link>,
    operation: &str,
    limit: Duration,
    copy: &VolumeCopy,
    expected: impl FnOnce(u64),
) -> Result<PathBuf, HypervisorError> {
    // Taken here, not outside: who drops a session last may block.
    let session = {
        let link = link.borrow();
        link.session.clone().ok_or_else(|| HypervisorError::Unreachable {
            operation: operation.to_owned(),
            source: link.error.clone(),
        })?
    };
    let call = Call::new(&session, operation);
    let still_made = |error| still_made(&call, error, limit);
    let pool = active_pool(&call, &copy.pool)?;
    let from_pool = active_pool(&call, &copy.from_pool)?;
    let from = call.ask(|_| from_pool.lookup_storage_vol_by_name(&copy.from_name))?;
    let xml = plain_xml(&copy.name, copy.capacity_bytes).map_err(|reason| call.invalid(reason))?;
    let description = call.ask(|_| from.xml_desc(0))?;
    let beneath = backing_bytes(&description).map_err(|error| call.invalid(error))?;
    expected(call.ask(|_| from.info())?.allocation.saturating_add(beneath));
    remove(&call, &pool, &copy.name).map_err(still_made)?;
    let create = || call.ask(|_| StorageVol::create_xml_from(&pool, &xml, &from, 0));
    let made = match create() {
        // A file that the pool has not heard of.
        Err(error) if exists_already(&error) => {
            call.ask(|_| pool.refresh(0).map(drop)).map_err(still_made)?;
            remove(&call, &pool, &copy.name).map_err(still_made)?;
            create()?
        }
        made => made?,
    };
    path_of(&call, &made)
}

/// What the volume's backing file takes on its disk, as far as it can be seen from here: the copy
/// holds that too.
fn backing_bytes(description: &str) -> Result<u64, Malformed> {
    let document = Document::parse(description)?;
    let store = document.children(document.root(), "backingStore").next();
    let path = store.and_then(|store| document.children(store, "path").next());
    let path = path.map(|path| document.text_of(path)).transpose()?;
    let seen = path.and_then(|path| std::fs::metadata(path).ok());
    Ok(seen.map_or(0, |file| file.blocks().saturating_mul(512)))
}

/// Removes what an earlier copy left behind.
fn remove(call: &Call<'_>, pool: &StoragePool, name: &str) -> Result<(), HypervisorError> {
    let Some(standing) = find(call, pool, name)? else { return Ok(()) };
    tracing::info!(volume = name, "what is left of a copy that was not seen to end is removed");
    absent_as_none(call.ask(|_| standing.delete(0).map(drop))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(name: &str) -> VolumeCopy {
        VolumeCopy {
            from_pool: "p".to_owned(),
            from_name: "a".to_owned(),
            pool: "p".to_owned(),
            name: name.to_owned(),
            capacity_bytes: 1,
        }
    }

    fn begins(table: &CopyTable, id: VmId, name: &str) -> CancellationToken {
        match table.enter(id, &copy(name)) {
            Entered::Begins(turn) => turn,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_copy_is_begun_once_and_its_end_told_once() {
        let (table, id) = (CopyTable::default(), VmId::generate());
        let turn = begins(&table, id, "b");
        for begun in [false, true] {
            for name in ["b", "c"] {
                let found = table.enter(id, &copy(name));
                assert!(matches!(found, Entered::Stands(Ok(Copied::UnderWay))), "{name}");
            }
            assert!(begun || table.begin(id, &turn));
        }
        table.end(id, Ok("/p/b".into()));
        assert!(matches!(table.enter(id, &copy("b")), Entered::Stands(Ok(Copied::Whole(_)))));
        assert!(table.begin(id, &begins(&table, id, "b")), "asked again, it begins anew");
        table.end(id, Err(HypervisorError::NotFound { operation: String::new() }));
        assert!(matches!(table.enter(id, &copy("b")), Entered::Stands(Err(_))));
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_nobody_elses() {
        let (table, id) = (CopyTable::default(), VmId::generate());
        assert!(table.begin(id, &begins(&table, id, "b")));
        table.end(id, Ok("/p/b".into()));
        begins(&table, id, "c");
    }

    #[test]
    fn only_a_copy_that_waits_can_be_withdrawn() {
        let (table, id, now) = (CopyTable::default(), VmId::generate(), Instant::now());
        let waiting = begins(&table, id, "b");
        assert_eq!(table.look(id, None, now), Copying::UnderWay(None));
        table.forget(id);
        assert!(!waiting.is_cancelled(), "it has not ended");
        table.withdraw(id);
        assert!(waiting.is_cancelled());
        assert_eq!(table.look(id, None, now), Copying::Nothing);
        // Its turn came at that very moment, and another one was begun.
        let turn = begins(&table, id, "c");
        assert!(!table.begin(id, &waiting), "what was withdrawn is made");
        assert!(table.begin(id, &turn) && !turn.is_cancelled());
        table.withdraw(id);
        assert_eq!(table.look(id, None, now), Copying::UnderWay(None), "libvirt makes it");
    }

    #[test]
    fn a_copy_that_does_not_grow_for_minutes_is_told_until_it_grows() {
        let begun = Instant::now();
        let mut making = Making { expected: Some(100), ..Making::begun(begun) };
        let mut at = |seconds: u64, there| making.look(there, begun + Duration::from_secs(seconds));
        assert_eq!(at(299, Some(0)), Copying::UnderWay(Some(0)));
        assert_eq!(at(300, None), Copying::Stalled, "also where nothing can be seen");
        assert_eq!(at(301, Some(40)), Copying::UnderWay(Some(40)));
        assert_eq!(at(600, Some(40)), Copying::UnderWay(Some(40)));
        assert_eq!(at(601, Some(40)), Copying::Stalled);
    }

    #[test]
    fn it_is_not_all_there_before_it_is() {
        for (there, expected, told) in [(0, 10, 0), (5, 10, 50), (10, 10, 99), (11, 10, 99), (1, 0, 99)] {
            assert_eq!(percent(there, expected), told, "{there} of {expected}");
        }
        assert_eq!(percent(u64::MAX, u64::MAX), 99);
    }
}
