//! Users, passwords, tokens, and parts in VMs.

use async_graphql::{Context, Object};
use chrono::Utc;
use uuid::Uuid;

use crate::{
    access::{Action, Target, authorize},
    accounts::NewUser,
    api::{
        auth::Call,
        error::ApiError,
        types::{
            ApiToken, CreateUserInput, IssuedToken, Scope, Share, UpdateUserInput, User, UserAccount, VmShare,
        },
    },
    store::{StoreError, UserChange},
    vm::{TokenId, UserId, VmId},
};

#[derive(Default)]
pub(in crate::api) struct PeopleMutations;

/// What working a password out costs.
const PASSWORD_COMPLEXITY: usize = 100;
/// A token's days, at most: a hundred years.
const MAX_DAYS: i32 = 36_500;

#[Object]
impl PeopleMutations {
    /// Makes a user; for admins, with a token that is good for everything.
    #[graphql(complexity = "PASSWORD_COMPLEXITY + child_complexity")]
    async fn create_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is asked for.")] input: CreateUserInput,
    ) -> Result<UserAccount, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ChangeUsers)?;
        let new = NewUser {
            name: input.name,
            email: input.email,
            password: input.password.map(Into::into),
            role: input.role.into(),
            permissions: input.permissions.into_iter().map(Into::into).collect(),
        };
        Ok(call.api.accounts.create(call.actor, new).await?.into())
    }

    /// Changes a user; for admins, with a token that is good for everything. What he has open holds to it within a second.
    #[graphql(complexity = "PASSWORD_COMPLEXITY + child_complexity")]
    async fn update_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
        #[graphql(desc = "What is asked for.")] input: UpdateUserInput,
    ) -> Result<UserAccount, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ChangeUsers)?;
        let change = UserChange {
            email: input.email,
            password_hash: None,
            role: input.role.map(Into::into),
            permissions: input.permissions.map(|all| all.into_iter().map(Into::into).collect()),
            disabled: input.disabled,
        };
        let password = input.password.map(Into::into);
        Ok(call.api.accounts.change(call.actor, UserId(id), change, password).await?.into())
    }

    /// Removes a user who owns no VM, with his tokens and sessions; for admins, with a token that is good for
    /// everything. Gives what he was.
    async fn delete_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<UserAccount, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::ChangeUsers)?;
        Ok(call.api.accounts.remove(call.actor, UserId(id)).await?.into())
    }

    /// Sets your password, and signs you out everywhere.
    #[graphql(complexity = "2 * PASSWORD_COMPLEXITY + child_complexity")]
    async fn change_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The one you have.", secret)] current: String,
        #[graphql(desc = "At least 10 characters, at most 1,024 bytes.", secret)] new: String,
    ) -> Result<User, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::OwnAccount)?;
        call.api.accounts.change_password(call.actor, current.into(), new.into()).await?;
        Ok(User::from(call.actor))
    }

    /// Issues a token to you. It is shown this once.
    async fn create_api_token(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What it is for; at most 200 characters.")] label: String,
        #[graphql(desc = "What it is good for; at least one.")] scopes: Vec<Scope>,
        #[graphql(desc = "How long it is good for, days; for ever when absent.")] days: Option<i32>,
    ) -> Result<IssuedToken, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::IssueToken)?;
        let in_range = |days: i32| (1..=MAX_DAYS).contains(&days).then_some(days.unsigned_abs());
        let days = days
            .map(|days| {
                in_range(days)
                    .ok_or_else(|| ApiError::invalid("days", format!("must be between 1 and {MAX_DAYS}")))
            })
            .transpose()?;
        let scopes: Vec<_> = scopes.into_iter().map(Into::into).collect();
        let (token, info) = call.api.accounts.issue_own(call.actor, &label, &scopes, days).await?;
        let token = secrecy::ExposeSecret::expose_secret(&token).to_owned();
        Ok(IssuedToken { token, info: ApiToken::from(info) })
    }

    /// Ends a token of yours. Gives what it was.
    async fn revoke_api_token(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] id: Uuid,
    ) -> Result<ApiToken, ApiError> {
        let call = Call::of(ctx)?;
        authorize(call.actor, Action::OwnAccount)?;
        Ok(call.api.accounts.revoke_own(call.actor, TokenId(id)).await?.into())
    }

    /// Gives a user a part in a VM, or another one than he has; for its owner. Gives all parts in it.
    async fn share_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which VM.")] vm_id: Uuid,
        #[graphql(desc = "With whom.")] user_id: Uuid,
        #[graphql(desc = "What part.")] share: Share,
    ) -> Result<Vec<VmShare>, ApiError> {
        set_share(ctx, VmId(vm_id), UserId(user_id), Some(share.into())).await
    }

    /// Takes a user's part in a VM away; for its owner. What he has open of it ends within a second.
    /// Gives what parts are left.
    async fn unshare_vm(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which VM.")] vm_id: Uuid,
        #[graphql(desc = "From whom.")] user_id: Uuid,
    ) -> Result<Vec<VmShare>, ApiError> {
        set_share(ctx, VmId(vm_id), UserId(user_id), None).await
    }
}

async fn set_share(
    ctx: &Context<'_>,
    vm: VmId,
    user: UserId,
    share: Option<crate::access::Share>,
) -> Result<Vec<VmShare>, ApiError> {
    let call = Call::of(ctx)?;
    let owner = call.api.store.vm(vm).await?.map(|view| view.record.owner);
    authorize(call.actor, Action::OwnVm(Target { vm, owner }))
        .map_err(|denied| ApiError::denied(denied, vm))?;
    if owner == Some(user) {
        return Err(ApiError::invalid("userId", "owns the VM already"));
    }
    let (store, by) = (call.api.store.clone(), call.actor.user);
    let change = async move { store.share_vm(vm, user, share, by, Utc::now()).await };
    call.api.accounts.change_rights(change).await.map_err(|error| match error {
        StoreError::NotFound => ApiError::new("USER_NOT_FOUND", format!("there is no user {user}")),
        StoreError::TooMany => ApiError::new(
            "LIMIT_REACHED",
            "the VM is shared with as many as it may be; take a part away first",
        ),
        other => other.into(),
    })?;
    Ok(call.api.store.shares(vm).await?.into_iter().map(VmShare::from).collect())
}
