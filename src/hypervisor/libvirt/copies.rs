//! Copies of volumes: each a call of minutes on a thread of its own, beside the gate, whose places and
//! deadlines are for calls that end soon. What came of it is kept until it is asked for.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use virt::{error::ErrorNumber, storage_pool::StoragePool, storage_vol::StorageVol};

use super::{
    LibvirtHypervisor,
    gate::{Lane, Subject},
    session::{Call, absent_as_none},
    supervisor::Link,
    volumes::{active_pool, exists_already, find, path_of, plain_xml},
};
use crate::{
    domain_xml::{Malformed, document::Document},
    hypervisor::{Copied, Copies, Copying, HypervisorError, HypervisorEvent, VolumeCopy},
    vm::VmId,
};

/// Copies at once: they read and write as fast as the disks can. Others wait for their turn.
const COPIES_AT_ONCE: usize = 2;

/// The copies that this process began, by VM.
#[derive(Debug)]
pub(super) struct CopyTable {
    jobs: Mutex<HashMap<VmId, Job>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    copy: VolumeCopy,
    /// Bytes that the copied volume takes on its disk, once that is known.
    expected: Option<u64>,
    ended: Option<Result<PathBuf, HypervisorError>>,
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

    /// How the copy stands; `None`: it has to be begun, and is noted as begun by now.
    fn enter(&self, id: VmId, copy: &VolumeCopy) -> Option<Result<Copied, HypervisorError>> {
        let mut jobs = self.jobs();
        match jobs.remove(&id) {
            Some(job) if job.ended.is_none() => {
                // Also another one: it has to end before the next begins.
                jobs.insert(id, job);
                Some(Ok(Copied::UnderWay))
            }
            Some(Job { copy: known, ended: Some(ended), .. }) if known == *copy => {
                Some(ended.map(Copied::Whole))
            }
            _ => {
                jobs.insert(id, Job { copy: copy.clone(), expected: None, ended: None });
                None
            }
        }
    }

    /// What has ended is nobody's affair any more.
    pub(super) fn forget(&self, id: VmId) {
        self.jobs().retain(|of, job| *of != id || job.ended.is_none());
    }

    fn end(&self, id: VmId, outcome: Result<PathBuf, HypervisorError>) {
        if let Some(job) = self.jobs().get_mut(&id) {
            job.ended = Some(outcome);
        }
    }
}

#[async_trait]
impl Copies for LibvirtHypervisor {
    async fn copy_volume(&self, id: VmId, copy: VolumeCopy) -> Result<Copied, HypervisorError> {
        if let Some(standing) = self.copies.enter(id, &copy) {
            return standing;
        }
        let (table, link, limit) =
            (Arc::clone(&self.copies), Arc::clone(&self.link), self.config.call_timeout);
        let events = self.events.clone();
        tokio::spawn(async move {
            // The semaphore is never closed; if it were, there would be no bound.
            let place = Arc::clone(&table.places).acquire_owned().await;
            let at_work = Arc::clone(&table);
            let operation = format!("copy volume {:?} of pool {:?}", copy.from_name, copy.from_pool);
            let words = operation.clone();
            let work = tokio::task::spawn_blocking(move || {
                let noted = |bytes| {
                    if let Some(job) = at_work.jobs().get_mut(&id) {
                        job.expected = Some(bytes);
                    }
                };
                run(&link, &operation, limit, &copy, noted)
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

    async fn copying(&self, id: VmId) -> Copying {
        let (copy, expected) = match self.copies.jobs().get(&id) {
            Some(Job { copy, expected, ended: None }) => (copy.clone(), *expected),
            _ => return Copying::Nothing,
        };
        let Some(expected) = expected.filter(|bytes| *bytes > 0) else { return Copying::UnderWay(None) };
        let operation = format!("look how far volume {:?} is", copy.name);
        // About what no other call is about: one that hangs here lets only the next question wait. It is
        // asked at every look, and would else take all places one after the other.
        let asked = self.call(operation, Some(Subject::Copy(id)), Lane::Work, move |call| {
            let pool = call.ask(|conn| conn.lookup_storage_pool_by_name(&copy.pool))?;
            allocation(call, &pool, &copy.name)
        });
        let there = asked.await.ok().flatten();
        Copying::UnderWay(there.map(|bytes| percent(bytes, expected)))
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

/// libvirt lets nobody touch a volume that it is still making for an earlier process, nor its pool:
/// that call is not over.
fn still_made(call: &Call<'_>, error: HypervisorError, limit: Duration) -> HypervisorError {
    match &error {
        HypervisorError::Refused { source, .. }
            if matches!(
                source.code().known(),
                Some(ErrorNumber::OperationInvalid | ErrorNumber::InternalError)
            ) =>
        {
            HypervisorError::Deadline { operation: call.operation(), limit }
        }
        _ => error,
    }
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

    #[test]
    fn a_copy_is_begun_once_and_its_end_told_once() {
        let (table, id) = (CopyTable::default(), VmId::generate());
        assert!(table.enter(id, &copy("b")).is_none(), "it is begun");
        for name in ["b", "c"] {
            assert!(matches!(table.enter(id, &copy(name)), Some(Ok(Copied::UnderWay))), "{name}");
        }
        table.end(id, Ok("/p/b".into()));
        assert!(matches!(table.enter(id, &copy("b")), Some(Ok(Copied::Whole(_)))));
        assert!(table.enter(id, &copy("b")).is_none(), "asked again, it begins anew");
        table.end(id, Err(HypervisorError::NotFound { operation: String::new() }));
        assert!(matches!(table.enter(id, &copy("b")), Some(Err(_))));
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_nobody_elses() {
        let (table, id) = (CopyTable::default(), VmId::generate());
        assert!(table.enter(id, &copy("b")).is_none());
        table.end(id, Ok("/p/b".into()));
        assert!(table.enter(id, &copy("c")).is_none(), "another copy is begun");
    }

    #[test]
    fn it_is_not_all_there_before_it_is() {
        for (there, expected, told) in [(0, 10, 0), (5, 10, 50), (10, 10, 99), (11, 10, 99), (1, 0, 99)] {
            assert_eq!(percent(there, expected), told, "{there} of {expected}");
        }
        assert_eq!(percent(u64::MAX, u64::MAX), 99);
    }
}
