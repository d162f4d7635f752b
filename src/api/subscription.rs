//! What is told as it happens.
//!
//! A subscription passes the same `authorize` as a query, when it begins, before anything is told
//! after somebody's rights have changed, and every so often: it ends, with the refusal's code, when the
//! token or the right to see the VM is gone. First it tells how things are. The bus may drop events
//! for a slow client; it is told so.

use std::time::Duration;

use async_graphql::{Context, Subscription};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, sleep_until, timeout},
};
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
    store::{StoreError, VmView},
    vm::{Operation, OperationId, VmEvent, VmId, chain},
};

/// How long the database is waited for to say whether one may still listen; nothing is told
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon it is asked again after it could not say.
const AGAIN: Duration = Duration::from_secs(1);
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
    rights: watch::Receiver<()>,
    /// When the right to watch is looked at again unasked.
    recheck: Instant,
    look: Interval,
    ended: bool,
}

/// What a watch has to say.
enum Sight {
    /// From the bus.
    Notice(Notice),
    /// Nothing in particular; time to look.
    Look,
    /// The last: there is no right to watch any more.
    Refused(ApiError),
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
        let mut look = tokio::time::interval_at(Instant::now() + look, look);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rights = call.api.accounts.rights();
        // Who asks was found out before this: what changed meanwhile is looked at first.
        rights.mark_changed();
        Ok(Self {
            api: call.api.clone(),
            token,
            vm,
            bus: call.api.events.subscribe(),
            rights,
            recheck: Instant::now() + call.api.config.recheck_interval,
            look,
            ended: false,
        })
    }

    /// What comes next; `None` at the end, when the VM is gone.
    async fn next(&mut self) -> Option<Sight> {
        while !self.ended {
            // In this order: nothing is told to whom it may not be told any more.
            let allowed = tokio::select! {
                biased;
                changed = self.rights.changed() => {
                    changed.ok()?;
                    self.allowed().await
                }
                () = sleep_until(self.recheck) => {
                    // Others may have changed what this process does not know of.
                    self.api.accounts.forget(self.token.as_str());
                    self.allowed().await
                }
                notice = self.bus.next() => match notice? {
                    Notice::Event(event) if event.vm() != self.vm => Ok(()),
                    notice => {
                        self.ended = matches!(&notice, Notice::Event(VmEvent::Deleted { .. }));
                        return Some(Sight::Notice(notice));
                    }
                },
                _ = self.look.tick() => return Some(Sight::Look),
            };
            if let Err(refused) = allowed {
                self.ended = true;
                return Some(Sight::Refused(refused));
            }
        }
        None
    }

    /// Whether the client may still watch. While nobody can be asked, what was allowed a moment ago is
    /// not cut off for that.
    async fn allowed(&mut self) -> Result<(), ApiError> {
        let checked = async {
            let actor = self.token.recent_actor(&self.api).await?;
            Call { api: &self.api, actor: &actor }.may_see_history(self.vm).await
        };
        let checked = timeout(PATIENCE, checked).await;
        let checked = checked.unwrap_or_else(|_| Err(StoreError::NoAnswer { limit: PATIENCE }.into()));
        let unknown = checked.as_ref().is_err_and(ApiError::is_failure);
        let wait = if unknown { AGAIN } else { self.api.config.recheck_interval };
        self.recheck = Instant::now() + wait;
        if unknown { Ok(()) } else { checked }
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
    /// How a VM is, then everything that happens to it, until it is deleted. A slow subscriber loses
    /// events and gets a notice of the type `lagged` instead, and how the VM is then.
    async fn vm_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
    ) -> Result<impl Stream<Item = Result<VmEventNotice, ApiError>> + use<>, ApiError> {
        let watch = Watch::begin(ctx, VmId(vm_id))?;
        let view = Call::of(ctx)?.visible(watch.vm).await?;
        Ok(stream::unfold(Events { watch, due: Due::Snapshot(Box::new(view)) }, Events::step))
    }

    /// A VM's readings: the newest that is stored, if there is one, then all as they come. One of more
    /// than 32 KiB comes without its `processes` and `ports`; `getVmMetrics` has it whole. A slow
    /// subscriber's stream ends with the code `LAGGED`: subscribe again, and read `getVmMetrics` for what
    /// was missed.
    async fn vm_metrics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The VM.")] vm_id: Uuid,
    ) -> Result<impl Stream<Item = Result<VmMetrics, ApiError>> + use<>, ApiError> {
        let watch = Watch::begin(ctx, VmId(vm_id))?;
        let call = Call::of(ctx)?;
        call.visible(watch.vm).await?;
        let newest = call.api.store.latest_metrics(&[watch.vm]).await?.remove(&watch.vm);
        // What came and was stored since the watch began is not told twice.
        let known = newest.as_ref().map(|row| row.id);
        let newest = newest.map(|row| Ok(VmMetrics::from(row)));
        let later = stream::unfold(watch, move |mut watch| async move {
            loop {
                let sight = watch.next().await?;
                let again = matches!(&sight, Sight::Notice(Notice::Event(VmEvent::Metrics(sample)))
                    if Some(sample.id) == known);
                if let Some(told) = reading(sight).filter(|_| !again) {
                    watch.ended |= told.is_err();
                    return Some((told, watch));
                }
            }
        });
        Ok(stream::iter(newest).chain(later))
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
    ) -> Result<impl Stream<Item = Result<OperationObject, ApiError>> + use<>, ApiError> {
        let id = OperationId(id);
        let not_found = || no_operation(id);
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
        Sight::Refused(refused) => Some(Err(refused)),
        Sight::Notice(Notice::Event(_)) | Sight::Look => None,
    }
}

fn no_operation(id: OperationId) -> ApiError {
    ApiError::new("OPERATION_NOT_FOUND", format!("there is no operation {id}"))
}

/// Follows what happens to one VM.
struct Events {
    watch: Watch,
    due: Due,
}

/// What is told before what happens next.
enum Due {
    /// How the VM is.
    Snapshot(Box<VmView>),
    /// The same, once it is read: events were missed.
    Look,
    Nothing,
}

impl Events {
    async fn step(mut self) -> Option<(Result<VmEventNotice, ApiError>, Self)> {
        let vm = self.watch.vm;
        match std::mem::replace(&mut self.due, Due::Nothing) {
            Due::Snapshot(view) => return Some((Ok(VmEventNotice::snapshot(&view)), self)),
            Due::Look => match self.watch.api.store.vm(vm).await {
                Ok(Some(view)) => return Some((Ok(VmEventNotice::snapshot(&view)), self)),
                // Its end was among what was missed.
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(%vm, error = chain(&error), "a VM could not be read for a subscriber");
                }
            },
            Due::Nothing => {}
        }
        loop {
            match self.watch.next().await? {
                Sight::Notice(notice) => {
                    if matches!(notice, Notice::Lagged(_)) {
                        self.due = Due::Look;
                    }
                    return Some((Ok(VmEventNotice::new(vm, &notice)), self));
                }
                Sight::Refused(refused) => return Some((Err(refused), self)),
                Sight::Look => {}
            }
        }
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
            if !first {
                match self.watch.next().await? {
                    Sight::Look => {}
                    Sight::Refused(refused) => return Some((Err(refused), self)),
                    Sight::Notice(_) => continue,
                }
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
    async fn step(mut self) -> Option<(Result<OperationObject, ApiError>, Self)> {
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
                Sight::Refused(refused) if refused.is_not_found() => {
                    return Some((Err(no_operation(self.id)), self));
                }
                Sight::Refused(refused) => return Some((Err(refused), self)),
                Sight::Notice(Notice::Event(_)) => None,
            };
        };
        self.told = Some(operation.clone());
        Some((Ok(OperationObject::from(operation)), self))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{Object, Schema, Value};

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
