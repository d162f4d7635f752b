//! Between JSON and what templates compute with.

use minijinja::{Value, value::ValueKind};
use serde_json::Value as Json;

/// JSON as a template sees it.
pub(in crate::install) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(entries) => entries.iter().map(from_json).collect(),
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), from_json(value))))
        }
    }
}

/// What a template computed, as JSON. The reason says what JSON has no form for.
pub(super) fn to_json(value: &Value) -> Result<Json, String> {
    let failed = |error: minijinja::Error| error.to_string();
    Ok(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => number(value)?,
        ValueKind::String => Json::String(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter().map_err(failed)?.map(|entry| to_json(&entry)).collect::<Result<_, _>>()?
        }
        ValueKind::Map => {
            let mut entries = serde_json::Map::new();
            for key in value.try_iter().map_err(failed)? {
                let entry = value.get_item(&key).map_err(failed)?;
                entries.insert(key.to_string(), to_json(&entry)?);
            }
            Json::Object(entries)
        }
        other => return Err(format!("{other} has no form there")),
    })
}

fn number(value: &Value) -> Result<Json, String> {
    if let Some(whole) = value.as_i64().filter(|_| value.is_integer()) {
        return Ok(Json::from(whole));
    }
    let fraction = f64::try_from(value.clone()).ok().and_then(serde_json::Number::from_f64);
    fraction.map(Json::Number).ok_or_else(|| format!("the number {value} has no form there"))
}

#[cfg(test)]
mod tests {
    use minijinja::Value;
    use serde_json::json;

    use super::{from_json, to_json};

    #[test]
    fn json_goes_in_and_comes_out() {
        let all = json!({ "a": [1, -2, 1.5, true, null, "x\u{2028}"], "b": { "c d": {} }, "e": [] });
        assert_eq!(to_json(&from_json(&all)).unwrap(), all);
        assert!(to_json(&Value::from(f64::NAN)).is_err());
        assert!(to_json(&Value::from_bytes(vec![1])).is_err());
    }
}
