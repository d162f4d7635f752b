//! What was asked for and refused, written down. Rows of what was done are the store's, in the transaction
//! that does it; whatever ends in an error changes nothing, and so is noted here: every mutation's error,
//! and of the rest what was forbidden. The note is written before the answer goes out.

use std::sync::{Arc, OnceLock};

use async_graphql::{
    ServerResult, Value, Variables,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextParseQuery, NextResolve, ResolveInfo},
    parser::types::{ExecutableDocument, Field},
};
use chrono::Utc;
use tokio::time::{Duration, timeout};

use super::{ApiContext, error::is_failure};
use crate::{
    access::Actor,
    store::{AskedFrom, Refusal},
    vm::{VmId, chain},
};

/// How long the note may take; without it in time it stands in the log alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// Whoever was told so need not wait for the same once more.
const DATABASE_AWAY: &str = "STORE_UNAVAILABLE";

/// Makes one of the below for each request.
pub(super) struct Audited;

impl ExtensionFactory for Audited {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(OfRequest::default())
    }
}

#[derive(Default)]
struct OfRequest {
    variables: OnceLock<Variables>,
}

#[async_trait::async_trait]
impl Extension for OfRequest {
    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        // Once per request; a second time would be the same ones.
        let _ = self.variables.set(variables.clone());
        next.run(ctx, query, variables).await
    }

    async fn resolve(
        &self,
        ctx: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        let is_mutation = info.parent_type == "Mutation";
        let is_root = is_mutation || matches!(info.parent_type, "Query" | "Subscription");
        if !is_root {
            return next.run(ctx, info).await;
        }
        let (name, vm) = (info.name.to_owned(), self.vm_of(info.field));
        let resolved = next.run(ctx, info).await;
        if let Err(error) = &resolved {
            let code = error.extensions.as_ref().and_then(|told| told.get("code"));
            let code = match code {
                Some(Value::String(code)) => code.as_str(),
                _ => "INVALID_QUERY",
            };
            if is_mutation || code == "FORBIDDEN" {
                note(ctx, name, vm, code).await;
            }
        }
        resolved
    }
}

impl OfRequest {
    /// The VM that a field is asked about, by the arguments that name one.
    fn vm_of(&self, field: &Field) -> Option<VmId> {
        let named = ["vmId", "id"].into_iter().find_map(|name| field.get_argument(name))?;
        let given = named.node.clone().into_const_with(|name| {
            self.variables.get().and_then(|variables| variables.get(&name)).cloned().ok_or(())
        });
        let Ok(Value::String(text)) = given else { return None };
        text.parse().ok()
    }
}

async fn note(ctx: &ExtensionContext<'_>, action: String, vm: Option<VmId>, code: &str) {
    let Some(api) = ctx.data_opt::<ApiContext>() else { return };
    let refusal = Refusal {
        at: Utc::now(),
        user: ctx.data_opt::<Actor>().map(|actor| actor.user),
        action,
        vm,
        code: code.to_owned(),
        failed: is_failure(code),
        origin: ctx.data_opt::<AskedFrom>().cloned().unwrap_or_default(),
    };
    write(api, &refusal).await;
}

/// Notes that somebody nobody knows was refused at a door of its own.
pub(super) async fn refused_at(api: &ApiContext, door: &str, code: &str, origin: AskedFrom) {
    let refusal = Refusal {
        at: Utc::now(),
        user: None,
        action: door.to_owned(),
        vm: None,
        code: code.to_owned(),
        failed: is_failure(code),
        origin,
    };
    write(api, &refusal).await;
}

async fn write(api: &ApiContext, refusal: &Refusal) {
    let why = if refusal.code == DATABASE_AWAY {
        "the database is away".to_owned()
    } else {
        let written = api.store.record_refusals(std::slice::from_ref(refusal));
        match timeout(PATIENCE, written).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(_) => "the database did not answer in time".to_owned(),
        }
    };
    tracing::warn!(
        action = refusal.action, vm = ?refusal.vm, user = ?refusal.user, code = refusal.code, why,
        "a refusal could not be written to the audit log"
    );
}
