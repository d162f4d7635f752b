//! What a storage pool holds.

use async_trait::async_trait;
use virt::storage_vol::StorageVol;

use super::{
    LibvirtHypervisor,
    error::is_connection_failure,
    gate::{Lane, Subject},
    session::Call,
};
use crate::hypervisor::{HypervisorError, PoolContents, Storage};

#[async_trait]
impl Storage for LibvirtHypervisor {
    async fn pool(&self, name: &str) -> Result<PoolContents, HypervisorError> {
        let operation = format!("look through pool {name:?}");
        let name = name.to_owned();
        let subject = Some(Subject::Pool(name.clone()));
        self.call(operation, subject, Lane::Work, move |call| look_through(call, &name)).await
    }
}

fn look_through(call: &Call<'_>, name: &str) -> Result<PoolContents, HypervisorError> {
    let pool = call.ask(|conn| conn.lookup_storage_pool_by_name(name))?;
    if !call.ask(|_| pool.is_active())? {
        return Err(call.invalid("the pool is not active"));
    }
    // libvirt hears neither of files that others remove nor of images that grow. While a volume of the
    // pool is being made it refuses, and what it remembers is told.
    if let Err(error) = call.ask_raw(|_| pool.refresh(0).map(drop)) {
        if is_connection_failure(&error) {
            return Err(call.sort(error));
        }
        tracing::debug!(pool = name, %error, "the pool was not refreshed");
    }
    // A pool whose storage is away is not active any more now, and this is an error.
    let volumes = call.ask(|_| pool.list_all_volumes(0))?;
    let info = call.ask(|_| pool.info())?;
    // Names come with the list; asking for them sends nothing.
    let names = volumes.iter().map(StorageVol::name).collect::<Result<_, _>>();
    Ok(PoolContents {
        capacity_bytes: info.capacity,
        available_bytes: info.available,
        volumes: names.map_err(|error| call.sort(error))?,
    })
}
