//! E-mail addresses, as far as an account is named by one. Nobody is written to; so what counts is that one
//! address has one spelling, and that it holds nothing that shows as something else.

const MAX_BYTES: usize = 254;

/// The one spelling of an address; `None`: it is none.
pub(super) fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@')?;
    let allowed = |c: char| {
        c.is_ascii_graphic()
            && !matches!(c, '"' | '(' | ')' | ',' | ':' | ';' | '<' | '>' | '@' | '[' | ']' | '\\')
    };
    let sound = text.len() <= MAX_BYTES
        && !local.is_empty()
        && !domain.is_empty()
        && local.chars().all(allowed)
        && domain
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    sound.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn one_address_has_one_spelling() {
        assert_eq!(canonical(" Ana.Perez+vm@Example.ORG ").as_deref(), Some("ana.perez+vm@example.org"));
        assert_eq!(canonical("root@localhost").as_deref(), Some("root@localhost"));
        let long = format!("{}@example.org", "a".repeat(300));
        for bad in [
            "",
            "ana",
            "@example.org",
            "ana@",
            "ana@@x",
            "a b@x",
            "ana@x..y",
            "ana\u{0}@x",
            "ána@x",
            "<a>@x",
            &long,
        ] {
            assert_eq!(canonical(bad), None, "{bad:.40}");
        }
    }
}
