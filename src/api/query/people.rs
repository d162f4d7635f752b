//! Questions about users, tokens, shares, and who asked for what.

use async_graphql::{Context, Object};
use uuid::Uuid;

use super::page_complexity;
use crate::{
    access::{Action, Target, authorize},
    api::{
        auth::Call,
        error::ApiError,
        types::{
            ApiToken, AuditConnection, AuditEntry, AuditFilterInput, PageInfo, UserAccount, UserConnection,
            VmShare, page,
        },
    },
    store::AuditFilter,
    vm::{UserId, VmId},
};

/// Longer words are no action's.
const MAX_ACTION: usize = 64;

#[derive(Default)]
pub(in crate::api) struct PeopleQueries;

#[Object]
impl PeopleQueries {
    /// Users; for admins.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
    ) -> Result<UserConnection, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewUsers)?;
        let found = call.api.accounts.list(page(first, after.as_deref())?).await?;
        let last = found.nodes.last().map(|user| user.id);
        let nodes = found.nodes.into_iter().map(UserAccount::from).collect();
        Ok(UserConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }

    /// One user; for admins. Null where there is none.
    async fn user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<Option<UserAccount>, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewUsers)?;
        Ok(call.api.accounts.user(UserId(id)).await?.map(UserAccount::from))
    }

    /// Your tokens, newest first; at most 100.
    async fn api_tokens(&self, ctx: &Context<'_>) -> Result<Vec<ApiToken>, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::OwnAccount)?;
        Ok(call.api.accounts.tokens(call.actor).await?.into_iter().map(ApiToken::from).collect())
    }

    /// Who has a part in a VM, by name; for its owner. At most 100.
    async fn vm_shares(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which VM.")] vm_id: Uuid,
    ) -> Result<Vec<VmShare>, ApiError> {
        let call = Call::of(ctx)?;
        let vm = VmId(vm_id);
        let owner = call.api.store.vm(vm).await?.map(|view| view.record.owner);
        authorize(call.actor, Action::OwnVm(Target { vm, owner }))
            .map_err(|denied| ApiError::denied(denied, vm))?;
        Ok(call.api.store.shares(vm).await?.into_iter().map(VmShare::from).collect())
    }

    /// Who asked for what, from where, and what became of it, newest first; for admins.
    #[graphql(complexity = "page_complexity(first, child_complexity)")]
    async fn audit_log(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50, desc = "Nodes of the page: 1 to 200.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
        #[graphql(desc = "Which rows; all when absent.")] filter: Option<AuditFilterInput>,
    ) -> Result<AuditConnection, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ViewAudit)?;
        let filter = match filter {
            Some(filter) if filter.action.as_ref().is_some_and(|action| action.len() > MAX_ACTION) => {
                return Err(ApiError::invalid("filter.action", format!("has at most {MAX_ACTION} bytes")));
            }
            Some(filter) => AuditFilter {
                user: filter.user_id.map(UserId),
                vm: filter.vm_id.map(VmId),
                action: filter.action,
                outcome: filter.outcome.map(Into::into),
            },
            None => AuditFilter::default(),
        };
        let found = call.api.store.audit_log(&filter, page(first, after.as_deref())?).await?;
        let last = found.nodes.last().map(|entry| entry.id);
        let nodes = found.nodes.into_iter().map(AuditEntry::from).collect();
        Ok(AuditConnection { nodes, page_info: PageInfo::new(found.has_next, last) })
    }
}
