//! The schema: what there is to ask, and how much at once.

use async_graphql::{Context, Schema};
use tokio::sync::Semaphore;

use super::{
    ApiContext, error::ApiError, mutation::MutationRoot, query::QueryRoot, subscription::SubscriptionRoot,
};

pub(super) type ApiSchema = Schema<QueryRoot, MutationRoot, SubscriptionRoot>;

/// How many answers may hold whole frames of guests at once: each is up to some hundred MiB while
/// it is made.
const FRAME_READERS: usize = 2;

/// What only so many requests may do at the same time.
pub(super) struct Gates {
    pub(super) frames: Semaphore,
}

impl Gates {
    pub(super) fn of<'a>(ctx: &'a Context<'_>) -> Result<&'a Self, ApiError> {
        ctx.data_opt::<Self>()
            .ok_or_else(|| ApiError::new("INTERNAL", "the schema was built without its gates"))
    }
}

pub(super) fn build(api: ApiContext) -> ApiSchema {
    let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    Schema::build(QueryRoot, MutationRoot, SubscriptionRoot)
        .limit_depth(limit(api.config.max_query_depth))
        .limit_complexity(limit(api.config.max_query_complexity))
        .limit_recursive_depth(limit(api.config.max_query_depth).saturating_mul(2))
        .limit_directives(8)
        .data(Gates { frames: Semaphore::new(FRAME_READERS) })
        .data(api)
        .finish()
}

/// The schema in GraphQL's own language, as checked in.
#[must_use]
pub fn sdl() -> String {
    let schema = Schema::build(QueryRoot, MutationRoot, SubscriptionRoot).finish();
    let options =
        async_graphql::SDLExportOptions::new().sorted_fields().sorted_arguments().sorted_enum_items();
    schema.sdl_with_options(options)
}
