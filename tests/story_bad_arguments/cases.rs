//! From what an argument is to what may be wrong about it.

use serde_json::{Value, json};

use super::schema::{Argument, Kind};

pub const INVALID: &str = "INVALID_INPUT";
/// Not of the schema's shape.
const MISSHAPEN: &str = "INVALID_QUERY";

/// What somebody hostile writes where a text is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    Empty,
    Zero,
    Escape,
    Line,
    Path,
    Quotes,
    Expansion,
    Markup,
    Huge,
}

impl Text {
    pub const ALL: [Self; 9] = [
        Self::Empty,
        Self::Zero,
        Self::Escape,
        Self::Line,
        Self::Path,
        Self::Quotes,
        Self::Expansion,
        Self::Markup,
        Self::Huge,
    ];

    pub fn written(self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Zero => "a\0b".to_owned(),
            Self::Escape => "a\u{1b}[2Jb".to_owned(),
            Self::Line => "a\nb".to_owned(),
            Self::Path => "../../x".to_owned(),
            Self::Quotes => "a\"b'c`;' OR '1'='1".to_owned(),
            Self::Expansion => "${HOME}$(id)".to_owned(),
            Self::Markup => "<a b='c'/>&amp;".to_owned(),
            Self::Huge => "a".repeat(1 << 20),
        }
    }
}

/// With which code a hostile text is refused; none where it may be written there.
pub type Judge = fn(Text) -> Option<&'static str>;

/// What an argument means.
#[derive(Clone, Copy)]
pub enum Means {
    /// A VM: nobody else can tell it from one that is not there.
    Vm,
    /// Something else that has a UUID; the code for one that nothing has.
    Other(&'static str),
    /// An id of the client's choice.
    NewId,
    /// Yes or no, or one of a few words: nothing but its shape can be wrong.
    Choice,
    /// A number that is neither negative nor huge.
    Number,
    /// A number that is not negative.
    Positive,
    /// A text.
    Words(Judge),
    /// More arguments.
    Group,
}

/// One argument's row.
pub struct Row {
    pub path: &'static str,
    pub means: Means,
    /// The field that a refusal names.
    pub field: String,
    /// What else is refused.
    pub more: Vec<(Value, &'static str)>,
    /// What is refused to a stranger who asks it of a VM of his own.
    pub strangers: Vec<(Value, &'static str)>,
}

/// A row. A refusal names the field as the client wrote it, without what it stands in, except for
/// the groups of `createVm`.
pub fn row(path: &'static str, means: Means) -> Row {
    let field = match path.strip_prefix("input.") {
        Some(rest) => rest.to_owned(),
        None => {
            let named = path.split('.').take_while(|part| *part != "0").last();
            named.unwrap_or(path).to_owned()
        }
    };
    Row { path, means, field, more: Vec::new(), strangers: Vec::new() }
}

impl Row {
    pub fn and(mut self, value: Value, code: &'static str) -> Self {
        self.more.push((value, code));
        self
    }

    pub fn strangers(mut self, value: Value, code: &'static str) -> Self {
        self.strangers.push((value, code));
        self
    }
}

/// The variables of a request, and how it is refused.
pub struct Case {
    pub variables: Value,
    pub code: &'static str,
    /// The field that has to be named.
    pub field: Option<String>,
}

/// The place of a path in the variables.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// The variables with this there.
pub fn with(base: &Value, path: &str, value: Value) -> Value {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (pointer(parent), name),
        None => (String::new(), path),
    };
    let mut variables = base.clone();
    let parent = variables.pointer_mut(&parent).unwrap_or_else(|| panic!("nothing holds {path} in {base}"));
    parent[name] = value;
    variables
}

fn without(base: &Value, path: &str) -> Value {
    let mut variables = with(base, path, Value::Null);
    let (parent, name) = path.rsplit_once('.').map_or((String::new(), path), |(p, n)| (pointer(p), n));
    variables.pointer_mut(&parent).unwrap().as_object_mut().unwrap().remove(name);
    variables
}

/// What is none of that kind.
fn misshapen(kind: Kind) -> Vec<Value> {
    let texts = || Text::ALL.into_iter().map(|text| json!(text.written()));
    let mut wrong = match kind {
        Kind::Text => vec![json!(7), json!(true), json!(["a", 7])],
        Kind::Uuid | Kind::BigInt => texts().chain([json!(1.5), json!(true)]).collect(),
        Kind::Enum => texts().chain([json!("EXPLODE"), json!(7), json!(true)]).collect(),
        Kind::Boolean => vec![json!("yes"), json!("true"), json!(1), json!(0)],
        Kind::Int => {
            vec![
                json!("7"),
                json!(true),
                json!(1.5),
                json!(1e100),
                json!(1_i64 << 31),
                json!(-1 - (1_i64 << 31)),
            ]
        }
        Kind::Float => vec![json!("7"), json!(true)],
        Kind::Input { .. } => vec![json!("a"), json!(7), json!(true), json!([7]), json!({ "nonsense": 1 })],
    };
    match kind {
        Kind::BigInt => {
            let texts = ["1e12", " 1", "0x10", "9223372036854775808", "-9223372036854775809"];
            wrong.extend(texts.map(|text| json!(text)));
        }
        Kind::Uuid => wrong.extend([json!(7), json!("018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5")]),
        _ => {}
    }
    if !matches!(kind, Kind::Input { .. }) {
        wrong.push(json!({ "a": 1 }));
    }
    wrong
}

/// Everything that is refused to somebody who may do everything.
pub fn cases(argument: &Argument, row: &Row, base: &Value, nobody: &str) -> Vec<Case> {
    let listed = |value: Value| if argument.list { json!([value]) } else { value };
    let put = |value: Value| with(base, row.path, value);
    let shape = |variables| Case { variables, code: MISSHAPEN, field: None };
    let refused = |value: Value, code| Case {
        variables: put(value),
        code,
        field: (code == INVALID).then(|| row.field.clone()),
    };
    let mut cases: Vec<Case> =
        misshapen(argument.kind).into_iter().map(|value| shape(put(listed(value)))).collect();
    if argument.list {
        cases.extend([shape(put(json!([null]))), shape(put(json!({ "0": "a" })))]);
    }
    if !argument.nullable {
        cases.push(shape(put(Value::Null)));
    }
    if !argument.optional {
        cases.push(shape(without(base, row.path)));
    }
    if argument.kind == (Kind::Input { one_of: true }) {
        let both = json!({ "safe": { "action": "OS_INFO" }, "unsafe": { "rawCommand": "true" } });
        cases.extend([both, json!({}), json!({ "safe": null })].map(|value| shape(put(value))));
    }
    let nobody = json!(nobody);
    match row.means {
        Means::Vm => {
            let nil = json!(uuid::Uuid::nil());
            cases.extend([nobody, nil].map(|id| refused(listed(id), "VM_NOT_FOUND")));
        }
        Means::Other(code) => cases.push(refused(nobody, code)),
        Means::NewId => cases.push(refused(json!(uuid::Uuid::nil()), INVALID)),
        Means::Number | Means::Positive => {
            let huge = matches!(row.means, Means::Number);
            let numbers: &[Value] = match argument.kind {
                Kind::BigInt => {
                    &[json!("-1"), json!(i64::MIN.to_string()), json!("0"), json!(i64::MAX.to_string())]
                }
                Kind::Float => &[json!(-1.0), json!(-1e308), json!(-1), json!(1e308)],
                _ => &[json!(-1), json!(i32::MIN), json!(0), json!(i32::MAX)],
            };
            let numbers = numbers[..if huge { 4 } else { 3 }].iter();
            cases.extend(numbers.map(|number| refused(number.clone(), INVALID)));
        }
        Means::Words(judge) => {
            let hostile = Text::ALL.into_iter().filter_map(|text| Some((text.written(), judge(text)?)));
            cases.extend(hostile.map(|(text, code)| refused(listed(json!(text)), code)));
            if argument.list {
                cases.push(refused(json!(vec!["a"; 5000]), INVALID));
            }
        }
        Means::Choice | Means::Group => {}
    }
    cases.extend(row.more.iter().map(|(value, code)| refused(value.clone(), code)));
    cases
}

/// Whether a row can be about such an argument.
pub fn fits(means: Means, kind: Kind) -> bool {
    match means {
        Means::Vm | Means::Other(_) | Means::NewId => kind == Kind::Uuid,
        Means::Choice => matches!(kind, Kind::Boolean | Kind::Enum),
        Means::Number | Means::Positive => matches!(kind, Kind::Int | Kind::BigInt | Kind::Float),
        Means::Words(_) => kind == Kind::Text,
        Means::Group => matches!(kind, Kind::Input { .. }),
    }
}
