//! The schema that front ends are built against is the one that is served.

use std::{fs, path::Path};

#[test]
fn the_checked_in_schema_is_the_served_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let served = infinibay::api::sdl();
    if std::env::var_os("INFINIBAY_UPDATE_SCHEMA").is_some() {
        fs::write(&path, &served).expect("writing schema.graphql");
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    let differs = checked_in.lines().zip(served.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| checked_in.lines().count().min(served.lines().count())) + 1;
    assert!(
        checked_in == served,
        "schema.graphql is not the served schema (first difference in line {line}); look at what changed for \
         front ends, then: INFINIBAY_UPDATE_SCHEMA=1 cargo test --test api_schema"
    );
}
