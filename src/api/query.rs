//! Questions.

mod people;
mod snapshot;

use async_graphql::{Context, MergedObject, Object};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    auth::Call,
    error::ApiError,
    gates::Gates,
    series::{self, Wanted},
    types::{
        AlertConnection, AlertFilter, AlertObject, CommandLog, CommandLogConnection, CommandLogFilter,
        HostObject, ImageConnection, ImageObject, MAX_FIRST, MediumConnection, MediumObject, MetricsField,
        MetricsResolution, MetricsSeries, OperationObject, PageInfo, UnmanagedDomainConnection, User,
        VmConnection, VmConsoleLog, VmErrorConnection, VmErrorEntry, VmFilter, VmMetrics, VmMetricsList,
        VmObject, VmSnapshot, VmSort, page,
    },
};
use crate::{
    access::{Action, authorize},
    lifecycle::MAX_CONSOLE_BYTES,
    vm::{OperationId, VmId},
};

/// Longest look back, hours: thirty days.
const MAX_HOURS: i32 = 720;
/// Most readings of one answer, newest first.
const MAX_READINGS: u32 = 10_000;

/// What a page costs: each node as much as is asked of it.
fn page_complexity(first: i32, child: usize) -> usize {
    usize::try_from(first.min(MAX_FIRST)).unwrap_or(0).saturating_mul(child).saturating_add(1)
}

/// What readings cost: a search, and a share of each reading. A month of every field fits into
/// one query, twice does not.
fn metrics_complexity(hours: i32, child: usize) -> usize {
    let hours = usize::try_from(hours.clamp(1, MAX_HOURS)).unwrap_or(1);
    (hours / 8).saturating_mul(child).saturating_add(100)
}

/// What a look at the host costs: some ten calls to libvirt, though one look serves many.
const HOST_COMPLEXITY: usize = 100;

/// What a console's log costs: up to a MiB is read and told, so that few fit into one query.
const CONSOLE_COMPLEXITY: usize = 200;

/// How much of a console is asked for.
///
/// # Errors
/// `INVALID_INPUT`.
pub(super) fn console_bytes(max_bytes: i32) -> Result<u32, ApiError> {
    let max = u32::try_from(max_bytes).ok().filter(|max| (1..=MAX_CONSOLE_BYTES).contains(max));
    max.ok_or_else(|| ApiError::invalid("maxBytes", format!("must be between 1 and {MAX_CONSOLE_BYTES}")))
}

/// What there is to know.
#[derive(MergedObject, Default)]
#[graphql(name = "Query")]
pub(super) struct QueryRoot(VmQueries, people::PeopleQueries);

/// VMs, what happens to them, and what they are made of.
#[derive(Default)]
pub(super) struct VmQueries;

#[Object]
impl VmQueries {
    /// Who you are.
    async fn me(&self, ctx: &Context<'_>) -> Result<User, ApiError> {
        Ok(User::from(Call::of(ctx)?.actor))
    }

    /// One VM; null where there is none, or none that you may see.
    async fn vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<Option<VmObject>, ApiError> {
        match Call::of(ctx)?.visible(VmId(id)).await {
            Ok(view) => Ok(Some(VmObject::one(view))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The snapshots of a VM, oldest first; each names its parent. As libvirt has them now.
    #[graphql(complexity = "snapshot::COMPLEXITY + child_complexity")]
    async fn vm_snapshots(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
    ) -> Result<Vec<VmSnapshot>, ApiError> {
        snapshot::list(ctx, VmId(vm_id)).await
    }

    /// Your VMs and those that are shared with you; everybody's where your role sees them.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn vms(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before, of the same `sort`.")] after: Option<String>,
        #[graphql(desc = "Which of them; all when absent.")] filter: Option<VmFilter>,
        #[graphql(default_with = "VmSort::Id", desc = "In which order.")] sort: VmSort,
    ) -> Result<VmConnection, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ListVms)?;
        let (first, from) = (page(first, None)?.first, sort.begins(after.as_deref())?);
        let search = filter.map(VmFilter::into_search).transpose()?.unwrap_or_default();
        // What may not be seen is not there: another's list is empty, not forbidden.
        let found = call.api.store.list_vms(call.actor.audience(), &search, &from, first).await?;
        let last = found.nodes.last().map(|view| sort.cursor(view));
        Ok(VmConnection {
            nodes: VmObject::many(found.nodes),
            page_info: PageInfo::new(found.has_next, last),
        })
    }

    /// This host: capacity, pools, networks, what it can do.
    #[graphql(complexity = "HOST_COMPLEXITY + child_complexity")]
    async fn host(&self, ctx: &Context<'_>) -> Result<HostObject, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewHost)?;
        let facts = call.api.hypervisor.host().await?;
        let domain_type = call.api.hypervisor.domain_type().await?;
        Ok(HostObject::new(call.api.host, facts, domain_type, call.api.lifecycle.config()))
    }

    /// Domains of this host that are no VMs of ours, as one look at the host shows them. For admins.
    #[graphql(complexity = "HOST_COMPLEXITY + page_complexity(first, 1) + child_complexity")]
    async fn unmanaged_domains(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "1 to 200.")] first: i32,
        #[graphql(desc = "The cursor of the page before.")] after: Option<String>,
    ) -> Result<UnmanagedDomainConnection, ApiError> {
        let call = Call::of(ctx)?;
        let page = page(first, after.as_deref())?;
        let found = call.api.lifecycle.unmanaged(call.actor, page).await?;
        let last = found.nodes.last().map(|(id, _)| id.uuid());
        Ok(UnmanagedDomainConnection {
            nodes: found.nodes.into_iter().map(Into::into).collect(),
            page_info: PageInfo::new(found.has_next, last),
        })
    }

    /// The end of what a VM wrote to its serial console, over its last starts, without what would
    /// steer a terminal; null where nothing is kept of it. A guest's words.
    #[graphql(complexity = "CONSOLE_COMPLEXITY + child_complexity")]
    async fn vm_console_log(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] id: Uuid,
        #[graphql(default = 65536, desc = "1 to 1,048,576: at most so many bytes, before they are cleaned.")]
        max_bytes: i32,
    ) -> Result<Option<VmConsoleLog>, ApiError> {
        let call = Call::of(ctx)?;
        let max = console_bytes(max_bytes)?;
        let _turn = Gates::of(ctx)?.frames.acquire().await.map_err(|closed| ApiError::internal(&closed))?;
        Ok(call.api.lifecycle.console_log(call.actor, VmId(id), max).await?.map(Into::into))
    }

    /// One operation; null where there is none, or none that you may see.
    async fn operation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<Option<OperationObject>, ApiError> {
        let call = Call::of(ctx)?;
        let Some(operation) = call.api.store.operation(OperationId(id)).await? else { return Ok(None) };
        match call.may_see_history(operation.vm).await {
            Ok(()) => Ok(Some(operation.into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Readings of the last hours, newest first: at most 10,000, and where `diskUsage`,
    /// `networkStats`, `processes`, `ports` or `raw` are asked for, at most 24 MiB of frames, which
    /// is about a day. Older ones are left out, and nothing says so.
    #[graphql(complexity = "metrics_complexity(hours, child_complexity)")]
    async fn get_vm_metrics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(default = 24, desc = "How far back, hours: 1 to 720.")] hours: i32,
    ) -> Result<VmMetricsList, ApiError> {
        let call = Call::of(ctx)?;
        call.may_see_history(VmId(vm_id)).await?;
        if !(1..=MAX_HOURS).contains(&hours) {
            return Err(ApiError::invalid("hours", format!("must be between 1 and {MAX_HOURS}")));
        }
        let since = Utc::now() - TimeDelta::hours(hours.into());
        let look = ctx.look_ahead();
        let rows = if VmMetrics::FRAME_FIELDS.iter().any(|field| look.field(field).exists()) {
            let _turn =
                Gates::of(ctx)?.frames.acquire().await.map_err(|closed| ApiError::internal(&closed))?;
            call.api.store.metrics(VmId(vm_id), since, MAX_READINGS).await?
        } else {
            call.api.store.metrics_without_frames(VmId(vm_id), since, MAX_READINGS).await?
        };
        Ok(VmMetricsList(rows.into_iter().map(VmMetrics::from).collect()))
    }

    /// A chart of one VM: how its readings went from `from` until before `to`, at most two years,
    /// in at most `maxPoints` points (1 to 10,000), oldest first. Without `resolution`, the finest
    /// that is still kept for `from` and gives no more points than that.
    #[graphql(complexity = "series::complexity(max_points, fields.len(), child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the query")]
    async fn vm_metrics_series(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(desc = "Where the span begins; it belongs to it.")] from: DateTime<Utc>,
        #[graphql(desc = "Where the span ends; it does not belong to it.")] to: DateTime<Utc>,
        #[graphql(desc = "How fine; chosen by the span when absent.")] resolution: Option<MetricsResolution>,
        #[graphql(default_with = "MetricsField::usual()", desc = "What of the readings.")] fields: Vec<
            MetricsField,
        >,
        #[graphql(default = 1000, desc = "Points at most: 1 to 10,000.")] max_points: i32,
    ) -> Result<MetricsSeries, ApiError> {
        let call = Call::of(ctx)?;
        let vm = VmId(vm_id);
        call.may_see_history(vm).await?;
        let fields = fields.into_iter().map(Into::into).collect();
        let wanted = Wanted { vm, from, to, resolution: resolution.map(Into::into), fields, max_points };
        let (request, limit) = wanted.checked(&call.api.metrics_config, Utc::now())?;
        let series = call.api.store.series(&request, limit).await?;
        Ok(MetricsSeries::new(&request, &series))
    }

    /// The commands of a VM, newest first. Outlives the VM, until it expires.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn command_log(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
        #[graphql(desc = "Which of them; all when absent.")] filter: Option<CommandLogFilter>,
    ) -> Result<CommandLogConnection, ApiError> {
        let call = Call::of(ctx)?;
        call.may_see_history(VmId(vm_id)).await?;
        let search = filter.map(CommandLogFilter::into_search).transpose()?.unwrap_or_default();
        let found = call.api.store.command_log(VmId(vm_id), &search, page(first, after.as_deref())?).await?;
        let nodes: Vec<CommandLog> = found.nodes.into_iter().map(Into::into).collect();
        let last = nodes.last().map(CommandLog::cursor);
        Ok(CommandLogConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }

    /// Errors that a VM's guest reported, newest first. Outlives the VM, until it expires.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn vm_errors(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
    ) -> Result<VmErrorConnection, ApiError> {
        let call = Call::of(ctx)?;
        call.may_see_history(VmId(vm_id)).await?;
        let found = call.api.store.vm_errors(VmId(vm_id), page(first, after.as_deref())?).await?;
        let nodes: Vec<VmErrorEntry> = found.nodes.into_iter().map(Into::into).collect();
        let last = nodes.last().map(VmErrorEntry::cursor);
        Ok(VmErrorConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }

    /// What operators were told without asking, newest first: for admins everything, for others what
    /// concerns their VMs, also those that are gone. Outlives what it tells about, until it expires.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn alerts(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
        #[graphql(default, desc = "Leave out those that have ended.")] open_only: bool,
        #[graphql(desc = "Which of them; all when absent.")] filter: Option<AlertFilter>,
    ) -> Result<AlertConnection, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ListVms)?;
        let search = filter.unwrap_or_default().into_search(open_only)?;
        // What may not be seen is not there: of another's VM there are no alerts.
        let found =
            call.api.store.alerts(call.actor.audience(), &search, page(first, after.as_deref())?).await?;
        let last = found.nodes.last().map(|alert| alert.id);
        let nodes =
            found.nodes.into_iter().map(|alert| AlertObject::new(alert, call.actor.is_admin())).collect();
        Ok(AlertConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }

    /// The images that VMs can be made from, and those that cannot be used, with the reason; by
    /// name.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn images(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
    ) -> Result<ImageConnection, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewImages)?;
        let (usable, broken) = call.api.images.list().await?;
        let images = usable.into_iter().map(ImageObject::from);
        let all = images.chain(broken.into_iter().map(ImageObject::from)).collect();
        ImageConnection::cut(all, first, after.as_deref())
    }

    /// One medium, by name; null where there is none, or none that you may see.
    async fn medium(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its name.")] name: String,
    ) -> Result<Option<MediumObject>, ApiError> {
        let call = Call::of(ctx)?;
        let found = call.api.media.get(call.actor, &name).await?;
        Ok(found.map(|medium| MediumObject::new(medium, call.actor.is_admin())))
    }

    /// Disks and installation discs that were brought in, newest first: for admins all of them, with
    /// how far they are; for others those that are ready.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn media(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
    ) -> Result<MediumConnection, ApiError> {
        let call = Call::of(ctx)?;
        let found = call.api.media.list(call.actor, page(first, after.as_deref())?).await?;
        let last = found.nodes.last().map(|medium| medium.id);
        let nodes =
            found.nodes.into_iter().map(|medium| MediumObject::new(medium, call.actor.is_admin())).collect();
        Ok(MediumConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }
}
