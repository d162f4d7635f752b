//! Reading many VMs takes as many statements as reading one.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use infinibay::{
    access::Audience,
    store::{Store, VmSearch, VmsFrom},
    vm::{HostId, UserId, VmId},
};
use support::{
    database::{Backend, TestDatabase},
    sample::{create, new_vm, now, sample},
};
use tracing_subscriber::{Layer, layer::SubscriberExt};

static STATEMENTS: AtomicUsize = AtomicUsize::new(0);

/// Counts what the database driver says it ran.
struct Counter;

impl<S: tracing::Subscriber> Layer<S> for Counter {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            STATEMENTS.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Statements of one handle, from opening to closing it: SQLite's are counted by a thread that
/// may lag behind until then.
async fn count(db: &TestDatabase, reads: impl AsyncFnOnce(&Store)) -> usize {
    let before = STATEMENTS.load(Ordering::SeqCst);
    let store = db.store().await;
    reads(&store).await;
    store.close().await;
    STATEMENTS.load(Ordering::SeqCst) - before
}

/// Statements of each way to read: a host, by ids, a list, the latest readings, how many there are,
/// whose they are.
async fn statements(backend: Backend, vms: usize) -> [usize; 6] {
    let db = TestDatabase::new(backend).await;
    let store = db.store().await;
    let (host, owner) = (HostId::generate(), UserId::generate());
    let mut ids: Vec<VmId> = Vec::new();
    for n in 0..vms {
        let vm = new_vm(host, owner, &format!("vm-{n}"));
        create(&store, &vm).await;
        store.insert_metrics(&[sample(vm.id, now(), 1.0)]).await.unwrap();
        ids.push(vm.id);
    }
    assert_eq!(store.count_vms(HostId::generate()).await.unwrap(), [], "another host has none");
    store.close().await;
    let opening = count(&db, async |_| ()).await;
    let load_host = async |store: &Store| assert_eq!(store.load_host(host).await.unwrap().len(), vms);
    let by_id = async |store: &Store| assert_eq!(store.vms_by_id(&ids).await.unwrap().len(), vms);
    let list = async |store: &Store| {
        assert_eq!(
            store
                .list_vms(Audience::Everybody, &VmSearch::default(), &VmsFrom::Id(None), 100)
                .await
                .unwrap()
                .nodes
                .len(),
            vms
        )
    };
    let latest = async |store: &Store| assert_eq!(store.latest_metrics(&ids).await.unwrap().len(), vms);
    let counts = async |store: &Store| {
        let told = store.count_vms(host).await.unwrap();
        assert_eq!(told.iter().map(|count| count.vms).sum::<i64>(), i64::try_from(vms).unwrap());
    };
    let access = async |store: &Store| assert_eq!(store.vm_access(&ids).await.unwrap().len(), vms);
    [
        count(&db, load_host).await - opening,
        count(&db, by_id).await - opening,
        count(&db, list).await - opening,
        count(&db, latest).await - opening,
        count(&db, counts).await - opening,
        count(&db, access).await - opening,
    ]
}

// One test, because it counts what the whole process does.
#[tokio::test]
async fn reading_many_takes_as_many_statements_as_reading_one() {
    let subscriber = tracing_subscriber::registry().with(Counter);
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
    // On PostgreSQL the driver counts the beginning of the snapshot, too.
    for (backend, host) in [(Backend::Sqlite, 3), (Backend::Postgres, 4)] {
        for vms in [1, 30] {
            assert_eq!(statements(backend, vms).await, [host, 1, 1, 1, 1, 1], "{backend:?}, {vms} VMs");
        }
    }
}
