//! Reads fields out of a guest's object: what is not of the kind asked for is absent.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::{agents::clean_text, api::scalars::BigInt};

/// Characters of one text; the longest that our agent gives is a command line of 1024.
const MAX_TEXT: usize = 4096;

/// One object of a guest's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    /// The object itself, where it has any of these fields: without one it is of another shape.
    pub(super) fn with_any(self, names: &[&str]) -> Option<Self> {
        names.iter().any(|name| self.0.contains_key(*name)).then_some(self)
    }

    pub(super) fn object(self, name: &str) -> Option<Self> {
        self.0.get(name).and_then(Self::of)
    }

    /// The rows of a list; what is no object is no row. `None` where there is no list.
    pub(super) fn rows<T>(self, name: &str, row: impl Fn(Fields<'a>) -> T) -> Option<Vec<T>> {
        Some(self.0.get(name)?.as_array()?.iter().filter_map(Self::of).map(row).collect())
    }

    pub(super) fn text(self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(|text| clean_text(text, MAX_TEXT))
    }

    pub(super) fn flag(self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }

    pub(super) fn number(self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    /// A whole number that GraphQL's `Int` holds.
    pub(super) fn int(self, name: &str) -> Option<i32> {
        self.0.get(name)?.as_i64().and_then(|number| i32::try_from(number).ok())
    }

    pub(super) fn big(self, name: &str) -> Option<BigInt> {
        self.0.get(name)?.as_i64().map(BigInt)
    }

    /// Unix seconds.
    pub(super) fn time(self, name: &str) -> Option<DateTime<Utc>> {
        self.0.get(name)?.as_i64().and_then(|seconds| DateTime::from_timestamp(seconds, 0))
    }
}
