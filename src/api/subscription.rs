//! What is told as it happens.
//!
//! A subscription passes the same `authorize` as a query, when it begins and again every so
//! often: it ends when the token or the right to see the VM is gone. The bus may drop events for
//! a slow client; it is told so.

use std::time::Duration;

use async_graphql::{Context, Subscription};
use futures_util::{Stream, stream};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::{
    ApiContext,
    auth::{Call, Token},
    error::ApiError,
    types::{OperationObject, VmEventNotice, VmMetrics},
};
use crate::{
    events::{Notice, Subscription as BusSubscription},
    vm::{OperationId, VmEvent, VmId},
};

/// How often the right to listen is looked at again.
const RECHECK: Duration = Duration::from_secs(30);

/// One client's watch over one VM.
struct Watch {
    api: ApiContext,
    token: Option<Token>,
    vm: VmId,
    bus: BusSubscription,
    recheck: tokio::time::Interval,
    ended: bool,
}

impl Watch {
    async fn begin(ctx: &Context<'_>, vm: VmId) -> Result<Self, ApiError> {
        let call = Call::of(ctx)?;
        // Before the check, so that nothing falls between check and first event.
        let bus = call.api.events.subscribe();
        call.may_see_history(vm).await?;
        let mut recheck = tokio::time::interval_at(Instant::now() + RECHECK, RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let token = ctx.data_opt::<Token>().cloned();
        Ok(Self { api: call.api.clone(), token, vm, bus, recheck, ended: false })
    }

    /// The next notice about the VM; `None` at the end.
    async fn next(&mut self) -> Option<Notice> {
        while !self.ended {
            // Both arms are cancel-safe.
            tokio::select! {
                notice = self.bus.next() => match notice? {
                    Notice::Event(event) if event.vm() != self.vm => {}
                    notice => {
                        self.ended = matches!(&notice, Notice::Event(VmEvent::Deleted { .. }));
                        return Some(notice);
                    }
                },
                _ = self.recheck.tick() => {
                    if !self.still_allowed().await {
                        return None;
                    }
                }
            }
        }
        None
    }

    async fn still_allowed(&self) -> bool {
        let Some(token) = &self.token else { return false };
        match self.api.accounts.authenticate(&token.0).await {
            Ok(Some(actor)) => Call { api: &self.api, actor: &actor }.may_see_history(self.vm).await.is_ok(),
            // The database is away: what was allowed a moment ago is not cut off for that.
            Err(_) => true,
            Ok(None) => false,
        }
    }
}

pub(super) struct SubscriptionRoot;

#[Subscription(name = "Subscription")]
impl SubscriptionRoot {
    /// Everything that happens to a VM.
    async fn vm_events(
        &self,
        ctx: &Context<'_>,
        vm_id: Uuid,
    ) -> Result<impl Stream<Item = VmEventNotice> + use<>, ApiError> {
        let watch = Watch::begin(ctx, VmId(vm_id)).await?;
        Ok(stream::unfold(watch, |mut watch| async move {
            let notice = watch.next().await?;
            Some((VmEventNotice::new(watch.vm, &notice), watch))
        }))
    }

    /// A VM's readings as they come.
    async fn vm_metrics(
        &self,
        ctx: &Context<'_>,
        vm_id: Uuid,
    ) -> Result<impl Stream<Item = VmMetrics> + use<>, ApiError> {
        let watch = Watch::begin(ctx, VmId(vm_id)).await?;
        Ok(stream::unfold(watch, |mut watch| async move {
            loop {
                if let Notice::Event(VmEvent::Metrics(sample)) = watch.next().await? {
                    return Some((VmMetrics::from(&*sample), watch));
                }
            }
        }))
    }

    /// An operation as it is now, then as it moves on; ends when it has ended.
    async fn operation_progress(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
    ) -> Result<impl Stream<Item = OperationObject> + use<>, ApiError> {
        let id = OperationId(id);
        let not_found = || ApiError::new("OPERATION_NOT_FOUND", format!("there is no operation {id}"));
        let known = Call::of(ctx)?.api.store.operation(id).await?.ok_or_else(not_found)?;
        let watch = Watch::begin(ctx, known.vm)
            .await
            .map_err(|error| if error.is_not_found() { not_found() } else { error })?;
        // Read again: it may have moved on before the bus was listened to.
        let now = watch.api.store.operation(id).await?.ok_or_else(not_found)?;
        let state = (Some(watch), Some(now));
        Ok(stream::unfold(state, move |(watch, first)| async move {
            let mut watch = watch?;
            let operation = match first {
                Some(first) => first,
                None => loop {
                    match watch.next().await? {
                        Notice::Event(VmEvent::Operation(operation)) if operation.id == id => {
                            break (*operation).clone();
                        }
                        // What was missed may have been the end.
                        Notice::Lagged(_) => break watch.api.store.operation(id).await.ok()??,
                        Notice::Event(_) => {}
                    }
                },
            };
            let left = (!operation.status.is_final()).then_some(watch);
            Some((OperationObject::from(operation), (left, None)))
        }))
    }
}
