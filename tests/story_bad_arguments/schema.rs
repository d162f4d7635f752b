//! What schema.graphql says of the mutations: every argument, and every field of the inputs, flat.

use std::{collections::BTreeMap, fs, path::Path};

use async_graphql::parser::{
    parse_schema,
    types::{BaseType, InputValueDefinition, Type, TypeDefinition, TypeKind, TypeSystemDefinition},
};

/// What may be written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Uuid,
    Int,
    Float,
    BigInt,
    Boolean,
    Text,
    Enum,
    /// An input object; of how many of its fields exactly one is given.
    Input {
        one_of: bool,
    },
}

/// One argument, or one field of an input.
#[derive(Debug, Clone)]
pub struct Argument {
    /// Its place: `input.unattended.user`; below a list, in its first entry: `envVars.0.name`.
    pub path: String,
    pub kind: Kind,
    /// Whether it is a list of those.
    pub list: bool,
    /// Whether null may be written there.
    pub nullable: bool,
    /// Whether it may be left out.
    pub optional: bool,
}

/// One mutation.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// Its arguments with their types, as they are written.
    pub types: BTreeMap<String, String>,
    /// What is asked of its answer.
    pub selection: &'static str,
    pub arguments: Vec<Argument>,
}

/// Every mutation there is.
pub fn mutations() -> BTreeMap<String, Mutation> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let document = parse_schema(fs::read_to_string(file).unwrap()).unwrap();
    let types = document.definitions.into_iter().filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => {
            Some((definition.node.name.node.to_string(), definition.node))
        }
        _ => None,
    });
    let types: BTreeMap<_, _> = types.collect();
    let TypeKind::Object(root) = &types["Mutation"].kind else { panic!("Mutation is no object") };
    let mutations = root.fields.iter().map(|field| {
        let field = &field.node;
        let mut arguments = Vec::new();
        for argument in &field.arguments {
            flatten(&types, "", &argument.node, &mut arguments);
        }
        let mutation = Mutation {
            types: field
                .arguments
                .iter()
                .map(|argument| (argument.node.name.node.to_string(), argument.node.ty.node.to_string()))
                .collect(),
            selection: selection(&field.ty.node),
            arguments,
        };
        (field.name.node.to_string(), mutation)
    });
    mutations.collect()
}

fn selection(answer: &Type) -> &'static str {
    match named(answer).0.as_str() {
        "VmPayload" => "operation { id }",
        "VmCommandResult" => "vmId error { code message }",
        "CommandLog" => "id status",
        "Medium" => "name",
        "Vm" | "User" | "UserAccount" | "ApiToken" => "id",
        "IssuedToken" => "info { id }",
        "VmShare" => "userId",
        other => panic!("say what is to be asked of a {other}"),
    }
}

/// The type's name, and whether it is a list of that.
fn named(ty: &Type) -> (String, bool) {
    match &ty.base {
        BaseType::Named(name) => (name.to_string(), false),
        BaseType::List(of) => (named(of).0, true),
    }
}

fn flatten(
    types: &BTreeMap<String, TypeDefinition>,
    place: &str,
    argument: &InputValueDefinition,
    into: &mut Vec<Argument>,
) {
    let (name, list) = named(&argument.ty.node);
    let path = format!("{place}{}", argument.name.node);
    let (kind, fields) = match (name.as_str(), types.get(&name).map(|definition| &definition.kind)) {
        ("UUID", _) => (Kind::Uuid, None),
        ("Int", _) => (Kind::Int, None),
        ("Float", _) => (Kind::Float, None),
        ("BigInt", _) => (Kind::BigInt, None),
        ("Boolean", _) => (Kind::Boolean, None),
        ("String", _) => (Kind::Text, None),
        (_, Some(TypeKind::Enum(_))) => (Kind::Enum, None),
        (name, Some(TypeKind::InputObject(input))) => {
            let one_of = types[name].directives.iter().any(|it| it.node.name.node == "oneOf");
            (Kind::Input { one_of }, Some(&input.fields))
        }
        (other, _) => panic!("say what a bad {other} is"),
    };
    let nullable = argument.ty.node.nullable;
    let optional = nullable || argument.default_value.is_some();
    let below = if list { format!("{path}.0.") } else { format!("{path}.") };
    into.push(Argument { path, kind, list, nullable, optional });
    for field in fields.into_iter().flatten() {
        flatten(types, &below, &field.node, into);
    }
}
