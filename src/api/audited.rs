//! What was asked for and refused, written down. Rows of what was done are the store's, in the transaction
//! that does it; whatever ends in an error changes nothing, and so is noted here: every mutation's error,
//! every mutation that nobody heard the end of, and of the rest what was forbidden. The note is written
//! before the answer goes out.

mod book;
mod ledger;
mod subjects;

use std::sync::{Arc, OnceLock};

use async_graphql::{
    Context, PathSegment, Request, Response, ServerError, ServerResult, Value, Variables,
    extensions::{
        Extension, ExtensionContext, ExtensionFactory, NextParseQuery, NextPrepareRequest, NextResolve,
        NextSubscribe, ResolveInfo,
    },
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
    },
};
use chrono::Utc;
use futures_util::{StreamExt as _, stream::BoxStream};
use serde_json::json;
use uuid::Uuid;

use self::subjects::vm_argument;
use super::{
    deadline::Deadline,
    error::{ApiError, is_failure},
};
use crate::{
    access::Actor,
    store::{AskedFrom, Refusal},
    vm::{UserId, VmId},
};

pub(super) use self::ledger::Ledger;

/// What errors of GraphQL itself are told as.
const INVALID_QUERY: &str = "INVALID_QUERY";
const FORBIDDEN: &str = "FORBIDDEN";

/// Makes one of the below for each request.
pub(super) struct Audited;

impl ExtensionFactory for Audited {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(OfRequest::default())
    }
}

#[derive(Default)]
struct OfRequest {
    /// The operation's name, where the request says one.
    operation: OnceLock<Option<String>>,
    asked: Arc<OnceLock<Asked>>,
}

/// What is known of a request once it is read.
struct Asked {
    by: Option<Caller>,
    variables: Variables,
    /// Of a subscription, what is asked for: by its key in the answer, its name, its VM.
    streams: Vec<(String, String, Option<VmId>)>,
}

/// Who asks, and where it is noted.
#[derive(Clone)]
struct Caller {
    ledger: Ledger,
    user: Option<UserId>,
    origin: AskedFrom,
    deadline: Option<Deadline>,
}

#[async_trait::async_trait]
impl Extension for OfRequest {
    async fn prepare_request(
        &self,
        ctx: &ExtensionContext<'_>,
        request: Request,
        next: NextPrepareRequest<'_>,
    ) -> ServerResult<Request> {
        // Once per request, as below; a second time would be the same.
        let _ = self.operation.set(request.operation_name.clone());
        next.run(ctx, request).await
    }

    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        let document = next.run(ctx, query, variables).await?;
        let operation = self.operation.get().and_then(Option::as_deref);
        let _ = self.asked.set(Asked::of(ctx, variables.clone(), chosen(&document, operation)));
        Ok(document)
    }

    fn subscribe<'s>(
        &self,
        ctx: &ExtensionContext<'_>,
        stream: BoxStream<'s, Response>,
        next: NextSubscribe<'_>,
    ) -> BoxStream<'s, Response> {
        let asked = self.asked.clone();
        let noted = stream.then(move |response| {
            let asked = asked.clone();
            async move {
                if let Some(asked) = asked.get() {
                    asked.forbidden_streams(&response).await;
                }
                response
            }
        });
        next.run(ctx, noted.boxed())
    }

    async fn resolve(
        &self,
        ctx: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        let is_mutation = info.parent_type == "Mutation";
        // Subscriptions are seen to above: one that is refused at once never comes here.
        let caller = self.asked.get().filter(|_| is_mutation || info.parent_type == "Query");
        let Some((asked, caller)) = caller.and_then(|asked| Some((asked, asked.by.as_ref()?))) else {
            return next.run(ctx, info).await;
        };
        let (action, vm) = (info.name.to_owned(), asked.vm_of(info.field));
        let unanswered = is_mutation.then(|| Unanswered { caller, action: &action, vm });
        let resolved = next.run(ctx, info).await;
        if let Some(unanswered) = unanswered {
            unanswered.answered();
        }
        if let Err(error) = &resolved {
            let code = code(error);
            if is_mutation || code == FORBIDDEN {
                let refusal = caller.refusal(&action, vm, code);
                caller.ledger.note(vec![refusal]).await;
            }
        }
        resolved
    }
}

/// The operation that is carried out.
fn chosen<'a>(document: &'a ExecutableDocument, name: Option<&str>) -> Option<&'a OperationDefinition> {
    match &document.operations {
        DocumentOperations::Single(operation) => Some(&operation.node),
        DocumentOperations::Multiple(operations) => operations.get(name?).map(|operation| &operation.node),
    }
}

fn code(error: &ServerError) -> &str {
    match error.extensions.as_ref().and_then(|told| told.get("code")) {
        Some(Value::String(code)) => code,
        _ => INVALID_QUERY,
    }
}

impl Asked {
    fn of(ctx: &ExtensionContext<'_>, variables: Variables, operation: Option<&OperationDefinition>) -> Self {
        let mut asked = Self { by: Caller::of_extension(ctx), variables, streams: Vec::new() };
        let Some(operation) = operation else { return asked };
        for definition in &operation.variable_definitions {
            if let Some(default) = &definition.node.default_value {
                let name = definition.node.name.node.clone();
                asked.variables.entry(name).or_insert_with(|| default.node.clone());
            }
        }
        if operation.ty == OperationType::Subscription {
            let fields = operation.selection_set.node.items.iter().filter_map(|item| match &item.node {
                Selection::Field(field) => Some(&field.node),
                _ => None,
            });
            let streams = fields.map(|field| {
                let (key, name) = (field.response_key().node.to_string(), field.name.node.to_string());
                (key, name, asked.vm_of(field))
            });
            asked.streams = streams.collect();
        }
        asked
    }

    /// The VM that a root field is asked about.
    fn vm_of(&self, field: &Field) -> Option<VmId> {
        let given = field.get_argument(vm_argument(&field.name.node)?)?;
        let given = given.node.clone().into_const_with(|name| self.variables.get(&name).cloned().ok_or(()));
        let Ok(Value::String(text)) = given else { return None };
        text.parse().ok()
    }

    async fn forbidden_streams(&self, response: &Response) {
        let Some(caller) = &self.by else { return };
        if self.streams.is_empty() {
            return;
        }
        let forbidden = response.errors.iter().filter(|error| code(error) == FORBIDDEN).map(|error| {
            let stream = self.streams.iter().find(
                |(key, ..)| matches!(error.path.first(), Some(PathSegment::Field(field)) if field == key),
            );
            let (action, vm) = stream.map_or(("subscription", None), |(_, name, vm)| (name.as_str(), *vm));
            caller.refusal(action, vm, FORBIDDEN)
        });
        let forbidden: Vec<_> = forbidden.collect();
        if !forbidden.is_empty() {
            caller.ledger.note(forbidden).await;
        }
    }
}

impl Caller {
    fn of_extension(ctx: &ExtensionContext<'_>) -> Option<Self> {
        Some(Self {
            ledger: ctx.data_opt::<Ledger>()?.clone(),
            user: ctx.data_opt::<Actor>().map(|actor| actor.user),
            origin: ctx.data_opt::<AskedFrom>().cloned().unwrap_or_default(),
            deadline: ctx.data_opt::<Deadline>().cloned(),
        })
    }

    fn refusal(&self, action: &str, vm: Option<VmId>, code: &str) -> Refusal {
        refusal(action, self.user, vm, code, &self.origin)
    }

    /// Why somebody has not heard the end of what he asked.
    fn cut_off(&self) -> &'static str {
        if self.deadline.as_ref().is_some_and(Deadline::has_passed) {
            "REQUEST_TIMEOUT"
        } else if self.ledger.stops() {
            "SHUTTING_DOWN"
        } else {
            "CLIENT_GONE"
        }
    }
}

fn refusal(action: &str, user: Option<UserId>, vm: Option<VmId>, code: &str, origin: &AskedFrom) -> Refusal {
    Refusal {
        id: Uuid::now_v7(),
        at: Utc::now(),
        user,
        action: action.to_owned(),
        vm,
        code: Some(code.to_owned()),
        failed: is_failure(code) || matches!(code, "REQUEST_TIMEOUT" | "SHUTTING_DOWN" | "CLIENT_GONE"),
        details: json!({}),
        origin: origin.clone(),
    }
}

/// A mutation under way. Who drops it unanswered leaves a row that says so: how far it got, nobody
/// knows but the rows of what was done.
struct Unanswered<'a> {
    caller: &'a Caller,
    action: &'a str,
    vm: Option<VmId>,
}

impl Unanswered<'_> {
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let refusal = self.caller.refusal(self.action, self.vm, self.caller.cut_off());
        self.caller.ledger.note_later(vec![refusal]);
    }
}

/// What one mutation about many VMs was refused, VM by VM. Given up before it is written, it is
/// written later.
pub(super) struct Refused {
    caller: Option<Caller>,
    action: &'static str,
    rows: Vec<Refusal>,
}

impl Refused {
    pub(super) fn of(ctx: &Context<'_>, action: &'static str) -> Self {
        let caller = ctx.data_opt::<Ledger>().map(|ledger| Caller {
            ledger: ledger.clone(),
            user: ctx.data_opt::<Actor>().map(|actor| actor.user),
            origin: ctx.data_opt::<AskedFrom>().cloned().unwrap_or_default(),
            deadline: None,
        });
        Self { caller, action, rows: Vec::new() }
    }

    pub(super) fn add(&mut self, vm: VmId, code: &str) {
        if let Some(caller) = &self.caller {
            self.rows.push(caller.refusal(self.action, Some(vm), code));
        }
    }

    pub(super) async fn write(mut self) {
        let rows = std::mem::take(&mut self.rows);
        if let Some(caller) = self.caller.as_ref().filter(|_| !rows.is_empty()) {
            caller.ledger.note(rows).await;
        }
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        if let Some(caller) = self.caller.as_ref().filter(|_| !self.rows.is_empty()) {
            caller.ledger.note_later(std::mem::take(&mut self.rows));
        }
    }
}

/// Who was refused at a door beside GraphQL, of what.
pub(super) struct At<'a> {
    pub(super) door: &'a str,
    pub(super) user: Option<UserId>,
    pub(super) vm: Option<VmId>,
    pub(super) origin: AskedFrom,
}

/// Notes what was forbidden there, and counts who tries too often. All else is no row's worth.
pub(super) async fn refused_at(ledger: &Ledger, at: At<'_>, error: &ApiError) {
    let refusal = refusal(at.door, at.user, at.vm, error.code(), &at.origin);
    match error.code() {
        FORBIDDEN => ledger.note(vec![refusal]).await,
        "TOO_MANY_ATTEMPTS" => ledger.count(&refusal),
        _ => {}
    }
}
