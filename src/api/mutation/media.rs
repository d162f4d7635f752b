//! Bringing media in, and taking them away.

use async_graphql::{Context, Object};

use crate::api::{
    auth::Call,
    error::ApiError,
    types::{ImportMediumInput, MediumObject},
};

#[derive(Default)]
pub(in crate::api) struct MediaMutations;

#[Object]
impl MediaMutations {
    /// Brings a disk or an installation disc in; for admins. Answers when the request is stored;
    /// follow it with `medium(name)`. The same request again gives what there is, and takes up what
    /// was given up where it ended.
    async fn import_medium(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is asked for.")] input: ImportMediumInput,
    ) -> Result<MediumObject, ApiError> {
        let call = Call::of(ctx)?;
        let medium = call.api.media.import(call.actor, input.into()).await?;
        Ok(MediumObject::new(medium, call.actor.is_admin()))
    }

    /// Gives an import up and removes what was read of it; for admins.
    async fn cancel_medium_import(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its name.")] name: String,
    ) -> Result<MediumObject, ApiError> {
        let call = Call::of(ctx)?;
        let medium = call.api.media.cancel(call.actor, &name).await?;
        Ok(MediumObject::new(medium, call.actor.is_admin()))
    }

    /// Deletes a medium that no VM uses; for admins. Its files are removed afterwards, and then it
    /// is no longer listed.
    async fn delete_medium(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its name.")] name: String,
    ) -> Result<MediumObject, ApiError> {
        let call = Call::of(ctx)?;
        let medium = call.api.media.delete(call.actor, &name).await?;
        Ok(MediumObject::new(medium, call.actor.is_admin()))
    }
}
