//! The schema that is checked in is the schema that is served.

use std::path::Path;

#[test]
fn schema_graphql_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let served = infinibay::api::sdl();
    if std::env::var_os("INFINIBAY_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &served).expect("writing schema.graphql");
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == served,
        "schema.graphql is not what is served; if the change is meant, run: \
         INFINIBAY_UPDATE_SCHEMA=1 cargo test --test api_schema"
    );
}
