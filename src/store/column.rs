//! Values as the databases keep them: words for enumerations, JSON as text, lists of identifiers,
//! times that both databases can hold.

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Database, Decode, Encode, Postgres, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgTypeInfo, types::Oid},
    sqlite::SqliteTypeInfo,
};
use uuid::Uuid;

use super::StoreError;
use crate::vm::truncate_to_micros;

/// An enumeration with a stable word for each variant. The words are the database's, apart from
/// those of the API, so that neither can change the other unseen.
pub(super) trait Word: Sized + Copy + 'static {
    /// Every variant with its word.
    const WORDS: &'static [(Self, &'static str)];

    /// The stored word.
    fn word(self) -> &'static str;

    /// What a stored word means.
    fn read(operation: &'static str, word: &str) -> Result<Self, StoreError> {
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(value, _)| *value)
            .ok_or_else(|| StoreError::Corrupt { operation, reason: format!("{word:?} is not a known word") })
    }
}

/// Gives each variant its word; a new variant does not compile until it has one.
macro_rules! words {
    ($type:ty { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $crate::store::column::Word for $type {
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }
    };
}

pub(super) use words;

/// A column of JSON, as its text: `JSON` on PostgreSQL, `TEXT` on SQLite. What is inside is read
/// apart from the row, so that an unreadable value can be named with its row.
#[derive(Debug, Clone)]
pub(super) struct JsonText(pub(super) String);

impl JsonText {
    pub(super) fn write<T: Serialize + ?Sized>(
        operation: &'static str,
        value: &T,
    ) -> Result<Self, StoreError> {
        serde_json::to_string(value)
            .map(Self)
            .map_err(|error| StoreError::Corrupt { operation, reason: error.to_string() })
    }

    pub(super) fn read<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        id: Uuid,
    ) -> Result<T, StoreError> {
        serde_json::from_str(&self.0)
            .map_err(|error| StoreError::Corrupt { operation, reason: format!("row {id}: {error}") })
    }
}

/// PostgreSQL's type `json`.
const PG_JSON: PgTypeInfo = PgTypeInfo::with_oid(Oid(114));

impl Type<Postgres> for JsonText {
    fn type_info() -> PgTypeInfo {
        PG_JSON
    }
}

impl Type<Sqlite> for JsonText {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<'q, DB: Database> Encode<'q, DB> for JsonText
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buffer: &mut <DB as Database>::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        self.0.encode_by_ref(buffer)
    }
}

impl<'r, DB: Database> Decode<'r, DB> for JsonText
where
    String: Decode<'r, DB>,
{
    fn decode(value: <DB as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        String::decode(value).map(Self)
    }
}

/// A list of identifiers as one parameter, so that a list of any length is one statement of one
/// text: `= ANY($n)` on PostgreSQL, `IN (SELECT unhex(value) FROM json_each($n))` on SQLite.
#[derive(Debug, Clone)]
pub(super) struct Ids(pub(super) Vec<Uuid>);

impl Type<Postgres> for Ids {
    fn type_info() -> PgTypeInfo {
        <Vec<Uuid> as Type<Postgres>>::type_info()
    }
}

impl Type<Sqlite> for Ids {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<'q> Encode<'q, Postgres> for Ids {
    fn encode_by_ref(
        &self,
        buffer: &mut <Postgres as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        <Vec<Uuid> as Encode<'q, Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

impl<'q> Encode<'q, Sqlite> for Ids {
    fn encode_by_ref(
        &self,
        buffer: &mut <Sqlite as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        let hex: Vec<_> = self.0.iter().map(|id| id.simple().to_string()).collect();
        <String as Encode<'q, Sqlite>>::encode(serde_json::to_string(&hex)?, buffer)
    }
}

/// A time that both databases keep and give back the same: whole microseconds, in years of four
/// digits. A guest may send any time it likes, and none may make a row unreadable.
pub(super) fn storable(at: DateTime<Utc>) -> DateTime<Utc> {
    const EARLIEST: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
    const LATEST: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z
    if (EARLIEST..=LATEST).contains(&at.timestamp()) {
        truncate_to_micros(at)
    } else {
        DateTime::from_timestamp(at.timestamp().clamp(EARLIEST, LATEST), 0).unwrap_or_default()
    }
}

/// Text that both databases keep: PostgreSQL refuses the character NUL.
pub(super) fn storable_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_becomes_one_that_both_databases_hold() {
        let fine: DateTime<Utc> = "2026-02-03T04:05:06.123456789Z".parse().unwrap();
        assert_eq!(storable(fine).to_rfc3339(), "2026-02-03T04:05:06.123456+00:00");
        assert_eq!(storable(DateTime::<Utc>::MAX_UTC).to_rfc3339(), "9999-12-31T23:59:59+00:00");
        assert_eq!(storable(DateTime::<Utc>::MIN_UTC).to_rfc3339(), "0001-01-01T00:00:00+00:00");
    }
}
