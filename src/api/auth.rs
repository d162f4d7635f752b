//! Who is asking, and whether he may.

use std::time::Duration;

use async_graphql::Context;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use tokio::time::timeout;

use super::{ApiContext, error::ApiError};
use crate::{
    access::{Action, Actor, Target, authorize},
    store::{StoreError, VmView},
    vm::{UserId, VmId},
};

/// The token a request came with; kept to ask again during a long subscription.
#[derive(Clone)]
pub(super) struct Token(String);

/// The longest `Authorization` value worth hashing.
const MAX_TOKEN_BYTES: usize = 256;

/// How long the database is waited for to say who that is.
const PATIENCE: Duration = Duration::from_secs(1);

impl Token {
    /// Of a text that is a token and nothing else.
    pub(super) fn plain(text: &str) -> Option<Self> {
        let token = text.trim();
        (!token.is_empty() && token.len() <= MAX_TOKEN_BYTES).then(|| Self(token.to_owned()))
    }

    /// Of an `Authorization: Bearer …` value.
    pub(super) fn bearer(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Self::plain(token)).flatten()
    }

    /// Its text, which nobody else may see.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a request's headers.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)
    }

    /// Who holds it, now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`; `STORE_UNAVAILABLE` where it cannot be found out soon.
    pub(super) async fn actor(&self, api: &ApiContext) -> Result<Actor, ApiError> {
        known(api.accounts.authenticate(&self.0)).await
    }

    /// Who holds it, as of at most a second ago.
    ///
    /// # Errors
    /// As [`Self::actor`].
    pub(super) async fn recent_actor(&self, api: &ApiContext) -> Result<Actor, ApiError> {
        known(api.accounts.recognise(&self.0)).await
    }
}

/// Who it is, if that is found out soon.
async fn known(looking: impl Future<Output = Result<Option<Actor>, StoreError>>) -> Result<Actor, ApiError> {
    let known = timeout(PATIENCE, looking).await;
    let known = known.unwrap_or(Err(StoreError::NoAnswer { limit: PATIENCE }))?;
    known.ok_or_else(ApiError::unauthenticated)
}

/// What a resolver works with.
pub(super) struct Call<'a> {
    pub(super) api: &'a ApiContext,
    pub(super) actor: &'a Actor,
}

impl<'a> Call<'a> {
    /// # Errors
    /// `UNAUTHENTICATED`, where no actor came with the request.
    pub(super) fn of(ctx: &'a Context<'_>) -> Result<Self, ApiError> {
        let actor = ctx.data_opt::<Actor>().ok_or_else(ApiError::unauthenticated)?;
        let api = ctx
            .data_opt::<ApiContext>()
            .ok_or_else(|| ApiError::new("INTERNAL", "the schema was built without its context"))?;
        Ok(Self { api, actor })
    }

    /// A VM that the actor may see.
    ///
    /// # Errors
    /// `VM_NOT_FOUND`, also where it is another's.
    pub(super) async fn visible(&self, vm: VmId) -> Result<VmView, ApiError> {
        let view = self.api.store.vm(vm).await?;
        let owner = view.as_ref().map(|view| view.record.owner);
        authorize(self.actor, Action::ViewVm(Target { vm, owner }))
            .map_err(|denied| ApiError::denied(denied, vm))?;
        view.ok_or_else(|| ApiError::vm_not_found(vm))
    }

    /// Whether the actor may see a VM's history, which outlives the VM.
    ///
    /// # Errors
    /// `VM_NOT_FOUND`, also where it is another's.
    pub(super) async fn may_see_history(&self, vm: VmId) -> Result<(), ApiError> {
        let owner: Option<UserId> = match self.api.store.vm(vm).await? {
            Some(view) => Some(view.record.owner),
            None => self.api.store.former_owner(vm).await?,
        };
        authorize(self.actor, Action::ViewVm(Target { vm, owner }))
            .map_err(|denied| ApiError::denied(denied, vm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_values_of_a_sane_length_are_tokens() {
        assert_eq!(Token::bearer("Bearer abc").unwrap().0, "abc");
        assert_eq!(Token::bearer("bearer  abc ").unwrap().0, "abc");
        for bad in ["", "abc", "Basic abc", "Bearer ", &format!("Bearer {}", "x".repeat(300))] {
            assert!(Token::bearer(bad).is_none(), "{bad:.20}");
        }
    }
}
