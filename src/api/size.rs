//! How large a query truly is, and whether it asks for the schema.
//!
//! Fragments that spread fragments double with every level: two hundred bytes can stand for a
//! million fields, and GraphQL's own checks walk through each of them, on a thread that can do
//! nothing else meanwhile. So the size is computed first, looking at every fragment once.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Request,
    parser::types::{ExecutableDocument, FragmentDefinition, Selection, SelectionSet},
};

use super::{ApiContext, error::ApiError};

/// Longest text of a query, without its variables.
const MAX_BYTES: usize = 32 << 10;

/// A request that can be looked at more closely without harm.
///
/// # Errors
/// `INVALID_QUERY`.
pub(super) fn sized(mut request: Request, api: &ApiContext) -> Result<Request, ApiError> {
    let refuse = |words: String| Err(ApiError::new("INVALID_QUERY", words));
    if request.query.len() > MAX_BYTES {
        return refuse(format!("a query has at most {MAX_BYTES} bytes; send data as variables"));
    }
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    // Each field costs at least one; fragments cost nothing but are counted here.
    let selections = number(api.config.max_query_complexity).saturating_mul(2).saturating_add(1000);
    let (aliases, roots) = (number(api.config.max_query_aliases), number(api.config.max_root_fields));
    // What cannot be parsed is told with its place when it is executed.
    let Ok(document) = request.parsed_query() else { return Ok(request) };
    if total(document, &EVERYTHING) > selections {
        return refuse(format!(
            "the query has more than {selections} fields when its fragments are put in place"
        ));
    }
    if total(document, &ALIASES) > aliases {
        return refuse(format!(
            "the query has more than {aliases} aliases when its fragments are put in place"
        ));
    }
    if total(document, &ROOTS) > roots {
        return refuse(format!("the query asks for more than {roots} things at once"));
    }
    if !api.config.introspection && total(document, &SCHEMA) > 0 {
        return refuse("this host does not tell its schema; it is the product's `schema.graphql`".to_owned());
    }
    Ok(request)
}

/// What is counted.
struct Count {
    of: fn(&Selection) -> bool,
    /// Also below the first fields.
    deep: bool,
}

const EVERYTHING: Count = Count { of: |_| true, deep: true };
const ALIASES: Count = Count {
    of: |selection| matches!(selection, Selection::Field(field) if field.node.alias.is_some()),
    deep: true,
};
const ROOTS: Count = Count { of: |selection| matches!(selection, Selection::Field(_)), deep: false };
const SCHEMA: Count = Count {
    of: |selection| match selection {
        Selection::Field(field) => matches!(field.node.name.node.as_str(), "__schema" | "__type"),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => false,
    },
    deep: false,
};

/// How many of these are in all operations, with every fragment put in place. `usize::MAX` where a
/// fragment contains itself.
fn total(document: &ExecutableDocument, count: &Count) -> usize {
    let mut walk = Walk { count, fragments: &document.fragments, known: HashMap::new() };
    let operations = document.operations.iter();
    operations.fold(0, |sum: usize, (_, operation)| {
        sum.saturating_add(walk.of_set(&operation.node.selection_set.node))
    })
}

struct Walk<'a> {
    count: &'a Count,
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    /// `None`: being looked at.
    known: HashMap<&'a Name, Option<usize>>,
}

impl<'a> Walk<'a> {
    /// As deep as the parser lets selections and fragments be.
    fn of_set(&mut self, set: &'a SelectionSet) -> usize {
        set.items.iter().fold(0, |sum: usize, selection| {
            let inside = match &selection.node {
                Selection::Field(field) if self.count.deep => self.of_set(&field.node.selection_set.node),
                Selection::Field(_) => 0,
                Selection::InlineFragment(fragment) => self.of_set(&fragment.node.selection_set.node),
                Selection::FragmentSpread(spread) => self.of_fragment(&spread.node.fragment_name.node),
            };
            sum.saturating_add(usize::from((self.count.of)(&selection.node))).saturating_add(inside)
        })
    }

    fn of_fragment(&mut self, name: &Name) -> usize {
        // A fragment that does not exist is refused by validation.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else { return 0 };
        match self.known.get(name) {
            Some(Some(size)) => *size,
            Some(None) => usize::MAX,
            None => {
                self.known.insert(name, None);
                let size = self.of_set(&fragment.node.selection_set.node);
                self.known.insert(name, Some(size));
                size
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use async_graphql::parser::parse_query;

    use super::*;

    fn size(query: &str) -> usize {
        total(&parse_query(query).unwrap(), &EVERYTHING)
    }

    #[test]
    fn aliases_and_roots_count_wherever_a_fragment_puts_them() {
        let of = |query: &str, count: &Count| total(&parse_query(query).unwrap(), count);
        let query = "{ a: me { b: id ...U } ...Q ... on Query { host { hostname } } } \
            fragment U on User { c: name name } fragment Q on Query { d: me { ...U } e: me { ...U } }";
        assert_eq!(of(query, &ALIASES), 7);
        assert_eq!(of(query, &ROOTS), 4);
        assert_eq!(of(query, &SCHEMA), 0);
        let schema = "{ ...A } fragment A on Query { ... { x: __schema { types { name } } } __type(name: \"Vm\") { name } }";
        assert_eq!(of(schema, &SCHEMA), 2);
        assert_eq!(of("{ me { __typename } __typename }", &SCHEMA), 0);
    }

    #[test]
    fn every_selection_counts_wherever_it_stands() {
        assert_eq!(size("{ me { name } }"), 2);
        assert_eq!(size("{ me { name ... on User { id } } a: me { id } }"), 6);
        assert_eq!(size("{ ...A ...A } fragment A on Query { me { id } }"), 6);
        assert_eq!(size("query X { me { id } } query Y { me { id } }"), 4);
        assert_eq!(size("{ ...Missing }"), 1);
    }

    #[test]
    fn what_doubles_is_seen_at_once() {
        let mut query = "{ ...F0 }".to_owned();
        for n in 0..500 {
            write!(query, " fragment F{n} on Query {{ ...F{0} ...F{0} ...F{0} }}", n + 1).unwrap();
        }
        query.push_str(" fragment F500 on Query { me { name } }");
        assert!(size(&query) > 1 << 40);
    }

    /// Values and types nest, too; whoever follows them blindly ends the whole process.
    #[tokio::test]
    async fn deep_nesting_of_any_kind_is_refused_not_followed() {
        let schema = async_graphql::Schema::build(
            crate::api::query::QueryRoot::default(),
            crate::api::mutation::MutationRoot::default(),
            crate::api::subscription::SubscriptionRoot,
        )
        .finish();
        for (before, open, inside, close, after) in [
            ("{ vm(id: ", "[", "1", "]", ") { id } }"),
            ("{ vm(id: ", "{x:", "1", "}", ") { id } }"),
            ("query($a: ", "[", "Int", "]", ") { me { id } }"),
            ("{ ", "a{", "b", "}", " }"),
            ("{ ", "...{", "b", "}", " }"),
            ("{ ", "...on Query{", "b", "}", " }"),
        ] {
            let depth = (MAX_BYTES - 100) / (open.len() + close.len());
            let query = format!("{before}{}{inside}{}{after}", open.repeat(depth), close.repeat(depth));
            let answer = schema.execute(query).await;
            assert!(answer.is_err(), "{open} was followed");
        }
    }

    #[test]
    fn a_circle_is_endless() {
        for query in [
            "{ ...A } fragment A on Query { ...A }",
            "{ ...A } fragment A on Query { me { ...B } } fragment B on User { ...A }",
        ] {
            assert_eq!(size(query), usize::MAX, "{query}");
        }
    }
}
