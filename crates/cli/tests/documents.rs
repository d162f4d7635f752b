//! Every document is one of the schema's: a field that is renamed there fails here.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the test")]

use std::{collections::BTreeSet, fs, path::Path};

use apollo_compiler::{ExecutableDocument, Schema, validation::Valid};
use infinibay_cli::documents::ALL;

fn schema() -> Valid<Schema> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema.graphql");
    let text = fs::read_to_string(&file).unwrap();
    Schema::parse_and_validate(text, "schema.graphql").unwrap_or_else(|broken| panic!("{}", broken.errors))
}

#[test]
fn every_document_is_valid() {
    let schema = schema();
    for document in ALL {
        let name = format!("{}.graphql", document.name);
        let checked = ExecutableDocument::parse_and_validate(&schema, document.text, &name);
        let valid = checked.unwrap_or_else(|broken| panic!("{}", broken.errors));
        // What is read of an answer is what was asked for.
        let operation = valid.operations.get(None).unwrap_or_else(|_| panic!("{name} has one operation"));
        let fields: Vec<_> =
            operation.root_fields(&valid).map(|field| field.response_key().as_str()).collect();
        assert_eq!(fields, [document.field], "{name}");
    }
}

#[test]
fn a_document_that_does_not_fit_is_seen() {
    let wrong = "query Q($id: UUID!) { vm(id: $id) { nmae } }";
    assert!(ExecutableDocument::parse_and_validate(&schema(), wrong, "wrong.graphql").is_err());
}

#[test]
fn every_file_is_a_document() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("graphql");
    let files: BTreeSet<_> =
        fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let known: BTreeSet<_> = ALL.iter().map(|document| format!("{}.graphql", document.name)).collect();
    assert_eq!(files, known);
}
