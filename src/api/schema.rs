//! The schema: what there is to ask, and how much at once.

use async_graphql::Schema;

use super::{
    ApiContext,
    audited::{Audited, Ledger},
    gates::Gates,
    mutation::MutationRoot,
    query::QueryRoot,
    subscription::SubscriptionRoot,
};

pub(super) type ApiSchema = Schema<QueryRoot, MutationRoot, SubscriptionRoot>;

pub(super) fn build(api: ApiContext, ledger: Ledger) -> ApiSchema {
    let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    let mut schema = Schema::build(QueryRoot::default(), MutationRoot::default(), SubscriptionRoot);
    if !api.config.introspection {
        // A guess at a name is not to be helped along either.
        schema = schema.disable_introspection().disable_suggestions();
    }
    schema
        .extension(Audited)
        .limit_depth(limit(api.config.max_query_depth))
        .limit_complexity(limit(api.config.max_query_complexity))
        .limit_recursive_depth(limit(api.config.max_query_depth).saturating_mul(2))
        .limit_directives(8)
        .data(Gates::default())
        .data(ledger)
        .data(api)
        .finish()
}

/// The schema in GraphQL's own language, as checked in.
#[must_use]
pub fn sdl() -> String {
    let schema = Schema::build(QueryRoot::default(), MutationRoot::default(), SubscriptionRoot).finish();
    let options =
        async_graphql::SDLExportOptions::new().sorted_fields().sorted_arguments().sorted_enum_items();
    schema.sdl_with_options(options)
}
