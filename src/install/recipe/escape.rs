//! A value as each format carries it, or a reason why it cannot.

use minijinja::Value;
use quick_xml::escape::escape as escape_xml;

use super::{Recipe, json::to_json};
use crate::install::seed::yaml_safe;

/// The value as it stands in the file.
pub(super) fn escape(recipe: Recipe, value: &Value) -> Result<String, String> {
    match recipe {
        // JSON is YAML, whatever is in the strings.
        Recipe::Autoinstall => {
            let json = serde_json::to_string(&to_json(value)?).map_err(|error| error.to_string())?;
            Ok(yaml_safe(&json))
        }
        Recipe::Preseed => preseed(&value.to_string()),
        Recipe::Kickstart => kickstart(&value.to_string()),
        Recipe::Autounattend => xml(&value.to_string()),
    }
}

/// Nothing is quoted in a preseed file: a value runs to the end of its line, and a backslash there
/// joins the next. What could end it, or be dropped, is refused.
fn preseed(text: &str) -> Result<String, String> {
    let plain = |c: char| (' '..='~').contains(&c) && c != '\\';
    if text.is_empty() || text.trim() != text || !text.chars().all(plain) {
        return Err(
            "a preseed file carries printable ASCII without '\\', and no blanks at the ends".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// One word for the reader of kickstart files, which splits lines as a shell does.
fn kickstart(text: &str) -> Result<String, String> {
    // Its reader ends lines where Python does.
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err("a kickstart file carries no control characters and no ends of lines".to_owned());
    }
    let bare = |c: char| c.is_ascii_alphanumeric() || "+._:=~/-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(bare) {
        return Ok(text.to_owned());
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

fn xml(text: &str) -> Result<String, String> {
    let fine = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    if !text.chars().all(fine) {
        return Err("XML cannot carry a character of a value".to_owned());
    }
    // Readers turn line ends into others, and blanks at the ends into none.
    Ok(escape_xml(text).replace('\t', "&#9;").replace('\n', "&#10;").replace('\r', "&#13;"))
}

#[cfg(test)]
mod tests {
    use minijinja::Value;
    use proptest::prelude::*;

    use super::{Recipe, escape};

    fn text(recipe: Recipe, value: &str) -> Result<String, String> {
        escape(recipe, &Value::from(value))
    }

    #[test]
    fn what_a_format_cannot_carry_is_refused() {
        for bad in ["", "a\nb", "a\\", "a\u{7f}", "ä", " a", "a ", "a\0"] {
            assert!(text(Recipe::Preseed, bad).is_err(), "{bad:?}");
        }
        for bad in ["a\nb", "a\rb", "a\0b", "a\u{85}b", "a\u{2028}b"] {
            assert!(text(Recipe::Kickstart, bad).is_err(), "{bad:?}");
        }
        for bad in ["a\0b", "a\u{1b}b", "\u{ffff}"] {
            assert!(text(Recipe::Autounattend, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_format_has_its_own_quotes() {
        let hostile = "a'b\"c\\d $(x) `y` # %end &<>]]> \u{2028}";
        assert_eq!(
            text(Recipe::Autoinstall, hostile).unwrap(),
            "\"a'b\\\"c\\\\d $(x) `y` # %end &<>]]> \\u2028\""
        );
        assert_eq!(text(Recipe::Kickstart, "a\"\\ $x").unwrap(), "\"a\\\"\\\\ $x\"");
        assert_eq!(text(Recipe::Kickstart, "").unwrap(), "\"\"");
        assert_eq!(text(Recipe::Kickstart, "%end").unwrap(), "\"%end\"");
        assert_eq!(text(Recipe::Kickstart, "nginx-1.2").unwrap(), "nginx-1.2");
        assert_eq!(text(Recipe::Autounattend, "a&b]]>\n").unwrap(), "a&amp;b]]&gt;&#10;");
        let safe = Value::from_safe_string("<b>".to_owned());
        assert_eq!(escape(Recipe::Autounattend, &safe).unwrap(), "&lt;b&gt;");
    }

    /// A shell's way of reading one word that begins with a quote or has none.
    fn unquote(word: &str) -> String {
        let Some(inside) = word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return word.to_owned();
        };
        let mut plain = String::new();
        let mut characters = inside.chars();
        while let Some(c) = characters.next() {
            assert_ne!(c, '"', "an end in the middle");
            plain.push(if c == '\\' { characters.next().expect("something is escaped") } else { c });
        }
        plain
    }

    proptest! {
        #[test]
        fn kickstart_words_come_back(value in "\\PC{0,60}") {
            if let Ok(word) = text(Recipe::Kickstart, &value) {
                prop_assert_eq!(unquote(&word), value);
            }
        }

        #[test]
        fn yaml_and_xml_come_back(value in ".{0,60}") {
            let json = text(Recipe::Autoinstall, &value).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value.clone());
            prop_assert!(!json.contains('\n'));
            if let Ok(escaped) = text(Recipe::Autounattend, &value) {
                prop_assert_eq!(quick_xml::escape::unescape(&escaped).unwrap(), value);
            }
        }

        #[test]
        fn preseed_values_are_one_line_or_nothing(value in ".{0,60}") {
            if let Ok(carried) = text(Recipe::Preseed, &value) {
                prop_assert_eq!(&carried, &value);
                prop_assert!(!carried.contains(['\n', '\r', '\\']));
            }
        }
    }
}
