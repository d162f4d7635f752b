//! What is told as it happens.
//!
//! A subscription passes the same `authorize` as a query, when it begins and again every so
//! often: it ends when the token or the right to see the VM is gone. The bus may drop events for
//! a slow client; it is told so.

use std::time::Duration;

use async_graphql::{Context, Subscription};
use futures_util::{Stream, stream};
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};
use uuid::Uuid;

use super::{
    ApiContext,
    auth::{Call, Token},
    error::ApiError,
    gates::Gates,
    query::console_bytes,
    readers::Reader,
    types::{OperationObject, VmConsolePiece, VmEventNotice, VmMetrics},
};
use crate::{
    events::{Notice, Subscription as BusSubscription},
    lifecycle::{ConsoleFollower, ConsolePiece, LifecycleError},
    store::StoreError,
    vm::{Operation, OperationId, VmEvent, VmId, chain},
};

/// How long the database is waited for to say whether one may still listen; nothing is told
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often an operation is read again: what the bus lost, or nobody told, is seen then.
const LOOK: Duration = Duration::from_secs(3);
/// How often a console is looked at.
const CONSOLE_LOOK: Duration = Duration::from_millis(250);

/// One client's watch over one VM.
struct Watch {
    api: ApiContext,
    token: Token,
    vm: VmId,
    bus: BusSubscription,
    recheck: Interval,
    look: Interval,
    ended: bool,
}

/// What a watch has to say.
enum Sight {
    /// From the bus.
    Notice(Notice),
    /// Nothing in particular; time to look.
    Look,
}

impl Watch {
    /// A watch by whoever asks; whether he may has to be asked after this, so that nothing falls
    /// between the check and the first event.
    fn begin(ctx: &Context<'_>, vm: VmId) -> Result<Self, ApiError> {
        Self::looking(ctx, vm, LOOK)
    }

    /// The same with looks as often as this.
    fn looking(ctx: &Context<'_>, vm: VmId, look: Duration) -> Result<Self, ApiError> {
        let call = Call::of(ctx)?;
        let token = ctx.data_opt::<Token>().cloned().ok_or_else(ApiError::unauthenticated)?;
        let every = |period| {
            let mut interval = tokio::time::interval_at(Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let bus = call.api.events.subscribe();
        let (recheck, look) = (every(call.api.config.recheck_interval), every(look));
        Ok(Self { api: call.api.clone(), token, vm, bus, recheck, look, ended: false })
    }

    /// What comes next; `None` at the end: the VM is gone, or the right to watch it.
    async fn next(&mut self) -> Option<Sight> {
        while !self.ended {
            tokio::select! {
                notice = self.bus.next() => match notice? {
                    Notice::Event(event) if event.vm() != self.vm => {}
                    notice => {
                        self.ended = matches!(&notice, Notice::Event(VmEvent::Deleted { .. }));
                        return Some(Sight::Notice(notice));
                    }
                },
                _ = self.look.tick() => return Some(Sight::Look),
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
        let checked = async {
            let actor = self.token.actor(&self.api).await?;
            Call { api: &self.api, actor: &actor }.may_see_history(self.vm).await
        };
        let checked = timeout(PATIENCE, checked).await;
        let checked = checked.unwrap_or(Err(StoreError::NoAnswer { limit: PATIENCE }.into()));
        // Nobody could be asked: what was allowed a moment ago is not cut off for that.
        checked.err().is_none_or(|error| error.is_failure())
    }

    /// An operation as it is now; `None` where there is none, or it cannot be read.
    async fn operation(&self, id: OperationId) -> Option<Operation> {
        match self.api.store.operation(id).await {
            Ok(operation) => operation,
            Err(error) => {
                tracing::warn!(%id, error = chain(&error), "an operation could not be read for a subscriber");
                None
            }
        }
    }
}

pub(super) struct SubscriptionRoot;

/// What is told as it happens.
#[Subscription(name = "Subscription")]
impl SubscriptionRoot {
    /// Everything that happens to a VM, until it is deleted. A slow subscriber loses events and
    /// gets a notice of the type `lagged` instead.
    async fn vm_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
    ) -> Result<impl Stream<Item = VmEventNotice> + use<>, ApiError> {
        let watch = Watch::begin(ctx, VmId(vm_id))?;
        Call::of(ctx)?.visible(watch.vm).await?;
        Ok(stream::unfold(watch, |mut watch| async move {
            loop {
                if let Sight::Notice(notice) = watch.next().await? {
                    return Some((VmEventNotice::new(watch.vm, &notice), watch));
                }
            }
        }))
    }

    /// A VM's readings as they come. One of more than 32 KiB comes without its `processes` and
    /// `ports`; `getVmMetrics` has it whole. A slow subscriber's stream ends with the code `LAGGED`:
    /// subscribe again, and read `getVmMetrics` for what was missed.
    async fn vm_metrics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
    ) -> Result<impl Stream<Item = Result<VmMetrics, ApiError>> + use<>, ApiError> {
        let watch = Watch::begin(ctx, VmId(vm_id))?;
        Call::of(ctx)?.visible(watch.vm).await?;
        Ok(stream::unfold(watch, |mut watch| async move {
            loop {
                if let Some(told) = reading(watch.next().await?) {
                    watch.ended |= told.is_err();
                    return Some((told, watch));
                }
            }
        }))
    }

    /// What a VM writes to its serial console, over all its starts: first the end of what there is, then
    /// what is added, in pieces of at most 32 KiB, four a second at most. The first piece comes at once
    /// and may be empty. A guest's words. Ends as the VM does.
    async fn vm_console(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
        #[graphql(
            default = 65536,
            desc = "1 to 1,048,576: at most so many bytes of what there is, before they are cleaned."
        )]
        max_bytes: i32,
    ) -> Result<impl Stream<Item = Result<VmConsolePiece, ApiError>> + use<>, ApiError> {
        let watch = Watch::looking(ctx, VmId(vm_id), CONSOLE_LOOK)?;
        let call = Call::of(ctx)?;
        let max = console_bytes(max_bytes)?;
        let log = call.api.lifecycle.follow_console(call.actor, watch.vm, max).await?;
        let place = Gates::of(ctx)?.consoles.enter(call.actor.user)?;
        Ok(stream::unfold(Console { watch, log, begun: false, _place: place }, Console::step))
    }

    /// An operation as it is now, then as it moves on; ends when it has ended.
    async fn operation_progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<impl Stream<Item = OperationObject> + use<>, ApiError> {
        let id = OperationId(id);
        let not_found = || ApiError::new("OPERATION_NOT_FOUND", format!("there is no operation {id}"));
        let call = Call::of(ctx)?;
        let vm = call.api.store.operation(id).await?.ok_or_else(not_found)?.vm;
        let watch = Watch::begin(ctx, vm)?;
        call.may_see_history(vm).await.map_err(|e| if e.is_not_found() { not_found() } else { e })?;
        // Read again: it may have moved on before the bus was listened to.
        let now = call.api.store.operation(id).await?.ok_or_else(not_found)?;
        Ok(stream::unfold(Follower { watch, id, next: Some(now), told: None }, Follower::step))
    }
}

/// What a subscriber to readings is told of it. An error ends the stream.
fn reading(sight: Sight) -> Option<Result<VmMetrics, ApiError>> {
    match sight {
        Sight::Notice(Notice::Event(VmEvent::Metrics(sample))) => Some(Ok(VmMetrics::from(&*sample))),
        Sight::Notice(Notice::Lagged(missed)) => Some(Err(ApiError::lagged(missed))),
        Sight::Notice(Notice::Event(_)) | Sight::Look => None,
    }
}

/// Follows one console.
struct Console {
    watch: Watch,
    log: ConsoleFollower,
    begun: bool,
    _place: Reader,
}

impl Console {
    async fn step(mut self) -> Option<(Result<VmConsolePiece, ApiError>, Self)> {
        loop {
            let first = !std::mem::replace(&mut self.begun, true);
            // What happens to the VM is not told here, but its end is this one's, too.
            if !first && !matches!(self.watch.next().await?, Sight::Look) {
                continue;
            }
            match self.log.look().await {
                Ok(None) if first => return Some((Ok(ConsolePiece::default().into()), self)),
                Ok(None) => {}
                Ok(Some(piece)) => return Some((Ok(piece.into()), self)),
                Err(error @ LifecycleError::Store(_)) => {
                    tracing::debug!(vm = %self.watch.vm, error = chain(&error), "a console is looked at again");
                }
                Err(error) => {
                    self.watch.ended = true;
                    return Some((Err(error.into()), self));
                }
            }
        }
    }
}

/// Follows one operation to its end.
struct Follower {
    watch: Watch,
    id: OperationId,
    next: Option<Operation>,
    told: Option<Operation>,
}

impl Follower {
    async fn step(mut self) -> Option<(OperationObject, Self)> {
        if self.told.as_ref().is_some_and(|told| told.status.is_final()) {
            return None;
        }
        let operation = loop {
            if let Some(operation) = self.next.take()
                && self.told.as_ref() != Some(&operation)
            {
                break operation;
            }
            self.next = match self.watch.next().await? {
                Sight::Notice(Notice::Event(VmEvent::Operation(operation))) if operation.id == self.id => {
                    Some((*operation).clone())
                }
                // What was missed may have been the end, and so is the end of the VM.
                Sight::Look | Sight::Notice(Notice::Lagged(_) | Notice::Event(VmEvent::Deleted { .. })) => {
                    self.watch.operation(self.id).await
                }
                Sight::Notice(Notice::Event(_)) => None,
            };
        };
        self.told = Some(operation.clone());
        Some((OperationObject::from(operation), self))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{Object, Schema, Value};
    use futures_util::StreamExt as _;

    use super::*;
    use crate::events::EventBus;

    struct Anything;

    #[Object]
    impl Anything {
        async fn nothing(&self) -> bool {
            true
        }
    }

    /// A subscription as `vmMetrics`, without a caller to look after.
    struct Readings(EventBus);

    #[Subscription]
    impl Readings {
        async fn readings(&self) -> impl Stream<Item = Result<VmMetrics, ApiError>> + use<> {
            stream::unfold(Some(self.0.subscribe()), |bus| async move {
                let mut bus = bus?;
                loop {
                    if let Some(told) = reading(Sight::Notice(bus.next().await?)) {
                        let rest = told.is_ok().then_some(bus);
                        return Some((told, rest));
                    }
                }
            })
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_to_readings_is_told_that_it_lagged() {
        let bus = EventBus::default();
        let schema = Schema::build(Anything, async_graphql::EmptyMutation, Readings(bus.clone())).finish();
        let mut told = schema.execute_stream("subscription { readings { id } }");
        // Subscribed with the first poll; nothing is there yet.
        assert!(futures_util::poll!(told.next()).is_pending());
        for _ in 0..10_000 {
            bus.publish(VmEvent::Deleted { vm: VmId::generate(), at: chrono::Utc::now() });
        }
        let last = told.next().await.expect("a last word");
        let error = last.errors.first().expect("an error");
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        assert_eq!(code, Some(&Value::from("LAGGED")), "{error:?}");
        assert!(error.message.contains("getVmMetrics"), "{}", error.message);
        assert!(told.next().await.is_none(), "the stream goes on with a hole in it");
    }
}
