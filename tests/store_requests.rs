//! A request for a VM is stored whole or not at all: intent, operation and audit row together.

#[macro_use]
mod support;

use infinibay::vm::{HostId, OperationKind, UserId};
use support::sample::{create, new_vm};

on_both! {
    async fn what_was_asked_comes_back(db: TestDatabase) {
        let store = db.store().await;
        let (host, owner) = (HostId::generate(), UserId::generate());
        let asked = new_vm(host, owner, "web-1");
        let (record, operation) = create(&store, &asked).await;
        assert_eq!(record.spec, asked.spec);
        assert_eq!(operation.kind, OperationKind::Create);
        let bundle = store.load_vm(asked.id).await.unwrap().expect("the VM is there");
        assert_eq!(bundle.record, record);
        assert_eq!(bundle.operations, [operation]);
    }
}
