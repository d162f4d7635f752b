//! The macro that declares a section: struct, defaults, reader and reference from one text.

/// One key, for the reference.
#[derive(Debug, Clone)]
pub struct KeyDoc {
    /// `section.key`.
    pub key: String,
    /// What to write.
    pub expects: &'static str,
    /// As text; empty: unset.
    pub default: &'static str,
    /// What it is for.
    pub doc: String,
}

macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $name:ident $section:literal {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:literal $(in $range:expr)?,)*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[doc = $doc])* #[doc = concat!("\n\nDefault: `", $default, "`.")] pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                let mut errors = Vec::new();
                let read = Self::read(&std::collections::BTreeMap::new(), &mut errors);
                debug_assert!(errors.is_empty(), "a default breaks its own rule: {errors:?}");
                read
            }
        }

        impl $name {
            /// The section's name in the file.
            pub(super) const SECTION: &'static str = $section;

            /// Reads the section out of its raw texts; what is wrong is noted, and the default
            /// stands in, so that the rest can be checked too.
            pub(super) fn read(
                raw: &std::collections::BTreeMap<String, String>,
                errors: &mut Vec<crate::config::ConfigError>,
            ) -> Self {
                use crate::config::value::{ConfigValue, check};
                $(let $field = {
                    let parse = |text: &str| -> Result<$type, String> {
                        let value = <$type as ConfigValue>::parse(text)?;
                        $(check(&value, &($range))?;)?
                        let _ = check::<$type>;
                        Ok(value)
                    };
                    let default = || parse($default).unwrap_or_else(|why| {
                        unreachable!("default of {}.{}: {why}", $section, stringify!($field))
                    });
                    match raw.get(stringify!($field)) {
                        None => default(),
                        Some(text) => parse(text).unwrap_or_else(|reason| {
                            errors.push(crate::config::ConfigError {
                                key: concat!($section, ".", stringify!($field)).to_owned(),
                                reason,
                            });
                            default()
                        }),
                    }
                };)*
                let known = [$(stringify!($field)),*];
                for key in raw.keys().filter(|key| !known.contains(&key.as_str())) {
                    errors.push(crate::config::ConfigError {
                        key: format!("{}.{key}", $section),
                        reason: "is not a key of this section".to_owned(),
                    });
                }
                Self { $($field),* }
            }

            /// The section's keys, for the reference.
            pub(super) fn keys() -> Vec<crate::config::KeyDoc> {
                use crate::config::value::ConfigValue;
                vec![$(crate::config::KeyDoc {
                    key: concat!($section, ".", stringify!($field)).to_owned(),
                    expects: <$type as ConfigValue>::EXPECTS,
                    default: $default,
                    doc: [$($doc),*].concat().trim().to_owned(),
                }),*]
            }
        }
    };
}
pub(super) use section;
