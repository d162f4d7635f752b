//! A VM's snapshots.

use async_graphql::Context;

use crate::{
    api::{auth::Call, error::ApiError, types::VmSnapshot},
    vm::VmId,
};

/// What a list costs: a call to libvirt for each snapshot.
pub(super) const COMPLEXITY: usize = 200;

pub(super) async fn list(ctx: &Context<'_>, vm: VmId) -> Result<Vec<VmSnapshot>, ApiError> {
    let call = Call::of(ctx)?;
    call.visible(vm).await?;
    Ok(call.api.lifecycle.snapshots(vm).await?.into_iter().map(VmSnapshot::from).collect())
}
