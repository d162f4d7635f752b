//! Questions.

use async_graphql::{Context, Object};
use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::{
    auth::Call,
    error::ApiError,
    types::{
        CommandLogConnection, HostObject, ImageObject, OperationObject, PageInfo, VmConnection,
        VmErrorConnection, VmMetrics, VmObject, page,
    },
};
use crate::{
    access::{Action, authorize},
    vm::{OperationId, VmId},
};

/// Longest look back, hours: a month.
const MAX_HOURS: i32 = 744;
/// Most readings of one answer, newest first: a day at one every ten seconds.
const MAX_READINGS: u32 = 8640;

pub(super) struct QueryRoot;

#[Object(name = "Query")]
impl QueryRoot {
    /// One VM; null where there is none, or none that you may see.
    async fn vm(&self, ctx: &Context<'_>, id: Uuid) -> Result<Option<VmObject>, ApiError> {
        match Call::of(ctx)?.visible(VmId(id)).await {
            Ok(view) => Ok(Some(VmObject::one(view))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Your VMs; all of them for admins.
    #[graphql(complexity = "usize::try_from(first).unwrap_or(0).saturating_mul(child_complexity)")]
    async fn vms(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50)] first: i32,
        after: Option<String>,
    ) -> Result<VmConnection, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ListVms)?;
        let owner = (!call.actor.admin).then_some(call.actor.user);
        let found = call.api.store.list_vms(owner, page(first, after.as_deref())?).await?;
        let last = found.nodes.last().map(|view| view.record.id.uuid());
        Ok(VmConnection {
            nodes: VmObject::many(found.nodes),
            page_info: PageInfo::new(found.has_next, last),
        })
    }

    /// This host: capacity, pools, networks, what it can do.
    async fn host(&self, ctx: &Context<'_>) -> Result<HostObject, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewHost)?;
        let facts = call.api.hypervisor.host().await?;
        let domain_type = call.api.hypervisor.domain_type().await?;
        Ok(HostObject::new(call.api.host, facts, domain_type))
    }

    /// One operation; null where there is none, or none that you may see.
    async fn operation(&self, ctx: &Context<'_>, id: Uuid) -> Result<Option<OperationObject>, ApiError> {
        let call = Call::of(ctx)?;
        let Some(operation) = call.api.store.operation(OperationId(id)).await? else { return Ok(None) };
        match call.may_see_history(operation.vm).await {
            Ok(()) => Ok(Some(operation.into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Readings of the last hours, newest first.
    async fn get_vm_metrics(
        &self,
        ctx: &Context<'_>,
        vm_id: Uuid,
        #[graphql(default = 24)] hours: i32,
    ) -> Result<Vec<VmMetrics>, ApiError> {
        let call = Call::of(ctx)?;
        call.may_see_history(VmId(vm_id)).await?;
        if !(1..=MAX_HOURS).contains(&hours) {
            return Err(ApiError::invalid("hours", format!("must be between 1 and {MAX_HOURS}")));
        }
        let since = Utc::now() - TimeDelta::hours(hours.into());
        let rows = call.api.store.metrics(VmId(vm_id), since, MAX_READINGS).await?;
        Ok(rows.into_iter().map(VmMetrics::from).collect())
    }

    /// The commands of a VM, newest first. Outlives the VM, until it expires.
    async fn command_log(
        &self,
        ctx: &Context<'_>,
        vm_id: Uuid,
        #[graphql(default = 50)] first: i32,
        after: Option<String>,
    ) -> Result<CommandLogConnection, ApiError> {
        let call = Call::of(ctx)?;
        call.may_see_history(VmId(vm_id)).await?;
        let found = call.api.store.command_log(VmId(vm_id), page(first, after.as_deref())?).await?;
        let nodes: Vec<super::types::CommandLog> = found.nodes.into_iter().map(Into::into).collect();
        let last = nodes.last().map(super::types::CommandLog::cursor);
        Ok(CommandLogConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }

    /// Errors that a VM's guest reported, newest first. Outlives the VM, until it expires.
    async fn vm_errors(
        &self,
        ctx: &Context<'_>,
        vm_id: Uuid,
        #[graphql(default = 50)] first: i32,
        after: Option<String>,
    ) -> Result<VmErrorConnection, ApiError> {
        let call = Call::of(ctx)?;
        call.may_see_history(VmId(vm_id)).await?;
        let found = call.api.store.vm_errors(VmId(vm_id), page(first, after.as_deref())?).await?;
        let nodes: Vec<super::types::VmErrorEntry> = found.nodes.into_iter().map(Into::into).collect();
        let last = nodes.last().map(super::types::VmErrorEntry::cursor);
        Ok(VmErrorConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }

    /// The images that VMs can be made from, and those that cannot be used, with the reason.
    async fn images(&self, ctx: &Context<'_>) -> Result<Vec<ImageObject>, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewImages)?;
        let (usable, broken) = call.api.images.list().await?;
        Ok(usable
            .into_iter()
            .map(ImageObject::from)
            .chain(broken.into_iter().map(ImageObject::from))
            .collect())
    }
}
