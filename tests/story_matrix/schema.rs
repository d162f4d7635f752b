//! What schema.graphql says: of the root fields, their arguments, and whether their answer has fields; and of
//! what their answers are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use async_graphql::parser::{
    parse_schema,
    types::{BaseType, Type, TypeKind, TypeSystemDefinition},
};
use serde_json::Value;

use super::rows::Root;

/// One root field.
#[derive(Debug)]
pub struct Field {
    /// Its arguments with their types, as they are written.
    pub arguments: BTreeMap<String, String>,
    /// Whether something has to be asked of its answer.
    has_fields: bool,
}

fn types() -> BTreeMap<String, TypeKind> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let document = parse_schema(fs::read_to_string(file).unwrap()).unwrap();
    document
        .definitions
        .into_iter()
        .filter_map(|definition| match definition {
            TypeSystemDefinition::Type(it) => Some((it.node.name.node.to_string(), it.node.kind)),
            _ => None,
        })
        .collect()
}

/// What the answers are made of: every object but the roots, with the type of each of its fields.
pub fn objects() -> BTreeMap<String, BTreeMap<String, String>> {
    let objects = types().into_iter().filter_map(|(name, kind)| match kind {
        TypeKind::Object(object) => Some((name, object)),
        _ => None,
    });
    let fields = objects.map(|(name, object)| {
        let types =
            object.fields.iter().map(|field| (field.node.name.node.to_string(), named(&field.node.ty.node)));
        (name, types.collect())
    });
    fields.filter(|(name, _)| Root::ALL.iter().all(|root| root.name() != name)).collect()
}

/// The objects that the answer of a root field may hold, however deep.
pub fn reached(root: Root, field: &str) -> BTreeSet<String> {
    let types = types();
    let TypeKind::Object(object) = &types[root.name()] else { panic!("{root:?} is no object") };
    let field = object.fields.iter().find(|it| it.node.name.node == field).unwrap();
    let (mut found, mut next) = (BTreeSet::new(), vec![named(&field.node.ty.node)]);
    while let Some(name) = next.pop() {
        match types.get(&name) {
            Some(TypeKind::Object(object)) if found.insert(name.clone()) => {
                next.extend(object.fields.iter().map(|field| named(&field.node.ty.node)));
            }
            Some(TypeKind::Union(union)) => {
                next.extend(union.members.iter().map(|member| member.node.to_string()));
            }
            Some(TypeKind::Interface(_)) => panic!("{name}: who may see an interface?"),
            _ => {}
        }
    }
    found
}

/// Every root field there is.
pub fn fields() -> BTreeMap<(Root, String), Field> {
    let types = types();
    let mut all = BTreeMap::new();
    for root in Root::ALL {
        let TypeKind::Object(object) = &types[root.name()] else { panic!("{root:?} is no object") };
        for field in &object.fields {
            let field = &field.node;
            let arguments = field
                .arguments
                .iter()
                .map(|argument| (argument.node.name.node.to_string(), argument.node.ty.node.to_string()));
            let answer = types.get(&named(&field.ty.node));
            let has_fields =
                matches!(answer, Some(TypeKind::Object(_) | TypeKind::Union(_) | TypeKind::Interface(_)));
            let entry = Field { arguments: arguments.collect(), has_fields };
            all.insert((root, field.name.node.to_string()), entry);
        }
    }
    all
}

fn named(ty: &Type) -> String {
    match &ty.base {
        BaseType::Named(name) => name.to_string(),
        BaseType::List(of) => named(of),
    }
}

/// The text of a request that gives what is in the variables, and nothing else.
pub fn text(root: Root, name: &str, field: &Field, selection: Option<&str>, variables: &Value) -> String {
    let (mut heads, mut arguments) = (Vec::new(), Vec::new());
    for argument in variables.as_object().unwrap().keys() {
        heads.push(format!("${argument}: {}", field.arguments[argument]));
        arguments.push(format!("{argument}: ${argument}"));
    }
    let list = |list: Vec<String>| match list.is_empty() {
        true => String::new(),
        false => format!("({})", list.join(", ")),
    };
    let inside = match (selection, field.has_fields) {
        (Some(selection), _) => format!("{{ {selection} }}"),
        (None, true) => "{ __typename }".to_owned(),
        (None, false) => String::new(),
    };
    format!("{}{} {{ {name}{} {inside} }}", root.keyword(), list(heads), list(arguments))
}
