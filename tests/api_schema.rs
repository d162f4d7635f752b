//! The schema that front ends are built against is the one that is served.

use std::{fs, path::Path};

use async_graphql::{
    Positioned,
    parser::{
        parse_schema,
        types::{FieldDefinition, InputValueDefinition, TypeKind, TypeSystemDefinition},
    },
};

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

/// Whoever reads the schema finds a sentence at everything in it.
#[test]
fn everything_in_the_schema_is_described() {
    let document = parse_schema(infinibay::api::sdl()).expect("a schema");
    let (mut silent, mut count) = (Vec::new(), 0);
    let mut look = |place: String, description: Option<&Positioned<String>>| {
        count += 1;
        if description.is_none_or(|words| words.node.trim().is_empty()) {
            silent.push(place);
        }
    };
    for definition in &document.definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let (name, definition) = (&definition.node.name.node, &definition.node);
        look(name.to_string(), definition.description.as_ref());
        let (fields, inputs, values): (
            &[Positioned<FieldDefinition>],
            &[Positioned<InputValueDefinition>],
            _,
        ) = match &definition.kind {
            TypeKind::Object(object) => (&object.fields, &[], None),
            TypeKind::Interface(interface) => (&interface.fields, &[], None),
            TypeKind::InputObject(input) => (&[], &input.fields, None),
            TypeKind::Enum(it) => (&[], &[], Some(&it.values)),
            TypeKind::Scalar | TypeKind::Union(_) => (&[], &[], None),
        };
        for field in fields {
            let place = format!("{name}.{}", field.node.name.node);
            look(place.clone(), field.node.description.as_ref());
            for argument in &field.node.arguments {
                let argument = &argument.node;
                look(format!("{place}({})", argument.name.node), argument.description.as_ref());
            }
        }
        for input in inputs {
            look(format!("{name}.{}", input.node.name.node), input.node.description.as_ref());
        }
        for value in values.into_iter().flatten() {
            look(format!("{name}.{}", value.node.value.node), value.node.description.as_ref());
        }
    }
    assert!(count > 500, "only {count} things were looked at");
    assert!(silent.is_empty(), "without a description: {silent:#?}");
}
