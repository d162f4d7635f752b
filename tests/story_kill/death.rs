//! What all these stories do to their daemons.

use infinibay::{
    failpoint::OPERATIONS,
    store::{NewVm, Store},
    vm::{DesiredPower, OperationId, VmId, VmSpec},
};
use serde_json::Value;

use crate::support::{
    daemon::{Client, Home},
    stage::SOON,
};

/// The points of an operation.
pub fn points_of(operation: &str) -> &'static [&'static str] {
    let listed = OPERATIONS.iter().find(|(name, _)| *name == operation);
    listed.unwrap_or_else(|| panic!("{operation} is not in the list")).1
}

/// Asks a daemon that dies at this point, once it is `ready` for it; gives what it answered, if it
/// did. Where it dies of the request itself, it cannot.
pub async fn ask_to_death(
    (home, token): (&Home, &str),
    point: &str,
    ready: impl AsyncFnOnce(&Client),
    mutation: &str,
    request: &Value,
) -> Option<Value> {
    let daemon = home.start_to_die_at(point);
    let client = daemon.client(token);
    ready(&client).await;
    let answered = client.ask_the_dying(mutation, request.clone()).await;
    assert!(!(point.ends_with(".stored") && answered.is_some()), "{point}: answered, and then dead");
    daemon.died_at(point, SOON);
    answered
}

/// The database, while no daemon has it.
async fn open_store(home: &Home) -> Store {
    let url = format!("sqlite:{}", home.state_dir().join("infinibay.db").display());
    Store::open(&url, 1, SOON).await.unwrap()
}

/// Stores a request for the VM's deletion before any daemon looks at it again; its operation.
pub async fn delete_meanwhile(home: &Home, vm: &str) -> String {
    let store = open_store(home).await;
    let id = VmId::from(vm.parse::<uuid::Uuid>().unwrap());
    let owner = store.vm(id).await.unwrap().unwrap().record.owner;
    let asked = store.request_delete(id, OperationId::generate(), owner, chrono::Utc::now()).await;
    store.close().await;
    asked.unwrap().1.id.to_string()
}

/// Stores another VM like this one, which is to be off, under this name, before any daemon looks; its id.
pub async fn made_meanwhile(home: &Home, like: &str, name: &str) -> String {
    let store = open_store(home).await;
    let like = VmId::from(like.parse::<uuid::Uuid>().unwrap());
    let record = store.vm(like).await.unwrap().unwrap().record;
    let spec = VmSpec { name: name.parse().unwrap(), devices: Default::default(), ..record.spec };
    let other = NewVm { id: VmId::generate(), host: record.host, owner: record.owner, spec };
    let now = chrono::Utc::now();
    store.create_vm(&other, OperationId::generate(), now).await.unwrap();
    let off = (DesiredPower::ForcedOff, OperationId::generate());
    store.request_power(other.id, off.0, off.1, record.owner, now).await.unwrap();
    store.close().await;
    other.id.to_string()
}

/// The operation that nobody was told of, by what is stored; none when it is ended.
pub async fn under_way(home: &Home, vm: &str) -> Option<String> {
    let store = open_store(home).await;
    let bundle = store.load_vm(VmId::from(vm.parse::<uuid::Uuid>().unwrap())).await.unwrap();
    store.close().await;
    bundle?.operations.first().map(|operation| operation.id.to_string())
}
